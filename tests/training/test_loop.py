"""The loop on a toy model: resuming, checkpoints and failures.

Tests of stopped runs do the same with real videos.
"""

import json
from contextlib import suppress

import pytest
import torch
from torch import nn

from mgm.errors import LostWorkers, UserError
from mgm.spec import Optim, Pretrain, RunOptions
from mgm.training.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from mgm.training.loop import train
from tests.helpers.disk import full_disk
from tests.helpers.small_runs import SMALL

STEPS = 24


class Stop(LostWorkers):
    pass


class ToyModel(nn.Sequential):
    """Learn the sum of four numbers."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Linear(4, 8), nn.GELU(), nn.Dropout(), nn.Linear(8, 1))

    def forward(self, x_B4):
        loss = (super().forward(x_B4) - x_B4.sum(dim=1, keepdim=True)).square().mean()
        return loss, {"first": x_B4[0, 0]}


def toy_spec(**optim) -> Pretrain:
    sizes = {"batch": 8, "epochs": 10, "warmup_epochs": 1, "precision": "float32"}
    return Pretrain(**SMALL, optim=Optim(lr=0.5, min_lr=0.01, steps=STEPS, **sizes, **optim))


RUN = toy_spec().run_id


def trained(
    folder,
    options=RunOptions(),
    model=None,
    stop_at=None,
    spoil_at=None,
    failing=(),
    **optim,
) -> tuple[torch.Tensor, list[str]]:
    """Train a toy. Return its weights, and the videos that could not be read.

    Args:
        stop_at: the step whose batch does not come, as when workers are lost.
        spoil_at: the step whose batch is infinite.
        failing: (step, video) that cannot be read.
    """
    model = model or ToyModel()

    def batches(first, reading):
        for step in range(first, 10**9):
            if step == stop_at:
                raise Stop("lost")
            x_B4 = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            for at, video in failing:
                if at == step:
                    reading.failed[video] = UserError(f"{video}.mp4: is gone")
            yield [x_B4 / 0 if step == spoil_at else x_B4], {}

    videos = [f"video {number}" for number in range(1000)]
    folder.mkdir(exist_ok=True)
    failed = train(toy_spec(**optim), model, videos, batches, folder, options)
    return torch.cat([x.detach().flatten() for x in model.parameters()]), failed


def log(folder) -> list[list[float]]:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [[line[name] for name in ("step", "loss", "lr", "grad_norm", "first")] for line in lines]


def test_stopped_at_any_step_and_resumed_weights_and_log_are_bit_equal(tmp_path):
    """A checkpoint that an error leaves has the random numbers of the step after it."""
    whole, _ = trained(tmp_path / "whole")
    for step in range(1, STEPS):
        folder = tmp_path / f"stopped-{step}"
        with pytest.raises(Stop):
            trained(folder, stop_at=step)
        assert load_checkpoint(folder, RUN)["step"] == step
        assert torch.equal(trained(folder)[0], whole), step
        assert log(folder) == log(tmp_path / "whole")
    assert [line[0] for line in log(folder)] == list(range(1, STEPS + 1))


def test_accumulation_is_the_same_up_to_rounding(tmp_path):
    """Without dropout, which draws per micro-batch."""
    models = [ToyModel() for _ in range(2)]
    for model in models:
        model[2].p = 0.0
    one, _ = trained(tmp_path / "1", model=models[0])
    four, _ = trained(tmp_path / "4", RunOptions(accumulate=4), models[1])
    torch.testing.assert_close(one, four, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match=r"--accumulate 3 .*optim\.batch 8"):
        trained(tmp_path / "3", RunOptions(accumulate=3))


def test_a_loss_that_is_not_finite_stops_with_the_next_step_named(tmp_path):
    with pytest.raises(UserError, match=f"{RUN}: .* step 7"):
        trained(tmp_path, spoil_at=7)


def test_the_last_update_is_checked_too(tmp_path, monkeypatch):
    """No loss follows it."""
    monkeypatch.setattr(
        "mgm.training.loop.learning_rate",
        lambda step, steps, optim: 1e300 if step == steps - 1 else 0.1,
    )
    with pytest.raises(UserError, match=f"{RUN}: .*weight .* step 24"):
        trained(tmp_path)


def test_an_infinite_gradient_changes_no_other(tmp_path):
    """Without clipping, the gradients of the other weights are used as they are."""
    model = ToyModel()
    model[3].bias.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(UserError, match="gradient inf"):
        trained(tmp_path, model=model)
    assert torch.isfinite(model[0].weight.grad).all()


def test_an_error_of_a_step_is_raised_as_it_is_and_costs_no_step(tmp_path):
    """The step is not tried again. With another error, of the model or of the GPU, too."""
    whole, _ = trained(tmp_path / "whole")
    model, calls = ToyModel(), []

    def fail(*_):
        calls.append(0)
        if len(calls) == 6:
            raise RuntimeError("an illegal memory access")

    model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        trained(tmp_path / "run", model=model)
    assert len(calls) == 6
    assert load_checkpoint(tmp_path / "run", RUN)["step"] == 5
    assert torch.equal(trained(tmp_path / "run")[0], whole)


def test_unreadable_videos_are_counted_and_too_many_end_the_run(tmp_path):
    failing = [(3, 5), (3, 2), (9, 5), (11, 7)]
    with pytest.raises(Stop):
        trained(tmp_path / "a", failing=failing, stop_at=10)
    _, failed = trained(tmp_path / "a", failing=failing)
    assert failed == ["video 5", "video 2", "video 7"]
    many = [(step, video) for step in range(2) for video in range(step, 8 * step + 8, step + 1)]
    with pytest.raises(UserError, match="11 of 1000 training videos .* 1 %; the first: 0.mp4"):
        trained(tmp_path / "b", failing=[*many[:8], (1, 20), (1, 21), (1, 22)])
    # The steps before are kept, and without the videos of a step that was not made.
    state = load_checkpoint(tmp_path / "b", RUN)
    assert (state["step"], len(state["failed"])) == (1, 8)


def test_a_torn_checkpoint_or_a_flipped_bit_anywhere_is_refused(tmp_path):
    state = {"run_id": "run-1", "step": 2, "failed": {}}
    state["model"] = {"x": torch.ones(9)}
    save_checkpoint(tmp_path, state)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 8 * len(whole) // 97):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        # Bits between the parts of the file have no meaning.
        with suppress(UserError):
            found = load_checkpoint(tmp_path, "run-1")
            assert torch.equal(found["model"].pop("x"), torch.ones(9))
            assert found == {**state, "model": {}, "format": FORMAT}
    for share in (0.0, 0.5, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=r"checkpoint\.pt: is damaged"):
            load_checkpoint(tmp_path, "run-1")
    changed = bytearray(whole)
    changed[whole.index(torch.ones(9).numpy().tobytes())] ^= 4
    path.write_bytes(changed)
    with pytest.raises(UserError, match=r"checkpoint\.pt: is damaged"):
        load_checkpoint(tmp_path, "run-1")
    path.write_bytes(whole)
    with pytest.raises(UserError, match="belongs to run run-1, not to run-2"):
        load_checkpoint(tmp_path, "run-2")


def test_a_full_disk_stops_with_a_line_and_keeps_the_checkpoint_before(tmp_path):
    with pytest.raises(Stop):
        trained(tmp_path, RunOptions(checkpoint_s=0), stop_at=3)
    with full_disk(), pytest.raises(UserError, match=r"checkpoint\.pt: cannot be written"):
        trained(tmp_path, RunOptions(checkpoint_s=0))
    assert not list(tmp_path.glob(".*"))
    assert load_checkpoint(tmp_path, RUN)["step"] == 3


def test_an_error_keeps_its_words_where_saving_fails_too(tmp_path, capsys):
    def fail(*_):
        if (tmp_path / "log.jsonl").read_bytes().count(b"\n") == 3:
            raise RuntimeError("an illegal memory access")

    model = ToyModel()
    model.register_forward_hook(fail)
    with full_disk(), pytest.raises(RuntimeError, match="an illegal memory access"):
        trained(tmp_path, model=model)
    assert "step 3 could not be saved" in capsys.readouterr().err


def test_the_gradient_of_micro_batches_is_that_of_the_batch(tmp_path):
    """AdamW hides its scale, which clipping and the log do not. Float32 sums differ by 1e-6."""
    norms = []
    for parts in (1, 4):
        model = ToyModel()
        model[2].p = 0.0
        trained(tmp_path / str(parts), RunOptions(accumulate=parts), model)
        norms.append([line[3] for line in log(tmp_path / str(parts))])
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.slow
def test_a_compiled_model_is_the_same_up_to_rounding(tmp_path):
    plain, _ = trained(tmp_path / "plain")
    compiled, _ = trained(tmp_path / "compiled", RunOptions(compile="on"))
    torch.testing.assert_close(plain, compiled, rtol=1e-3, atol=1e-4)
