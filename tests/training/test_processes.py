"""Training in two processes that torchrun starts on this machine (gloo)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mgm.data.index import read_index
from mgm.results.run import read_result, status
from mgm.spec import Augment, RunOptions, Views
from mgm.stages.run import run_specs
from tests.helpers.processes import children, is_alive, wait_for
from tests.helpers.small_runs import FINETUNE, PRETRAIN
from tests.training.test_stop import steps

pytestmark = [pytest.mark.usefixtures("cpu"), pytest.mark.slow]
TORCHRUN = Path(sys.executable).with_name("torchrun")
# Each process drops and mixes on its own. Test batches are uneven: 5, 5 and 2 videos.
TUNED = FINETUNE.model_copy(
    update={
        "drop_path": 0.0,
        "head_dropout": 0.0,
        "augment": Augment(repeats=2),
        "views": Views(temporal=4, spatial=3),
        "optim": FINETUNE.optim.model_copy(update={"clip_grad": 0.02}),
    }
)
LONG = PRETRAIN.model_copy(update={"optim": PRETRAIN.optim.model_copy(update={"steps": 60})})


def torchrun(specs, data: Path, results: Path, *words: str) -> subprocess.Popen:
    """Start the runs in two processes, each with a worker."""
    results.mkdir(exist_ok=True)
    paths = [results / f"{spec.run_id}.json" for spec in specs]
    for path, spec in zip(paths, specs):
        path.write_text(spec.model_dump_json())
    command = [TORCHRUN, "--standalone", "--nproc-per-node", 2, "-m", "mgm", "run", *paths]
    command += ["--workers", 1, "--out", results, "--data", f"ssv2={data}", *words]
    return subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def log(folder: Path) -> list[dict]:
    timing = ("clips_per_s", "waiting", "memory_mb", "seconds", "time")
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [{name: line[name] for name in line if name not in timing} for line in lines]


@pytest.mark.parametrize(
    "words", [(), ("--compile", "on", "--accumulate", 2, "--recompute")], ids=["plain", "compiled"]
)
def test_two_processes_train_what_one_trains(data, tmp_path, monkeypatch, words):
    """Losses and gradients are float32 means of the same numbers in another order.

    A compiled model is one graph.
    """
    monkeypatch.setenv("TORCH_LOGS", "graph_breaks")
    one, two, specs = tmp_path / "one", tmp_path / "two", [PRETRAIN, TUNED]
    run_specs(specs, {"ssv2": [data]}, one, RunOptions(accumulate=2))
    process = torchrun(specs, data, two, *words)
    said = process.communicate(timeout=500)[1]
    assert process.returncode == 0, said
    assert "Graph break" not in said
    for spec in specs:
        for mine, theirs in zip(log(one / spec.run_id), log(two / spec.run_id), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4)
        ours, theirs = (load_file(of / spec.run_id / "weights.safetensors") for of in (one, two))
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4)
    name = f"{TUNED.run_id}/predictions.csv"
    assert (one / name).read_bytes() == (two / name).read_bytes()
    assert read_result(one / TUNED.run_id).metrics == read_result(two / TUNED.run_id).metrics


def test_gradients_in_bfloat16_differ_by_their_rounding(data, tmp_path):
    """Its mantissa has 8 bits, so a number changes by at most 0.4 %."""
    norms = []
    for name, words in {"float32": (), "bfloat16": ["--bf16-gradients"]}.items():
        process = torchrun([PRETRAIN], data, tmp_path / name, *words)
        assert process.wait(200) == 0, process.stderr.read()
        norms.append(log(tmp_path / name / PRETRAIN.run_id)[0]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=4e-3)
    assert norms[0] != norms[1]


def test_all_processes_have_the_object_of_the_first(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import torch\n"
        "from mgm.training.distributed import is_main, of_main, process_group\n"
        "state = {'step': 3, 'x': [torch.arange(6.0).view(2, 3), torch.ones(2).bfloat16()]}\n"
        "with process_group():\n"
        "    got = of_main(state if is_main() else None)\n"
        "    assert got['step'] == 3 and got['x'][1].dtype == torch.bfloat16\n"
        "    assert all(map(torch.equal, got['x'], state['x']))\n"
        "    assert of_main(None) is None\n"
    )
    words = [TORCHRUN, "--standalone", "--nproc-per-node", "2", program]
    subprocess.run([*map(str, words)], check=True, timeout=200)


def test_a_run_of_two_processes_keeps_its_steps(data, tmp_path):
    """Signals to all processes, and torchrun killed alone, leave a checkpoint. It ends bit-equal."""
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    assert torchrun([LONG], data, whole).wait(200) == 0
    folder = stopped / LONG.run_id
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        before = steps(folder)
        process = torchrun([LONG], data, stopped)
        wait_for(lambda before=before: steps(folder) > before + 2)
        ranks = children(process.pid)
        (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
        # torchrun has a status of its own.
        assert process.wait(60)
        wait_for(lambda ranks=ranks: not any(map(is_alive, ranks)))
        assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] > before + 2
    assert torchrun([LONG], data, stopped).wait(200) == 0
    name = f"{LONG.run_id}/weights.safetensors"
    assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    assert log(folder) == log(whole / LONG.run_id)


def test_a_stopped_process_that_gets_no_batch_is_no_failure(data, tmp_path, monkeypatch):
    """It ends first, and the other one loses it."""
    monkeypatch.setenv("MGM_STOPPED", str(tmp_path / "stopped"))
    process = torchrun([LONG], data, tmp_path, "--checkpoint-s", "0.05")
    folder = tmp_path / LONG.run_id
    wait_for((folder / "checkpoint.pt").exists)
    ranks = children(process.pid)
    # Then its worker reads nothing.
    [worker] = children(ranks[1])
    os.kill(worker, signal.SIGSTOP)
    for rank in ranks:
        os.kill(rank, signal.SIGTERM)
    assert process.wait(60)
    assert (tmp_path / "stopped").exists()
    assert "stopped at step" in process.stderr.read()
    assert status(folder).state == "stopped"


def test_a_killed_process_ends_the_other_and_is_no_failure(data, tmp_path):
    process = torchrun([LONG], data, tmp_path, "--checkpoint-s", "0.05")
    folder = tmp_path / LONG.run_id
    wait_for((folder / "checkpoint.pt").exists)
    started = time.monotonic()
    os.kill(children(process.pid)[1], signal.SIGKILL)
    assert process.wait(60)
    assert time.monotonic() - started < 30
    assert status(folder).state != "failed"


def test_an_error_is_one_line_and_ends_both(data, tmp_path):
    """Only rank 1 sees it: a test video that is gone, while rank 0 waits for the scores."""
    index = read_index(data)
    video = Path(index.test[6].path)
    hidden = video.rename(video.with_suffix(".gone"))
    hidden.with_suffix(".mp4").write_bytes(b"x" * hidden.stat().st_size)
    try:
        _, said = torchrun([TUNED], data, tmp_path).communicate(timeout=100)
    finally:
        hidden.replace(video)
    (line,) = [line for line in said.splitlines() if line.startswith("mgm: ")]
    assert index.test[6].name in line
    assert video.name in line
    assert (tmp_path / TUNED.run_id / "error.txt").read_text() == line.removeprefix("mgm: ") + "\n"
    assert not (tmp_path / TUNED.run_id / "result.json").exists()
