"""The short interface returns what the parts return that it calls."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mgm
from mgm.errors import UserError
from mgm.masking import Grid, SlotMotion, make_mask
from mgm.models import build_mae, save_weights
from mgm.reading import file_digest
from mgm.spec import MASKS, ApplyOptions, Clips, Data, Decoder, Mask, Model, Pretrain
from mgm.stages.apply import embed
from mgm.stages.guidance import slot_motion
from mgm.video import read_clip, slot_magnitude
from mgm.video.clip import Box, Clip, Motion
from tests.helpers.videos import moving_square, write_video

ROOT = Path(__file__).parents[1]
SPEC = Pretrain(
    data=Data(dataset="folder"),
    clips=Clips(frames=4, size=24, stride=2),
    model=Model(width=16, depth=2, heads=2, patch=8),
    decoder=Decoder(width=8, depth=1, heads=2),
)


@pytest.fixture
def video(tmp_path) -> str:
    return write_video(tmp_path / "video.mp4", moving_square(40, 64, 96, (3, 1)), gop=12)


def test_load_and_embed_are_the_command(tmp_path, video):
    run = tmp_path / "run"
    run.mkdir()
    (run / "spec.json").write_text(SPEC.model_dump_json())
    save_weights(build_mae(SPEC), run / "weights.safetensors")
    for clips in (1, 3):
        out = tmp_path / f"{clips}.npz"
        embed(tmp_path / "video.mp4", run, out, ApplyOptions(temporal=clips))
        (feature_D,) = np.load(out)["feature_ND"]
        np.testing.assert_allclose(mgm.load(run).embed(video, clips=clips), feature_D, rtol=1e-5)
    # Weights alone do not say what the clips were.
    clips = {"frames": 4, "size": 24, "stride": 2}
    weights = run / "weights.safetensors"
    embed(tmp_path / "video.mp4", weights, out, ApplyOptions(temporal=3, force=True, **clips))
    (feature_D,) = np.load(out)["feature_ND"]
    model = mgm.load(weights, **clips)
    np.testing.assert_allclose(model.embed(video, clips=3), feature_D, rtol=1e-5)


def test_read_and_masks_are_the_parts(video):
    clip, index_T = mgm.read(video, range(0, 32, 2)), range(0, 32, 2)
    known = read_clip(video, index_T)
    np.testing.assert_array_equal(clip.frames_THWC, known.frames_THWC)
    np.testing.assert_array_equal(clip.motion_THW2, known.motion_THW2)
    assert len(mgm.read(video).frames_THWC) == 40
    motion_SHW = slot_magnitude(known.motion_THW2, known.distance_THW, known.has_motion_T, 2)
    motion, grid = SlotMotion(torch.from_numpy(motion_SHW)[None]), Grid(8, 14, 14)
    masked_1L = make_mask("mgm", grid, motion, torch.tensor([3]))
    assert np.array_equal(mgm.masks(clip, seed=3).ravel(), masked_1L[0])
    for name in MASKS:
        masked_SHW = mgm.masks(clip, name, grid=(6, 6))
        assert masked_SHW.shape == (8, 6, 6)
        assert masked_SHW.any()
    half = mgm.masks(clip, Mask(name="block", ratio=0.5), tubelet=4)
    assert half.sum((1, 2)).tolist() == [98] * 4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mask": "mgn"}, "mask: name: .*mgm"),
        ({"tubelet": 3}, "16 frames, .* tubelet 3"),
        ({"grid": 200}, "grid is 200; "),
        ({"grid": (200, 200)}, r"grid is \(200, 200\); .* 64 and 96"),
        ({"mask": {"guidance": "dis"}}, "guidance dis "),
    ],
)
def test_what_a_mask_cannot_have_is_one_line(video, settings, says):
    clip = mgm.read(video, range(0, 32, 2))
    with pytest.raises(UserError, match=says):
        mgm.masks(clip, **settings)


def test_a_clip_without_motion_has_unguided_masks(tmp_path, video):
    vp9 = write_video(tmp_path / "v.webm", moving_square(8, 64, 96), codec="libvpx-vp9")
    clip = mgm.read(vp9, motion=False)
    assert mgm.masks(clip, "tube").sum() == 4 * int(0.75 * 196)
    assert mgm.masks(clip, Mask(guidance="difference")).shape == (4, 14, 14)
    with pytest.raises(UserError, match="no motion, and mask mgm needs it"):
        mgm.masks(clip, "mgm")
    with pytest.raises(UserError, match="whole numbers"):
        mgm.read(video, [0.7, 1.2])
    assert {"load", "masks", "read"} <= set(dir(mgm))


def test_a_mask_is_that_of_training_whatever_its_guidance(video):
    """Difference guidance has a cell per 8 pixels, as in training, also at patch 8."""
    clip = mgm.read(video, range(16))
    for mask in (Mask(guidance="difference"), Mask(compensate="median"), Mask(name="warped")):
        motion = slot_motion([clip], mask, 2, 1)
        assert motion.magnitude_BSHW.shape == (1, 8, 8, 12)
        masked_1L = make_mask(mask, Grid(8, 8, 12), motion, torch.tensor([0]))
        assert np.array_equal(mgm.masks(clip, mask, grid=(8, 12)).ravel(), masked_1L[0])


@pytest.mark.parametrize("name", ["mgm", "mgm-sparse", "warped", "tube"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_mask_for_a_crop_of_any_loader_is_that_of_the_cut_clip(video, name, flip):
    """A track and a box are enough. No pixel is read."""
    index_T, (top, left, side) = [1, 5, 30, 31], (3, 20, 50)
    clip = mgm.read(video, index_T).cut(Box(top, left, side, side, flip=flip), 96)
    crop = {"box": (top, left, side, side), "flip": flip, "size": 96}
    for ratio in (0.5, 0.9):
        given = {"ratio": ratio, "seed": 4, "grid": (6, 6)}
        own = mgm.masks(mgm.track(video)[index_T], name, **crop, **given)
        assert own.dtype == bool
        np.testing.assert_array_equal(own, mgm.masks(clip, name, **given))
        if name != "warped":
            np.testing.assert_array_equal(own.sum((1, 2)), int(ratio * 36))
    with pytest.raises(UserError, match="box and flip are for motion"):
        mgm.masks(clip, box=(0, 0, 8, 8))
    with pytest.raises(UserError, match="guidance difference needs more"):
        mgm.masks(mgm.track(video)[index_T], Mask(guidance="difference"))


def test_displacement_is_in_units_of_width_and_height():
    """A square that moves by (6, 3) pixels per frame, on 128 x 64 pixels."""
    vectors_THW2 = np.tile(np.float32([6, 3]), (2, 8, 16, 1))
    motion = Motion(vectors_THW2, np.ones((2, 8, 16), np.float32), np.ones(2, bool), (64, 128))
    clip = Clip(np.zeros((2, 64, 128, 3), np.uint8), motion)
    moved_BSHW2 = slot_motion([clip], Mask(name="warped"), 2, 1).displacement_BSHW2
    np.testing.assert_allclose(moved_BSHW2[0, 0, 0, 0], [2 * 6 / 128, 2 * 3 / 64])


def test_the_base_imports_no_torch():
    code = "import sys, mgm; mgm.read; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["mgm", "block", "tube"])
def test_the_models_of_the_repository_load_and_are_those_listed(name, video):
    weights = ROOT / "weights" / name / "weights.safetensors"
    assert weights.stat().st_size < 1e6
    digest = file_digest(weights)[:12]
    assert f"| `{name}` | " in (text := (ROOT / "weights" / "README.md").read_text())
    assert digest in text
    model = mgm.load(weights.parent)
    assert model.embed(video).shape == (48,)
    with pytest.raises(UserError, match="weights: is a folder"):
        model.embed(ROOT / "weights")
