"""What a model explains of hidden patches that move and that do not, against plain loops."""

import numpy as np
import pytest
import torch

from mgm.models import build_mae
from mgm.spec import Mask
from mgm.stages.measure import explained, measure_now
from mgm.stages.measure import measure as run_measure
from mgm.stages.measure.visible import MOVES
from mgm.stages.pretrain import pretrain
from mgm.stages.runner import run_all
from tests.helpers.errors import refused


def slow_sums(model, frames_THWC, masked_SHW):
    """Return the squared errors of a clip, patch by patch, as `explained.losses` does."""
    tubelet, patch = model.encoder.tubelet, model.encoder.patch
    grey_THW = frames_THWC @ np.array([0.299, 0.587, 0.114])

    def cut(x_THW, slot, row, column):
        rows, columns = (slice(patch * place, patch * (place + 1)) for place in (row, column))
        return x_THW[tubelet * slot : tubelet * (slot + 1), rows, columns]

    def target(place):
        x_NC = cut(frames_THWC, *place).reshape(-1, 3) / 255
        return ((x_NC - x_NC.mean(0)) / (x_NC.std(0, ddof=1) + model.std_floor)).ravel()

    def moves(slot, row, column):
        own_THW = cut(grey_THW, slot, row, column)
        before_THW = cut(np.roll(grey_THW, 1, 0), slot, row, column)
        return np.sqrt(np.square(own_THW - before_THW)[int(slot == 0) :].mean()) > MOVES

    def mean(places):
        return np.mean([target(place) for place in places], 0) if places else 0

    visible = [*zip(*np.nonzero(~masked_SHW))]
    with torch.no_grad():
        masked_1L = torch.from_numpy(masked_SHW).view(1, -1)
        predicted_MP = model.predict(torch.from_numpy(frames_THWC)[None], masked_1L)[0][0].numpy()
    sums_PG = np.zeros((4, 3))
    for place, predicted_P in zip(np.argwhere(masked_SHW), predicted_MP):
        around = [other for other in visible if np.abs(place - other).max() == 1]
        same = [other for other in visible if (place[1:] == other[1:]).all()]
        same.sort(key=lambda other: (abs(place[0] - other[0]), other[0]))
        for number, guess in enumerate((0, predicted_P, mean(around), mean(same[:1]))):
            error = np.square(target(place) - guess).sum()
            sums_PG[number] += error, error * moves(*place), error * (not moves(*place))
    return sums_PG


def test_sums_are_those_of_plain_loops(pretraining):
    """In the first clip a place is hidden in all slots, and in the second in some."""
    draw = np.random.default_rng(0)
    longer = pretraining.clips.model_copy(update={"frames": 8})
    fields = {"clips": longer, "mask": Mask(name="agnostic", ratio=0.6)}
    model = build_mae(pretraining.model_copy(update=fields)).eval()
    torch.nn.init.normal_(model.decoder.head.weight, std=0.1)
    frames_BTHWC = draw.integers(0, 255, (2, 1, 24, 24, 3), np.uint8).repeat(8, 1)
    # A third of the picture changes from frame to frame.
    frames_BTHWC[:, :, 8:16] = draw.integers(0, 255, (2, 8, 8, 24, 3), np.uint8)
    masked_BSHW = np.zeros((2, 4, 3, 3), bool)
    masked_BSHW[0].reshape(4, 9)[:, draw.choice(9, model.hidden // 4, replace=False)] = True
    masked_BSHW[1].ravel()[draw.choice(36, model.hidden, replace=False)] = True
    masked_BL = torch.from_numpy(masked_BSHW).flatten(1)
    with torch.no_grad():
        fast_PG = explained.losses(model, masked_BL, torch.from_numpy(frames_BTHWC)).numpy()
    slow_PG = sum(slow_sums(model, *clip) for clip in zip(frames_BTHWC, masked_BSHW))
    assert fast_PG == pytest.approx(slow_PG, rel=1e-5)
    assert (slow_PG[:, 1:] > 0).all()


def test_of_a_static_clip_the_nearest_slot_explains_all(pretraining):
    spec = pretraining.model_copy(update={"mask": Mask(name="agnostic", ratio=0.5)})
    model = build_mae(spec).eval()
    still = np.random.default_rng(0).integers(0, 255, (1, 1, 24, 24, 3), np.uint8)
    masked_BL = torch.zeros(1, 18, dtype=torch.bool)
    # Each place is hidden in one of the two slots.
    masked_BL[0, :5] = masked_BL[0, 14:] = True
    model.hidden, model.visible = 9, 9
    frames_BTHWC = torch.from_numpy(still.repeat(4, 1))
    trivial, _, _, nearest = explained.losses(model, masked_BL, frames_BTHWC).tolist()
    assert trivial[0] == trivial[2] > 0 == trivial[1]
    assert nearest == pytest.approx([0, 0, 0], abs=1e-3)


def test_a_run_and_a_command_measure_it(execution, pretraining, result_of):
    slow = pretraining.optim.model_copy(update={"lr": 1e-9, "min_lr": 0.0})
    pretraining = pretraining.model_copy(update={"head_init": "zero", "optim": slow})
    run_all([pretraining], pretrain, execution)
    run = execution.results / pretraining.run_id
    spec = explained.spec_of(run, 0)
    assert spec.run_id.startswith("measure-explained-ssv2-" + pretraining.hash)
    run_all([spec], run_measure, execution)
    result = result_of(spec)
    assert [*result["parents_sha256"]] == [pretraining.run_id]
    metrics = result["metrics"]
    assert metrics["clips"] == 12
    assert {name for name in metrics if name.startswith("common_explained")} == {
        f"common_explained{patches}" for patches in ("", "_moving", "_static")
    }
    # The model's last layer still predicts zeros.
    assert metrics["explained"] == pytest.approx(0, abs=0.1)
    text = measure_now("explained", execution.data["ssv2"], 0, run)
    assert f"{metrics['explained']:.4g}" in text
    with refused("has no parent"):
        run_all([spec.model_copy(update={"parent": ""})], run_measure, execution)
    with refused("--like RUN"):
        measure_now("explained", execution.data["ssv2"], 0)
