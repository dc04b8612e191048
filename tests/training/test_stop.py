"""A run that is stopped or killed, at any time and by any means, ends bit-equal."""

import json
import multiprocessing
import os
import signal
import time
from itertools import product
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from mgm import processes
from mgm.errors import one_line
from mgm.spec import Finetune, Pretrain, RunOptions
from mgm.stages.run import run_specs
from tests.helpers.processes import children, is_alive, wait_for
from tests.helpers.small_runs import ATTENTIVE, FINETUNE, PRETRAIN

pytestmark = pytest.mark.usefixtures("cpu")
Spec = Pretrain | Finetune
LONG = {"steps": 60}
SPECS = [
    spec.model_copy(update={"optim": spec.optim.model_copy(update=LONG)})
    for spec in (PRETRAIN, FINETUNE, ATTENTIVE)
]
# A process that has computed gradients cannot always be forked.
STARTER = multiprocessing.get_context("forkserver")
STARTER.set_forkserver_preload(["mgm.stages.finetune", "mgm.stages.pretrain", "timm.data.mixup"])
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
TRAINING = ("step", "loss", "lr", "grad_norm")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> dict[str, tuple]:
    """Return weights and logs of runs that nothing disturbed."""
    results = tmp_path_factory.mktemp("whole")
    run_specs(SPECS, {"ssv2": [data]}, results)
    return {spec.run_id: outcome(results, spec) for spec in SPECS}


def outcome(results: Path, spec: Spec) -> tuple[bytes, list]:
    """Return the bytes of a run's weights, and what its log says of each step."""
    folder = results / spec.run_id
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    log = [[line[name] for name in TRAINING] for line in lines]
    return (folder / "weights.safetensors").read_bytes(), log


def job(spec: Spec, data: Path, results: Path, options: RunOptions, hangs: float) -> None:
    """Run the spec in a process group of its own, with its errors in a file."""
    os.setsid()
    os.dup2(os.open(results / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    processes.HANGS_S = hangs
    with one_line():
        run_specs([spec], {"ssv2": [data]}, results, options)


def started(spec: Spec, data: Path, results: Path, hangs: float = 4, **options) -> BaseProcess:
    """Start or continue the run, and wait until it has made a few steps."""
    folder = results / spec.run_id
    before = steps(folder)
    process = STARTER.Process(target=job, args=(spec, data, results, RunOptions(**options), hangs))
    process.start()
    wait_for(lambda: steps(folder) > before + 2 or not process.is_alive())
    return process


def steps(folder: Path) -> int:
    """Return how many steps a run has logged."""
    path = folder / "log.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


WAYS = list(product((os.killpg, os.kill), SIGNALS))


@pytest.mark.parametrize(("workers", "ways"), [(0, WAYS[2:5]), (2, WAYS)], ids=["0", "2"])
def test_each_signal_leaves_a_checkpoint_and_the_run_ends_bit_equal(
    data, whole, workers, ways, tmp_path
):
    """To the process or to its group. Every spec is stopped by some of the signals."""
    for number, spec in enumerate(SPECS):
        for send, stop in ways[number::3]:
            process = started(spec, data, tmp_path, workers=workers)
            reading = children(process.pid)
            assert len(reading) == workers
            send(process.pid, stop)
            process.join(60)
            assert process.exitcode == 128 + stop
            assert (tmp_path / spec.run_id / "checkpoint.pt").exists()
            assert not (tmp_path / spec.run_id / "error.txt").exists()
            assert not any(map(is_alive, reading))
        run_specs([spec], {"ssv2": [data]}, tmp_path)
        assert outcome(tmp_path, spec) == whole[spec.run_id]


@pytest.mark.parametrize("spec", SPECS, ids=["pretrain", "finetune", "attentive"])
def test_a_killed_run_takes_its_workers_along_and_ends_bit_equal(data, whole, spec, tmp_path):
    process = started(spec, data, tmp_path, workers=2, checkpoint_s=0.05)
    path = tmp_path / spec.run_id / "checkpoint.pt"
    wait_for(path.exists)
    # Each group of weights has its own share of the step's learning rate.
    groups = torch.load(path, weights_only=True)["optimiser"]["param_groups"]
    rates = [group["lr"] / group["lr_scale"] for group in groups]
    assert rates == pytest.approx([rates[0]] * len(rates))
    reading = children(process.pid)
    assert len(reading) == 2
    # Even a worker that cannot run.
    os.kill(reading[0], signal.SIGSTOP)
    process.kill()
    process.join()
    wait_for(lambda: not any(map(is_alive, reading)))
    run_specs([spec], {"ssv2": [data]}, tmp_path)
    assert outcome(tmp_path, spec) == whole[spec.run_id]


@pytest.mark.parametrize(
    ("spec", "to_worker", "to_run", "status", "says"),
    [
        (SPECS[0], signal.SIGKILL, 0, 2, "a worker process died"),
        (SPECS[1], signal.SIGKILL, 0, 2, "a worker process died"),
        (SPECS[1], signal.SIGSTOP, 0, 2, "worker processes have done nothing for 4 s"),
        (SPECS[0], signal.SIGSTOP, signal.SIGTERM, 128 + signal.SIGTERM, "stopped at step"),
    ],
    ids=["killed", "killed in fine-tuning", "hangs", "hangs and the run is stopped"],
)
def test_a_worker_that_is_lost_costs_no_step(
    data, whole, tmp_path, spec, to_worker, to_run, status, says
):
    process = started(spec, data, tmp_path, workers=2)
    for worker in children(process.pid):
        os.kill(worker, to_worker)
    os.kill(process.pid, to_run)
    process.join(60)
    assert process.exitcode == status
    said = (tmp_path / "stderr").read_text()
    assert "Traceback" not in said
    assert says in said
    assert (tmp_path / spec.run_id / "checkpoint.pt").exists()
    run_specs([spec], {"ssv2": [data]}, tmp_path)
    assert outcome(tmp_path, spec) == whole[spec.run_id]


def test_a_run_that_waits_for_a_batch_is_stopped_however_often_it_is_told(data, tmp_path):
    """Each further Ctrl-C leaves the period of grace as it is."""
    process = started(SPECS[0], data, tmp_path, hangs=100, workers=2)
    for worker in children(process.pid):
        os.kill(worker, signal.SIGSTOP)
    time.sleep(1)
    deadline = time.monotonic() + 30
    while process.is_alive() and time.monotonic() < deadline:
        os.kill(process.pid, signal.SIGINT)
        process.join(1)
    assert process.exitcode == 128 + signal.SIGINT
    assert (tmp_path / SPECS[0].run_id / "checkpoint.pt").exists()


def test_a_run_stops_before_its_jobs_end(data, tmp_path, monkeypatch):
    """Its second turn goes on."""
    endless = {"optim": PRETRAIN.optim.model_copy(update={"steps": 100_000})}
    spec, last = PRETRAIN.model_copy(update=endless), 0
    path = tmp_path / spec.run_id / "checkpoint.pt"
    for _ in range(2):
        end = int(time.time()) + 5
        monkeypatch.setenv("MGM_JOB_END", str(end))
        with pytest.raises(SystemExit) as stopped:
            run_specs([spec], {"ssv2": [data]}, tmp_path)
        assert stopped.value.code == 128 + signal.SIGTERM
        assert time.time() < end
        step = torch.load(path, weights_only=True)["step"]
        assert step > last
        last = step
