"""The loop on a toy model: resuming, checkpoints, failures. The jobs' tests do the same with real videos."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from mgm.errors import UserError
from mgm.spec import Optim
from mgm.training import Training, load_checkpoint, save_checkpoint, train

OPTIM = Optim(lr=0.5, min_lr=0.01, batch=8, epochs=10, warmup_epochs=1, precision="float32")


class Stop(Exception):
    pass


def toy(steps=24, parts=1, stop_at=None, spoil_at=None, failing=(), videos=1000) -> Training:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5 if parts == 1 else 0.0), nn.Linear(8, 1))

    def batches(first):
        for step in range(first, 10**9):
            if step == stop_at:
                raise Stop
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            if step == spoil_at:
                x = x / 0
            yield list(x.chunk(parts)), [name for at, name in failing if at == step]

    def loss_of(x):
        return (model(x) - x.sum(dim=1, keepdim=True)).square().mean(), {"size": torch.tensor(len(x))}

    return Training("run-1", model, OPTIM, steps, videos, batches, loss_of)


def quiet(_):
    pass


def weights(run):
    return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])


def test_stopped_at_any_step_and_resumed_the_weights_are_bit_equal(tmp_path):
    whole = toy()
    train(whole, tmp_path / "a" if (tmp_path / "a").mkdir() is None else None, show=quiet)
    for step in range(1, 24):
        folder = tmp_path / f"stopped-{step}"
        folder.mkdir()
        with pytest.raises(Stop):
            train(toy(stop_at=step), folder, checkpoint_s=0, show=quiet)
        resumed = toy()
        train(resumed, folder, show=quiet)
        assert torch.equal(weights(resumed), weights(whole)), step
        steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
        assert steps == list(range(1, 25))


def test_accumulation_changes_nothing_but_rounding(tmp_path):
    runs = []
    for parts in (2, 4):
        runs.append(toy(parts=parts))
        (tmp_path / str(parts)).mkdir()
        train(runs[-1], tmp_path / str(parts), show=quiet)
    torch.testing.assert_close(weights(runs[0]), weights(runs[1]), rtol=1e-4, atol=1e-5)  # float32 sums in another order, 24 steps


def test_a_loss_that_is_not_finite_stops_with_the_next_step_named(tmp_path):
    with pytest.raises(UserError, match=r"run-1: the loss is (nan|inf) .* at step 7 of 24; lower optim.lr"):
        train(toy(spoil_at=7), tmp_path, show=quiet)


def test_unreadable_videos_are_listed_and_more_than_one_percent_stop(tmp_path):
    (tmp_path / "few").mkdir()
    failing = [(3, "b.mp4"), (4, "a.mp4"), (9, "b.mp4")]
    assert train(toy(failing=failing, videos=200), tmp_path / "few", show=quiet) == ["b.mp4", "a.mp4"]
    (tmp_path / "many").mkdir()
    with pytest.raises(UserError, match=r"2 of 199 training videos could not be read, more than 1 %: b.mp4 first"):
        train(toy(failing=failing, videos=199), tmp_path / "many", show=quiet)


def test_a_torn_checkpoint_gives_way_to_the_one_before(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, {"run_id": "run-1", "step": step})
    assert load_checkpoint(tmp_path, "run-1")["step"] == 2
    newest = tmp_path / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    assert load_checkpoint(tmp_path, "run-1")["step"] == 1
    (tmp_path / "checkpoint.before.pt").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read, nor the one before it"):
        load_checkpoint(tmp_path, "run-1")


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    with pytest.raises(Stop):
        train(toy(stop_at=3), tmp_path, checkpoint_s=0, show=quiet)
    with pytest.raises(UserError, match="belongs to run run-1, not to run-2"):
        train(replace(toy(), run_id="run-2"), tmp_path, show=quiet)
