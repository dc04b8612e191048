"""What masks leave visible, in the first clips of a training run."""

from dataclasses import replace

import numpy as np
import pytest

from mgm.data.index import read_index
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.spec import Clips, Mask, Measure, Model
from mgm.stages.inspect import visible_lines
from mgm.stages.job import Job, Workplace
from mgm.stages.measure import measure
from mgm.stages.measure.visible import describe, first_clips, leaves_nothing, shares, visible
from tests.helpers.small_runs import SMALL
from tests.helpers.videos import indexed, write_video

CHECKERS = np.indices((8, 8)).sum(0) % 2 * 100  # standard deviation 50


def test_shares_of_a_clip_of_known_patches():
    """Of four textured patches one is visible. Its brightness changes by 10, the others' by 30."""
    frames_THWC = np.zeros((4, 32, 32, 3), np.uint8)
    for row, column, change in ((0, 0, 10), (0, 16, 30), (16, 0, 30), (16, 16, 30)):
        for t in range(4):
            patch = CHECKERS + change * (t % 2)
            frames_THWC[t, row : row + 8, column : column + 8] = patch[..., None]
    masked_SHW = np.ones((2, 2, 2), bool)
    masked_SHW[:, 0, 0] = False
    texture, motion, energy, textured, moving = shares(frames_THWC, masked_SHW)
    assert texture == pytest.approx(1 / 4)
    assert motion == pytest.approx(10**2 / (10**2 + 3 * 30**2), rel=1e-5)
    # Three of four frames change, in 8 x 8 of 32 x 32 pixels. The patch is textured in all four.
    assert energy == pytest.approx(3 / 4 / 16 * 10**2, rel=1e-5)
    assert (textured, moving) == (4, 3)
    texture, motion, *counts = shares(np.zeros_like(frames_THWC), masked_SHW)
    assert np.isnan([texture, motion]).all()
    assert counts == [0, 0, 0]


def test_a_patch_that_is_partly_hidden_counts_in_part():
    frames_THWC = np.zeros((2, 8, 16, 3), np.uint8)
    frames_THWC[:, :, :8] = CHECKERS[..., None]
    masked_SHW = np.zeros((1, 2, 4), bool)
    masked_SHW[0, 0, 0] = True
    assert shares(frames_THWC, masked_SHW)[0] == pytest.approx(3 / 4)


@pytest.fixture(scope="module")
def black(tmp_path_factory):
    """Videos of a small square of noise that moves on black, as a cut-out hand does."""
    folder = tmp_path_factory.mktemp("black")
    noise = np.random.default_rng(0).integers(60, 255, (12, 12, 3), np.uint8)
    for number in range(4):
        frames_THWC = np.zeros((32, 96, 96, 3), np.uint8)
        for t, frame_HWC in enumerate(frames_THWC):
            left = 10 + 2 * t
            frame_HWC[20 + 10 * number : 32 + 10 * number, left : left + 12] = noise
        write_video(folder / f"{number}.mp4", frames_THWC)
    return folder


def test_a_box_that_follows_the_only_object_leaves_nothing(black):
    videos = [indexed(str(path), 32) for path in sorted(black.iterdir())]
    clips = Clips(frames=16, size=48, stride=2, crop="centre", flip=False)
    model = Model(patch=8)
    masks = [Mask(name="tube"), Mask(name="mgm")]
    measured = dict(zip(("tube", "mgm"), visible(videos, clips, model, masks)))
    assert measured["mgm"]["clips"] == 4
    assert measured["mgm"]["motion"] < 5 < 10 < measured["tube"]["motion"]
    assert leaves_nothing(measured["mgm"])
    assert not leaves_nothing(measured["tube"])
    *_, warning = describe(measured)
    assert warning == "warning: too little stays visible to learn from: mgm"
    lines = visible_lines(videos)
    assert [line.split()[0] for line in lines[:4]] == ["block", "mgm", "tube", "tube"]


def test_a_study_can_measure_it(tmp_path):
    params = Synthetic(classes=2, train_per_class=2, test_per_class=1)
    index = generate(params, tmp_path / "drawn")
    for guidance in ("vectors", "difference", "shuffled"):
        spec = Measure(**SMALL, name="visible", mask=Mask(guidance=guidance))
        assert spec.run_id.startswith("measure-visible-mgm-")
        job = Job(spec, tmp_path, Workplace(tmp_path, {spec.data.dataset: index.root}), index)
        found = measure(job)
        assert set(found) == {"texture", "motion", "without", "energy", "moving", "clips"}
        assert found["clips"] == 4
        assert 0 <= found["texture"] <= 100


def test_each_video_counts_once_and_unreadable_ones_do_not(videos):
    """The second batch of 16 begins the next epoch."""
    several = list(read_index(videos).train[:18])
    several[5] = replace(several[5], path="missing.mp4")
    batches = first_clips(several, SMALL["clips"], SMALL["model"], [Mask(name="tube")])
    samples = [sample for batch in batches for sample in batch.sample_B.tolist()]
    assert sorted(samples) == [sample for sample in range(18) if sample != 5]


def test_masks_of_one_pass_have_the_same_guidance():
    """The loader reads one motion per clip, so the second mask would follow the wrong video."""
    masks = [Mask(name="mgm"), Mask(name="mgm", guidance="shuffled")]
    with pytest.raises(ValueError, match="same guidance"):
        next(first_clips([], SMALL["clips"], SMALL["model"], masks))
