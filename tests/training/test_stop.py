"""A run that is stopped saves its last step, whoever gets the signal, and then ends bit-equal."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from mgm.data.synthetic.generator import generate
from mgm.errors import one_line
from mgm.results.result import examine
from mgm.spec import Decoder, Finetune, FinetuneOptim, Optim, Pretrain, RunOptions, Views
from mgm.stages.finetune import finetune
from mgm.stages.job import Workplace
from mgm.stages.pretrain import pretrain
from mgm.stages.runner import run_all
from tests.helpers.small_runs import PARAMS, SMALL

SPEC = Pretrain(
    **SMALL,
    decoder=Decoder(width=8, depth=1, heads=2),
    optim=Optim(lr=0.064, min_lr=1e-4, batch=4, steps=60, precision="float32"),
    std_floor=0.1,
)
ATTENTIVE = Finetune(
    **SMALL,
    head="attentive",
    optim=FinetuneOptim(lr=0.064, min_lr=1e-4, batch=4, steps=60, precision="float32"),
    views=Views(temporal=1, spatial=1),
)
COMPUTE = {"pretrain": pretrain, "finetune": finetune}
pytestmark = pytest.mark.usefixtures("cpu")
# A process that has computed gradients cannot always be forked.
STARTER = multiprocessing.get_context("forkserver")
STARTER.set_forkserver_preload(["mgm.stages.finetune", "mgm.stages.pretrain", "mgm.stages.runner"])
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Workplace:
    folder = tmp_path_factory.mktemp("stop")
    generate(PARAMS, folder / "ssv2")
    # Importing torch takes seconds.
    first = STARTER.Process(target=os.getpid)
    first.start()
    first.join()
    return Workplace(folder / "results", {"ssv2": folder / "ssv2"})


@pytest.fixture(scope="module")
def whole(workplace) -> bytes:
    """Return the weights of a run that nothing disturbed."""
    torch.set_num_threads(1)
    run_all([SPEC], pretrain, workplace)
    return weights(workplace)


def weights(workplace: Workplace, spec: Pretrain | Finetune = SPEC) -> bytes:
    return (workplace.results / spec.run_id / "weights.safetensors").read_bytes()


def job(workplace: Workplace, spec: Pretrain | Finetune) -> None:
    """Run the spec in a process group of its own, with its errors in a file."""
    os.setsid()
    os.dup2(os.open(workplace.results / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with one_line():
        run_all([spec], COMPUTE[spec.stage], workplace)


def started(workplace: Workplace, spec: Pretrain | Finetune = SPEC) -> BaseProcess:
    """Start or continue the run, and wait until it has made a few steps."""
    folder = workplace.results / spec.run_id
    before = steps(folder)
    process = STARTER.Process(target=job, args=(workplace, spec))
    process.start()
    wait_for(lambda: steps(folder) > before + 2 or not process.is_alive())
    return process


def steps(folder: Path) -> int:
    """Return the last step that a run has logged."""
    path = folder / "log.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def is_alive(pid: int) -> bool:
    """Return whether a process runs. A zombie has ended."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("workers", [0, 2])
def test_each_signal_leaves_a_checkpoint_and_the_run_ends_bit_equal(
    workplace, whole, workers, tmp_path
):
    here = replace(workplace, results=tmp_path, options=RunOptions(workers=workers))
    for send, number in product((os.killpg, os.kill), SIGNALS):
        process = started(here)
        reading = children(process.pid)
        assert len(reading) == workers
        send(process.pid, number)
        process.join(60)
        assert process.exitcode == 128 + number
        assert (tmp_path / SPEC.run_id / "checkpoint.pt").exists()
        assert examine(tmp_path / SPEC.run_id, SPEC).state != "failed"
        assert not any(map(is_alive, reading))
    run_all([SPEC], pretrain, here)
    assert weights(here) == whole


def test_an_attentive_probe_that_is_stopped_ends_bit_equal(workplace, tmp_path):
    torch.set_num_threads(1)
    run_all([ATTENTIVE], finetune, workplace)
    here = replace(workplace, results=tmp_path)
    process = started(here, ATTENTIVE)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM
    assert (tmp_path / ATTENTIVE.run_id / "checkpoint.pt").exists()
    run_all([ATTENTIVE], finetune, here)
    assert weights(here, ATTENTIVE) == weights(workplace, ATTENTIVE)


@pytest.mark.parametrize(
    ("to_worker", "to_run", "status"),
    [(signal.SIGKILL, 0, 2), (signal.SIGSTOP, signal.SIGTERM, 128 + signal.SIGTERM)],
)
def test_a_worker_that_is_lost_costs_no_step(workplace, whole, tmp_path, to_worker, to_run, status):
    """It is killed, as for lack of memory, or it hangs, and then the run is stopped."""
    here = replace(workplace, results=tmp_path, options=RunOptions(workers=2))
    process = started(here)
    for worker in children(process.pid):
        os.kill(worker, to_worker)
    os.kill(process.pid, to_run)
    process.join(60)
    assert process.exitcode == status
    said = (tmp_path / "stderr").read_text()
    assert "Traceback" not in said
    assert said.count("mgm: a worker process was killed") == (status == 2)
    assert (tmp_path / SPEC.run_id / "checkpoint.pt").exists()
    run_all([SPEC], pretrain, here)
    assert weights(here) == whole


def test_workers_end_with_a_run_that_is_killed(workplace, tmp_path):
    process = started(replace(workplace, results=tmp_path, options=RunOptions(workers=2)))
    reading = children(process.pid)
    assert len(reading) == 2
    # Even one that cannot run.
    os.kill(reading[0], signal.SIGSTOP)
    process.kill()
    process.join()
    wait_for(lambda: not any(map(is_alive, reading)))
    assert not any(map(is_alive, reading))


def torchrun(workplace: Workplace, results: Path) -> subprocess.Popen:
    """Start the run in two processes, each with a worker."""
    path = results.with_suffix(".json")
    path.write_text(SPEC.model_dump_json())
    program = Path(sys.executable).with_name("torchrun")
    words = [program, "--standalone", "--nproc-per-node", 2, "--no-python"]
    words += [program.with_name("mgm"), "pretrain", path, "--workers", 1]
    words += ["--out", results, "--data", f"ssv2={workplace.data['ssv2']}"]
    return subprocess.Popen(list(map(str, words)), start_new_session=True)


@pytest.mark.slow
def test_a_run_of_two_processes_keeps_its_steps(workplace, tmp_path):
    """Signals to all processes, and torchrun killed alone, leave a checkpoint. It ends bit-equal."""
    places = [replace(workplace, results=tmp_path / name) for name in ("stopped", "whole")]
    stopped, undisturbed = places
    assert torchrun(workplace, undisturbed.results).wait(200) == 0
    folder = stopped.results / SPEC.run_id
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        before = steps(folder)
        process = torchrun(workplace, stopped.results)
        wait_for(lambda before=before: steps(folder) > before + 2)
        ranks = children(process.pid)
        (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
        # torchrun has a status of its own.
        assert process.wait(60)
        wait_for(lambda ranks=ranks: not any(map(is_alive, ranks)))
        assert not any(map(is_alive, ranks))
        newest = folder / "checkpoint.pt"
        assert torch.load(newest, weights_only=True)["step"] > before + 2
        newest.with_name("checkpoint.before.pt").unlink(missing_ok=True)
    assert torchrun(workplace, stopped.results).wait(200) == 0
    assert weights(stopped) == weights(undisturbed)
