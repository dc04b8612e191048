"""Real processes on this machine (gloo): the same losses whatever their number, one end whatever happens to one of them."""

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

from mgm.datasets.synthetic.make import generate
from mgm.datasets.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.jobs import data
from mgm.jobs.data import Execution
from mgm.jobs.finetune import finetune
from mgm.jobs.pretrain import pretrain
from mgm.jobs.runner import run_all
from mgm.launch import Place, place_of
from mgm.runs.lock import folder_lock
from mgm.runs.log import log_lines
from mgm.runs.result import examine
from mgm.spec import Augment, Clips, Data, Decoder, Finetune, FinetuneOptim, Model, Optim, Pretrain, Views
from mgm.training import distributed
from tests.helpers.two_processes import STOP_AT, trained_toy

PARAMS = Synthetic(classes=3, train_per_class=8, test_per_class=4, size=32, frames=12)
SMALL = {
    "data": Data(dataset="ssv2", digest=PARAMS.digest),
    "clips": Clips(frames=4, size=24, stride=2, flip=False),
    "model": Model(width=16, depth=2, heads=2, patch=8),
}
OPTIM = {"lr": 0.064, "min_lr": 1e-4, "batch": 4, "steps": 12, "precision": "float32", "clip_grad": 0.02}
PRETRAIN = Pretrain(**SMALL, decoder=Decoder(width=8, depth=1, heads=2), optim=Optim(**OPTIM), std_floor=0.1)
MIXED = Finetune(
    **SMALL, optim=FinetuneOptim(**OPTIM), drop_path=0.0, views=Views(temporal=4, spatial=3),
    augment=Augment(mixup=0.8, cutmix=1.0, repeats=2),
)  # fmt: skip
DROPPING = MIXED.model_copy(update={"drop_path": 0.3, "head_dropout": 0.3})
CLOSE = {"rtol": 1e-3, "atol": 1e-4}  # of weights: float32 sums in another order, through 12 steps of Adam
MGM = str(Path(sys.executable).with_name("mgm"))


def two(*command, slurm=False) -> list[subprocess.Popen]:
    """A command in two processes, as torchrun starts it, or srun on two nodes whose names only Slurm knows."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    if slurm:
        about = SLURM | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "no-such-[1-2]", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1"}
        ranks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": "0", "SLURM_JOB_ID": str(os.getpid())} for rank in range(2)]
    else:
        about = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    words = [str(word) for word in command]
    return [
        subprocess.Popen(words, env={**os.environ, **about, **own}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for own in ranks
    ]


def ended(processes, within=100) -> tuple[list[int], str]:
    """Their exit statuses, and what they said, together."""
    end = time.monotonic() + within
    try:
        said = [process.communicate(timeout=max(end - time.monotonic(), 0.1))[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], "".join(said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Generated videos; `one`: runs of one process; `one-to-two`: one that it left at step 5."""
    folder = tmp_path_factory.mktemp("distributed")
    generate(PARAMS, folder / "ssv2")
    (folder / "specs").mkdir()
    for name, spec in {"pretrain": PRETRAIN, "mixed": MIXED, "dropping": DROPPING}.items():
        (folder / "specs" / f"{name}.json").write_text(spec.model_dump_json())
    torch.set_num_threads(1)
    alone = Execution(folder / "one", {"ssv2": folder / "ssv2"}, accumulate=4)
    run_all([PRETRAIN], pretrain, alone)
    run_all([MIXED], finetune, alone)
    with pytest.MonkeyPatch.context() as patch:
        real = data.training_loader

        def stopping(*args, first_step, **kwargs):
            for step, batch in enumerate(real(*args, first_step=first_step, **kwargs), first_step):
                if step == STOP_AT:
                    raise KeyboardInterrupt
                yield batch

        patch.setattr(data, "training_loader", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_all([MIXED], finetune, replace(alone, results=folder / "one-to-two", checkpoint_s=0))
    return folder


@pytest.fixture(scope="module")
def both(folder) -> list[dict]:
    """What each of two processes saw in `two_processes.main`."""
    statuses, said = ended(two(sys.executable, "-m", "tests.helpers.two_processes", folder))
    assert statuses == [0, 0], said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def assert_same_log(one: Path, other: Path):
    """All that describes the training, of every step. Losses are float32 means of the same numbers, summed in another order; through 12
    steps of Adam, which divides by small gradients' size, the difference grows to some 1e-5."""
    logs = [[{name: line[name] for name in line if name not in NOT_TRAINING} for line in log_lines(folder)] for folder in (one, other)]
    assert [line["step"] for line in logs[0]] == list(range(1, 13))
    for mine, theirs in zip(*logs, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


NOT_TRAINING = ("clips_per_s", "memory_mb", "seconds", "time")


def assert_close(one: Path, other: Path):
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **CLOSE)


def test_torchrun_pretrains_with_the_losses_of_one_process(folder):
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mgm", "pretrain"]
    words += [folder / "specs" / "pretrain.json", "--out", folder / "torchrun", "--data", f"ssv2={folder / 'ssv2'}", "--accumulate", "2"]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "pretrain" in line]
    assert len(said) == len(set(said))  # one process alone speaks
    assert "done in" in said[-1]
    one, other = (folder / name / PRETRAIN.run_id for name in ("one", "torchrun"))
    assert_same_log(one, other)
    assert_close(one, other)
    assert examine(other, PRETRAIN).result["processes"] == 2
    assert sorted(path.name for path in other.iterdir()) == ["log.jsonl", "result.json", "spec.json", "weights.safetensors"]


def test_finetuning_mixes_the_same_pairs(folder, both):
    """Mixup, CutMix and repeated augmentation, 1 process x 4 parts and 2 x 2."""
    one, other = (folder / name / MIXED.run_id for name in ("one", "two"))
    assert_same_log(one, other)
    assert_close(one, other)


def test_uneven_tests_count_each_video_once(folder, both):
    """12 videos in batches of 5, 5 and 2: rank 0 has 7 of them. The same weights give the same file, bit by bit."""
    assert both[1]["told"] == ""
    name = "predictions.csv"
    assert (folder / "evaluated" / name).read_bytes() == (folder / "one" / MIXED.run_id / name).read_bytes()
    result = examine(folder / "one" / MIXED.run_id, MIXED).result
    assert f"top1 {result['metrics']['top1']:.2f} on 12 videos" in both[0]["told"]


def test_failures_are_those_of_one_process_and_in_its_order(both, tmp_path):
    alone = trained_toy(tmp_path / "toy", 1000, 4)
    for seen in both:
        assert seen["toy"]["failed"] == alone["failed"] == ["b", "d", "a", "c"]
        torch.testing.assert_close(torch.tensor(seen["toy"]["weights"]), torch.tensor(alone["weights"]), **CLOSE)
        assert "3 of 299 training videos could not be read, more than 1 %: b first" in seen["many"]["error"]
        assert seen["toy"]["weights"][:3] == [1, 1, 1]  # of a parameter that has no gradient


def test_a_signal_to_one_stops_both_a_step_later_and_they_end_bit_equal(folder, both):
    assert [seen["status"] for seen in both] == [[143, 143]] * 2
    left = torch.load(folder / "two-to-one" / MIXED.run_id / "checkpoint.pt", weights_only=True)
    assert left["step"] == STOP_AT + 2
    whole, resumed = (load_file(folder / name / DROPPING.run_id / "weights.safetensors") for name in ("two", "again"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    mixed = load_file(folder / "two" / MIXED.run_id / "weights.safetensors")
    assert not all(torch.equal(whole[name], mixed[name]) for name in whole)  # dropout is on


def test_a_run_goes_on_with_another_number_of_processes(folder, both):
    """With dropout off, as if the number had not changed."""
    run_all([MIXED], finetune, Execution(folder / "two-to-one", {"ssv2": folder / "ssv2"}, accumulate=4))
    for name in ("two-to-one", "one-to-two"):
        assert_same_log(folder / "one" / MIXED.run_id, folder / name / MIXED.run_id)
        assert_close(folder / "one" / MIXED.run_id, folder / name / MIXED.run_id)


def command(folder, out, spec, verb="pretrain") -> list:
    out.mkdir(exist_ok=True)
    file = out / "spec.json"
    file.write_text(spec.model_dump_json())
    return [MGM, verb, file, "--out", out, "--data", f"ssv2={folder / 'ssv2'}"]


def test_a_second_writer_is_refused_in_one_line(folder, tmp_path):
    run = tmp_path / PRETRAIN.run_id
    run.mkdir()
    with folder_lock(run):
        statuses, said = ended(two(*command(folder, tmp_path, PRETRAIN), slurm=True))
    assert statuses == [2, 2]
    assert said.count("\n") == 1
    assert f"{run}: process {os.getpid()} on {socket.gethostname()} writes here" in said
    assert not list(run.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_one_process_ends_both(folder, tmp_path, number):
    long = PRETRAIN.model_copy(update={"optim": PRETRAIN.optim.model_copy(update={"steps": 100_000})})
    processes = two(*command(folder, tmp_path, long), "--checkpoint-s", "0.2")
    run = tmp_path / long.run_id
    end = time.monotonic() + 100
    while not (run / "checkpoint.pt").exists() and time.monotonic() < end and processes[0].poll() is None:
        time.sleep(0.05)
    processes[1].send_signal(number)
    started = time.monotonic()
    statuses, said = ended(processes)
    assert time.monotonic() - started < 20  # on a busy machine
    state = examine(run, long)
    assert state.state != "failed"
    assert statuses == ([143, 143] if number == signal.SIGTERM else [137, -9])
    step = torch.load(run / "checkpoint.pt", weights_only=True)["step"]
    lines = [line for line in said.splitlines() if ": step " not in line]
    if number == signal.SIGTERM:
        assert lines == [f"{long.run_id}: stopped at step {step} of 100000; run again to continue"]
    else:
        assert len(lines) == 1
        assert "mgm: a process of this run is gone (" in lines[0]
    assert not (run / "writer.lock").exists()


def test_an_error_on_one_process_ends_both_with_its_line(folder, tmp_path):
    """The seventh test video is of rank 1's share; rank 0 has to hear of it while it waits for the scores."""
    shutil.copytree(folder / "ssv2", tmp_path / "ssv2")
    short = MIXED.model_copy(update={"augment": Augment(), "optim": MIXED.optim.model_copy(update={"steps": 2})})
    name = (folder / "one" / MIXED.run_id / "predictions.csv").read_text().splitlines()[7].split(",")[0]
    video = next((tmp_path / "ssv2").rglob(Path(name).name))
    video.write_bytes(video.read_bytes()[:100])
    statuses, said = ended(two(*command(tmp_path, tmp_path / "out", short, "finetune")))
    assert statuses == [2, 2]
    (line,) = [line for line in said.splitlines() if ": step " not in line]
    assert line.startswith("mgm: ")
    assert video.name in line
    run = tmp_path / "out" / short.run_id
    assert (run / "error.txt").read_text() == line.removeprefix("mgm: ") + "\n"
    assert not (run / "writer.lock").exists()


def test_a_batch_that_processes_do_not_divide_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 3)
    execution = Execution(tmp_path, {"ssv2": folder / "ssv2"}, accumulate=2)
    with pytest.raises(UserError, match="^3 processes with --accumulate 2 do not divide optim.batch 4; 3 x 2 must$"):
        next(data.training_batches(data.Job(PRETRAIN, tmp_path, execution, data.find_index(PRETRAIN, execution)), [], None, 0))


def test_more_processes_than_gpus_are_refused(monkeypatch):
    """Each sees both GPUs of its node."""
    place = Place(2, 3, 2, ("a",), 1)
    host, chosen = socket.gethostname(), []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: type("", (), {"uuid": f"gpu{chosen[-1]}"}))
    monkeypatch.setattr(distributed, "gathered", lambda own: [(host, "gpu0"), (host, "gpu1"), own])
    with pytest.raises(UserError, match=f"^{host}: 3 processes share 2 GPUs; start as many on a node as it has, or ask for more GPUs$"):
        distributed._own_gpu(place)
    monkeypatch.setattr(distributed, "gathered", lambda own: [("another", "gpu0"), ("another", "gpu1"), own])
    distributed._own_gpu(place)
    assert chosen == [0, 0]


def test_what_runs_in_one_process_is_refused_in_one_line():
    statuses, said = ended(two(MGM, "probe", "spec.json", "--out", "x", "--data", "ssv2=y"))
    assert statuses == [2, 2]
    assert said == "mgm: mgm probe: runs in one process, and 2 were started; start it without torchrun, or as one task of srun\n"


TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_JOB_ID": "1000", "SLURM_STEP_ID": "3", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "gpu[07-09,12]-ib,login", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
}  # fmt: skip
BATCH = {"SLURM_JOB_ID": "1000", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "gpu[07-09]"}


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, None),
        (TORCHRUN, Place(5, 8, 1, ("a",), 29500)),
        ({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}, None),
        ({**SLURM, **TORCHRUN, "RANK": "2"}, Place(2, 8, 1, ("a",), 29500)),  # torchrun in a step
        (SLURM, Place(5, 8, 1, ("gpu07-ib", "10.0.0.1"), 10000 + 37003 % 20000)),
        ({**SLURM, "SLURM_STEP_NUM_NODES": "1"}, Place(5, 8, 1, ("127.0.0.1",), 10000 + 37003 % 20000)),
        ({**SLURM, "MASTER_ADDR": "b", "MASTER_PORT": "1234"}, Place(5, 8, 1, ("b",), 1234)),
        ({**SLURM, "SLURM_STEP_NODELIST": "n1,n2"}, Place(5, 8, 1, ("n1", "10.0.0.1"), 10000 + 37003 % 20000)),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, None),
        (BATCH, None),  # a plain mgm in a batch script
    ],
)
def test_a_process_knows_its_place(environ, place):
    assert place_of(environ) == place


def test_a_place_that_is_half_said_is_refused():
    for environ, message in [
        ({name: TORCHRUN[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}, "MASTER_ADDR: is not set"),
        ({**TORCHRUN, "MASTER_PORT": "x"}, "MASTER_PORT: is 'x', not a number"),
        ({name: value for name, value in SLURM.items() if name != "SLURM_LOCALID"}, "SLURM_LOCALID: is not set"),
    ]:
        with pytest.raises(UserError, match=message):
            place_of(environ)
