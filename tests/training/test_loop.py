"""The loop on a toy model: resuming, checkpoints and failures.

Tests of the jobs do the same with real videos.
"""

import json
import os
import resource
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mgm.errors import UserError
from mgm.spec import RunOptions
from mgm.training import load_checkpoint, save_checkpoint
from mgm.training.log import TrainingLog
from mgm.training.loop import _caught_signals
from mgm.training.optim import learning_rate
from tests.helpers.small_runs import Toy, ToyModel, toy_clips, toy_spec


class Stop(Exception):
    pass


def toy(steps=24, dropout=0.5, stop_at=None, spoil_at=None, failing=(), videos=1000) -> Toy:
    def batches(first, waits):
        for step in range(first, 10**9):
            if step == stop_at:
                raise Stop
            x_B4 = toy_clips(step)
            if step == spoil_at:
                x_B4 = x_B4 / 0
            yield [x_B4], [name for at, name in failing if at == step]

    return Toy(toy_spec(steps), ToyModel(dropout), batches, videos)


RUN = toy().spec.run_id


def test_stopped_at_any_step_and_resumed_the_weights_are_bit_equal(tmp_path):
    whole = toy()
    (tmp_path / "a").mkdir()
    whole.train(tmp_path / "a")
    for step in range(1, 24):
        folder = tmp_path / f"stopped-{step}"
        folder.mkdir()
        with pytest.raises(Stop):
            toy(stop_at=step).train(folder, RunOptions(checkpoint_s=0))
        resumed = toy()
        resumed.train(folder)
        assert torch.equal(resumed.weights(), whole.weights()), step
        steps = [
            json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()
        ]
        assert steps == list(range(1, 25))


def test_a_loss_that_is_not_finite_stops_with_the_next_step_named(tmp_path):
    with pytest.raises(UserError, match=f"{RUN}: .* step 7"):
        toy(spoil_at=7).train(tmp_path)


def test_the_last_update_is_checked_too(tmp_path, monkeypatch):
    """No loss follows it."""
    run = toy()
    real = learning_rate
    monkeypatch.setattr(
        "mgm.training.loop.learning_rate",
        lambda step, steps, optim: 1e300 if step == steps - 1 else real(step, steps, optim),
    )
    with pytest.raises(UserError, match=f"{RUN}: .*weight .* step 24"):
        run.train(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_torn_checkpoint_gives_way_to_the_one_before_and_all_agrees(tmp_path, share):
    """The run goes back to the previous checkpoint, and ends as if it had not been stopped.

    The newest checkpoint is cut to a share of its bytes. The run then stops before the next
    checkpoint, and again after it.
    """
    whole, said = toy(), []
    (tmp_path / "whole").mkdir()
    whole.train(tmp_path / "whole")
    with pytest.raises(Stop):
        toy(stop_at=9).train(tmp_path, RunOptions(checkpoint_s=0))
    newest = tmp_path / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[: int(share * newest.stat().st_size)])
    with pytest.raises(Stop):
        toy(stop_at=8).train(tmp_path, RunOptions(checkpoint_s=0), said.append)
    assert said == [
        f"{newest}: is damaged, so {RUN} goes back to the previous checkpoint",
        f"{RUN}: continues at step 8 of 24",
    ]
    assert not newest.exists()  # otherwise the next checkpoint would move it over the good one
    with pytest.raises(Stop):
        toy(stop_at=10).train(tmp_path, RunOptions(checkpoint_s=0))
    resumed = toy()
    resumed.train(tmp_path, show=said.append)
    assert said[2:] == [f"{RUN}: continues at step 10 of 24"]
    assert torch.equal(resumed.weights(), whole.weights())
    logs = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (tmp_path, tmp_path / "whole")
    ]
    numbers = [
        [[line[name] for name in ("step", "loss", "lr", "grad_norm")] for line in log]
        for log in logs
    ]
    assert numbers[0] == numbers[1]


def state(**changes):
    empty = {"model": {}, "optimiser": {}, "rng": torch.zeros(3), "failed": []}
    return {"run_id": "run-1", "step": 1, **empty, **changes}


def test_two_torn_checkpoints_stop_with_the_next_step_named(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step=step))
    assert load_checkpoint(tmp_path, "run-1", 2)["step"] == 2
    for name in ("checkpoint.pt", "checkpoint.before.pt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoint\.pt: all 2 "):
        load_checkpoint(tmp_path, "run-1", 2)


def test_a_flipped_bit_anywhere_gives_way_to_the_checkpoint_before(tmp_path):
    save_checkpoint(tmp_path, state(step=1))
    save_checkpoint(tmp_path, state(step=2, rng=torch.arange(200)))
    newest = tmp_path / "checkpoint.pt"
    whole = newest.read_bytes()
    for bit in range(0, 8 * len(whole), 8 * len(whole) // 97):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        newest.write_bytes(changed)
        assert load_checkpoint(tmp_path, "run-1", 2, print)["step"] == 1
    newest.write_bytes(whole)
    assert load_checkpoint(tmp_path, "run-1", 2)["step"] == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 10**9},
        {"step": -1},
        {"step": 1.5},
        {"step": True},
        {"format": 2},
        {"failed": "none"},
        {"model": {"a": 1}},
        {"rng": None},
        {"more": 1},
    ],
)
def test_a_checkpoint_with_an_impossible_field_is_damaged(tmp_path, changes):
    save_checkpoint(tmp_path, state())
    save_checkpoint(tmp_path, state(**({"step": 2} | changes)))
    assert load_checkpoint(tmp_path, "run-1", 24, print)["step"] == 1


def test_a_full_disk_stops_with_a_line_and_keeps_the_checkpoint_before(tmp_path):
    with pytest.raises(Stop):
        toy(stop_at=3).train(tmp_path, RunOptions(checkpoint_s=0))
    limits, ignored = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (3000, limits[1])
    )  # a write past the limit fails as on a full disk
    try:
        with pytest.raises(UserError, match=r"checkpoint\.pt: "):
            toy().train(tmp_path, RunOptions(checkpoint_s=0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(tmp_path.glob(".*"))
    assert load_checkpoint(tmp_path, RUN, 24)["step"] == 3


def test_an_infinite_gradient_changes_no_other(tmp_path):
    """Without clipping, the gradients of the other weights are used as they are."""
    run = toy(steps=2, dropout=0.0)
    run.model[3].bias.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(UserError, match="gradient inf"):
        run.train(tmp_path)
    assert torch.isfinite(run.model[0].weight.grad).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_leaves_a_checkpoint_of_its_step_and_its_status(tmp_path, number, monkeypatch):
    """The signal comes at a middle step, at the last step, or after the last step's check.

    workflow/profiles/slurm/run.sh needs the marker, because torchrun itself exits with 1.
    """
    monkeypatch.setenv("MGM_STOPPED", str(tmp_path / "stopped"))
    before = signal.signal(number, signal.SIG_DFL)
    for at in (5, 23):
        folder = tmp_path / str(at)
        folder.mkdir()
        run, seen = toy(), []

        def kill(*_, at=at, seen=seen):
            seen.append(at)
            if len(seen) == at + 1:
                os.kill(os.getpid(), number)

        run.model.register_forward_hook(kill)
        with pytest.raises(SystemExit) as stop:
            run.train(folder)
        assert stop.value.code == 128 + number
        assert load_checkpoint(folder, RUN, 24)["step"] == at + 1
        assert signal.getsignal(number) == signal.SIG_DFL
    assert (tmp_path / "stopped").exists()
    with pytest.raises(SystemExit) as stop, _caught_signals():
        os.kill(os.getpid(), number)
    assert stop.value.code == 128 + number
    signal.signal(number, before)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    with pytest.raises(Stop):
        toy(stop_at=3).train(tmp_path, RunOptions(checkpoint_s=0))
    other = replace(toy(), spec=toy_spec(24, clip_grad=1.0))
    with pytest.raises(UserError, match=f"{RUN}.*{other.spec.run_id}"):
        other.train(tmp_path)


@pytest.mark.parametrize(("reading", "computing", "lines"), [(0.05, 0.0, 1), (0.0, 0.2, 0)])
def test_a_run_that_waits_for_its_loader_says_so_once(
    tmp_path, monkeypatch, reading, computing, lines
):
    monkeypatch.setattr("mgm.training.log.JUDGE_S", 0)
    run, said = toy(steps=8), []

    def slow(*how, batches=run.batches):
        for batch in batches(*how):
            time.sleep(reading)
            yield batch

    run.model.register_forward_hook(lambda *_: time.sleep(computing))
    replace(run, batches=slow).train(tmp_path, show=said.append)
    assert sum("--copy mp4" in line for line in said) == lines


def test_the_time_left_does_not_count_the_start(tmp_path, monkeypatch):
    """Workers that start in 40 s would make an hour of a run that takes a minute."""
    clock, said = [0.0], []
    monkeypatch.setattr(
        "mgm.training.log.time", SimpleNamespace(monotonic=lambda: clock[0], time=time.time)
    )
    log = TrainingLog(tmp_path, "run-1", 0, 100, 8, said.append)
    for step in range(1, 21):
        clock[0] += 40 if step == 1 else 1
        log.write(step, {"loss": 1.0})
    assert [line.split(", ")[-1] for line in said] == ["2 min left", "88 s left"]
