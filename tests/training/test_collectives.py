"""Training in real processes on this machine (gloo).

Losses do not depend on the number of processes. If one fails or is stopped, all end alike.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mgm.__main__ import main
from mgm.data.synthetic.generator import generate
from mgm.errors import UserError
from mgm.results.lock import folder_lock
from mgm.results.result import examine, log_lines
from mgm.spec import Augment, Decoder, Finetune, FinetuneOptim, Optim, Pretrain, RunOptions, Views
from mgm.stages import fit as fitting
from mgm.stages.finetune import finetune
from mgm.stages.job import Job, Workplace, find_index
from mgm.stages.pretrain import pretrain
from mgm.stages.runner import run_all
from mgm.training import collectives
from tests.helpers.small_runs import PARAMS, SMALL
from tests.helpers.two_processes import STOP_AT, trained_toy

pytestmark = pytest.mark.usefixtures("cpu")
OPTIM = {
    "lr": 0.064,
    "min_lr": 1e-4,
    "batch": 4,
    "steps": 12,
    "precision": "float32",
    "clip_grad": 0.02,
}
PRETRAIN = Pretrain(
    **SMALL, decoder=Decoder(width=8, depth=1, heads=2), optim=Optim(**OPTIM), std_floor=0.1
)
TUNED = Finetune(
    **SMALL,
    optim=FinetuneOptim(**OPTIM),
    drop_path=0.0,
    views=Views(temporal=4, spatial=3),
    augment=Augment(repeats=2),
)
# Each process mixes and drops on its own.
DROPPING = TUNED.model_copy(
    update={
        "drop_path": 0.3,
        "head_dropout": 0.3,
        "augment": Augment(mixup=0.8, cutmix=1.0, repeats=2),
    }
)
CLOSE = {
    "rtol": 1e-3,
    "atol": 1e-4,
}  # of weights; float32 sums in another order, over 12 steps of Adam
MGM = Path(sys.executable).with_name("mgm")


def two(*command) -> list[subprocess.Popen]:
    """Start a command in two processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    about = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = [str(word) for word in command]
    return [
        subprocess.Popen(
            words,
            env={**os.environ, **about, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def ended(processes, within=280) -> tuple[list[int], str]:
    """Return the exit statuses of processes, and all of their error output as one text."""
    end = time.monotonic() + within
    try:
        said = [
            process.communicate(timeout=max(end - time.monotonic(), 0.1))[1]
            for process in processes
        ]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], "".join(said)


def torchrun(*command) -> list[str]:
    words = [MGM.with_name("torchrun"), *["--standalone", "--nproc-per-node", "2", "--no-python"]]
    return [str(word) for word in (*words, *command)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with generated videos, specs and runs of one process.

    `one` has two finished runs. `one-to-two` has a run that one process left at step 5.
    """
    folder = tmp_path_factory.mktemp("distributed")
    generate(PARAMS, folder / "ssv2")
    (folder / "specs").mkdir()
    for name, spec in {"pretrain": PRETRAIN, "tuned": TUNED, "dropping": DROPPING}.items():
        (folder / "specs" / f"{name}.json").write_text(spec.model_dump_json())
    torch.set_num_threads(1)
    alone = Workplace(folder / "one", {"ssv2": folder / "ssv2"}, RunOptions(accumulate=4))
    run_all([PRETRAIN], pretrain, alone)
    run_all([TUNED], finetune, alone)
    with pytest.MonkeyPatch.context() as patch:
        real = fitting.training_loader

        def stopping(*args, first_step, **kwargs):
            for step, batch in enumerate(real(*args, first_step=first_step, **kwargs), first_step):
                if step == STOP_AT:
                    raise KeyboardInterrupt
                yield batch

        patch.setattr(fitting, "training_loader", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_all(
                [TUNED],
                finetune,
                replace(
                    alone,
                    results=folder / "one-to-two",
                    options=RunOptions(accumulate=4, checkpoint_s=0),
                ),
            )
    return folder


@pytest.fixture(scope="module")
def both(folder) -> list[dict]:
    """Run `two_processes.main` in two processes and return the record of each."""
    statuses, said = ended(two(sys.executable, "-m", "tests.helpers.two_processes", folder))
    assert statuses == [0, 0], said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def assert_same_log(one: Path, other: Path):
    """Assert that two logs agree, at every step, in all fields that describe the training.

    Losses are float32 means of the same numbers in another order. Adam divides by the size of small
    gradients, so over 12 steps the difference grows to about 1e-5.
    """
    logs = [
        [
            {name: line[name] for name in line if name not in NOT_TRAINING}
            for line in log_lines(folder)
        ]
        for folder in (one, other)
    ]
    assert [line["step"] for line in logs[0]] == list(range(1, 13))
    for mine, theirs in zip(*logs, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


NOT_TRAINING = ("clips_per_s", "waiting", "memory_mb", "seconds", "time")


def assert_close(one: Path, other: Path):
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **CLOSE)


def test_pretraining_has_the_losses_of_one_process(folder, both):
    one, other = (folder / name / PRETRAIN.run_id for name in ("one", "two"))
    assert_same_log(one, other)
    assert_close(one, other)


def test_finetuning_has_the_losses_of_one_process(folder, both):
    """Repeated augmentation too, in 1 process x 4 parts and in 2 x 2."""
    one, other = (folder / name / TUNED.run_id for name in ("one", "two"))
    assert_same_log(one, other)
    assert_close(one, other)


def test_uneven_tests_count_each_video_once(folder, both):
    """Predictions are the same, byte for byte, with 7 of 12 videos on rank 0.

    The batches have 5, 5 and 2 videos.
    """
    name, one = "predictions.csv", folder / "one" / TUNED.run_id
    assert (folder / "tested" / name).read_bytes() == (one / name).read_bytes()
    top1 = examine(one, TUNED).result["metrics"]["top1"]
    assert [seen["top1"] for seen in both] == [top1, None]


def test_failures_are_those_of_one_process_and_in_its_order(both, tmp_path):
    alone = trained_toy(tmp_path / "toy", 1000, 4)
    for seen in both:
        assert seen["toy"]["failed"] == alone["failed"] == ["b", "d", "a", "c"]
        torch.testing.assert_close(
            torch.tensor(seen["toy"]["weights"]), torch.tensor(alone["weights"]), **CLOSE
        )
        assert (
            "3 of 299 training videos could not be read, more than 1 %: b first"
            in seen["many"]["error"]
        )


def test_a_signal_to_one_stops_both_after_its_step_and_they_end_as_if_undisturbed(folder, both):
    assert [seen["status"] for seen in both] == [[143, 143]] * 2
    left = torch.load(folder / "two-to-one" / TUNED.run_id / "checkpoint.pt", weights_only=True)
    assert left["step"] == STOP_AT + 1
    assert_close(folder / "two" / DROPPING.run_id, folder / "again" / DROPPING.run_id)
    whole, tuned = (
        load_file(folder / "two" / spec.run_id / "weights.safetensors")
        for spec in (DROPPING, TUNED)
    )
    assert not all(torch.equal(whole[name], tuned[name]) for name in whole)  # dropout is on


def test_a_run_goes_on_with_another_number_of_processes(folder, both):
    """Without dropout, the result is as if the number had not changed."""
    run_all(
        [TUNED],
        finetune,
        Workplace(folder / "two-to-one", {"ssv2": folder / "ssv2"}, RunOptions(accumulate=4)),
    )
    for name in ("two-to-one", "one-to-two"):
        assert_same_log(folder / "one" / TUNED.run_id, folder / name / TUNED.run_id)
        assert_close(folder / "one" / TUNED.run_id, folder / name / TUNED.run_id)


def command(folder, out, spec, verb="pretrain") -> list:
    out.mkdir(exist_ok=True)
    file = out / "spec.json"
    file.write_text(spec.model_dump_json())
    return [MGM, verb, file, "--out", out, "--data", f"ssv2={folder / 'ssv2'}"]


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_is_no_failure(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MGM_STOPPED", str(tmp_path / "stopped"))
    run, processes = started(folder, tmp_path)
    processes[0].kill()
    assert ended(processes, within=30)[0] == [-9, 1]
    assert examine(run, LONG).state != "failed"
    assert not (run / "error.txt").exists()
    assert not (tmp_path / "stopped").exists()


LONG = PRETRAIN.model_copy(update={"optim": PRETRAIN.optim.model_copy(update={"steps": 100_000})})


def started(folder, out) -> tuple[Path, list[subprocess.Popen]]:
    """Start a long run on two processes, and wait for its first checkpoint."""
    processes, run = two(*command(folder, out, LONG), "--checkpoint-s", "0.2"), out / LONG.run_id
    end = time.monotonic() + 100
    while (
        not (run / "checkpoint.pt").exists()
        and time.monotonic() < end
        and processes[0].poll() is None
    ):
        time.sleep(0.05)
    return run, processes


@pytest.mark.slow
def test_under_torchrun_an_error_is_one_line_and_ends_all(folder, tmp_path):
    """Two errors that only one rank sees: a second writer (rank 0) and an unreadable test video.

    The video is the seventh, which rank 1 reads while rank 0 waits for the scores.
    """
    run = tmp_path / PRETRAIN.run_id
    run.mkdir()
    with folder_lock(run):
        done = subprocess.run(
            torchrun(*command(folder, tmp_path, PRETRAIN)),
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mgm: ")]
    assert f"{run}: process {os.getpid()} on {socket.gethostname()} writes here" in line
    assert not list(run.iterdir())

    shutil.copytree(folder / "ssv2", tmp_path / "ssv2")
    short = TUNED.model_copy(
        update={"augment": Augment(), "optim": TUNED.optim.model_copy(update={"steps": 2})}
    )
    name = (
        (folder / "one" / TUNED.run_id / "predictions.csv")
        .read_text()
        .splitlines()[7]
        .split(",")[0]
    )
    video = next((tmp_path / "ssv2").rglob(Path(name).name))
    video.write_bytes(video.read_bytes()[:100])
    words = torchrun(*command(tmp_path, tmp_path / "out", short, "finetune"))
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("mgm: ")]
    assert video.name in line
    run = tmp_path / "out" / short.run_id
    assert (run / "error.txt").read_text() == line.removeprefix("mgm: ") + "\n"
    assert not (run / "result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1", "nowhere.invalid"])
def test_a_process_that_waits_for_others_says_so_and_ends_at_a_signal(folder, tmp_path, address):
    about = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"}
    about |= {"MASTER_ADDR": address, "MASTER_PORT": "1"}
    process = subprocess.Popen(
        [str(word) for word in command(folder, tmp_path, PRETRAIN)],
        env=os.environ | about,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert any(f"processes to connect at {address}:1" in line for line in process.stderr)
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM


def test_a_batch_that_processes_do_not_divide_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(collectives, "world_size", lambda: 3)
    options = RunOptions(accumulate=2)
    workplace = Workplace(tmp_path, {"ssv2": folder / "ssv2"}, options)
    job = Job(PRETRAIN, tmp_path, workplace, find_index(PRETRAIN, workplace))
    with pytest.raises(UserError, match=r"--accumulate 2 .*optim\.batch 4"):
        pretrain(job)


def test_what_runs_in_one_process_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(collectives, "world_size", lambda: 2)
    path = tmp_path / "spec.json"
    path.write_text('{"stage": "probe", "data": {"dataset": "ssv2"}}')
    words = ["mgm", "probe", str(path), "--out", "x", "--data", "ssv2=y"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith("mgm: mgm probe: ")
    assert "without torchrun" in line
