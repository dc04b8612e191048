"""The short interface returns what the parts return that it calls."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mgm
from mgm.errors import UserError
from mgm.masking import Grid, make_mask
from mgm.models import build_mae, save_weights
from mgm.reading import file_digest
from mgm.spec import MASKS, ApplyOptions, Clips, Data, Decoder, Mask, Model, Pretrain
from mgm.stages.apply import embed
from mgm.stages.guidance import slot_motion
from mgm.video import read_clip, slot_magnitude
from mgm.video.clip import Crop, Motion
from mgm.video.transform import random_crop
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


def test_a_track_of_a_codec_without_vectors_is_refused_at_once(tmp_path):
    video = write_video(tmp_path / "v.webm", moving_square(20), codec="libvpx-vp9")
    with pytest.raises(UserError, match="vp9 has no motion vectors"):
        mgm.track(video)


def test_read_and_masks_are_the_parts(video):
    clip, index_T = mgm.read(video, range(0, 32, 2)), range(0, 32, 2)
    known = read_clip(video, index_T)
    np.testing.assert_array_equal(clip.frames_THWC, known.frames_THWC)
    np.testing.assert_array_equal(clip.motion_THW2, known.motion_THW2)
    assert len(mgm.read(video).frames_THWC) == 40
    motion_SHW = slot_magnitude(known.motion_THW2, known.distance_THW, known.has_motion_T, 2)
    masked_1L = make_mask("mgm", Grid(8, 14, 14), motion_SHW[None], np.array([3]))
    assert np.array_equal(mgm.masks(clip, seed=3).ravel(), masked_1L[0])
    for name in MASKS:
        masked_SHW = mgm.masks(clip, name, grid=(6, 6))
        assert masked_SHW.shape == (8, 6, 6)
        assert masked_SHW.any()
    half = mgm.masks(clip, Mask(name="block", ratio=0.5), tubelet=4)
    assert half.sum((1, 2)).tolist() == [98] * 4
    for mask in ("block", Mask(name="block"), {"name": "block"}):
        assert np.array_equal(mgm.masks(clip, mask, tubelet=4, ratio=0.5), half)
    # A name hides as much as its paper.
    assert mgm.masks(clip, "tube")[0].sum() == mgm.masks(clip, {"name": "tube"})[0].sum() == 176
    assert mgm.masks(clip, "mgm")[0].sum() == mgm.masks(clip, Mask(name="tube"))[0].sum() == 147


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mask": "mgn"}, "mask: name: .*mgm"),
        ({"tubelet": 3}, "16 frames, .* tubelet 3"),
        ({"grid": 200}, "grid is 200; "),
        ({"grid": (200, 20)}, r"grid is 200; .* 1 to 64"),
        ({"grid": (20, 97)}, r"grid is 97; .* 1 to 96"),
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
    assert mgm.masks(clip, "tube").sum() == 4 * int(0.9 * 196)
    assert mgm.masks(clip, Mask(guidance="difference")).shape == (4, 14, 14)
    with pytest.raises(UserError, match="without motion, and mask mgm"):
        mgm.masks(clip, "mgm")
    with pytest.raises(UserError, match="whole number"):
        mgm.read(video, [0.7, 1.2])
    assert {"load", "masks", "read"} <= set(dir(mgm))


@pytest.mark.parametrize("name", [name for name, info in MASKS.items() if info.guided])
def test_a_window_without_vectors_is_masked_as_in_training(tmp_path, name):
    """A lone I-frame between two scenes has no vectors, in a video that has them elsewhere."""
    video = write_video(tmp_path / "v.mp4", moving_square(12, 64, 96, (3, 1)), gop=4)
    lone = mgm.track(video)[[4, 8]]
    assert not lone.has_mv_T.any()
    still, unmoved = np.zeros((1, 1, 8, 12)), np.zeros((1, 1, 8, 12, 2))
    mask = Mask(name=name, ratio=0.75)
    wanted_1L = make_mask(mask, Grid(1, 14, 14), still, np.array([5]), unmoved)
    for clip in (lone, mgm.read(video, [4, 8])):
        assert np.array_equal(mgm.masks(clip, mask, seed=5).ravel(), wanted_1L[0])


def test_a_guided_mask_reads_the_largest_vector_by_default():
    """As eq. 6 does. The only vector is not at the centre of one of the crop's 3 x 3 cells."""
    vectors_THW2 = np.zeros((2, 8, 8, 2), np.float32)
    vectors_THW2[:, 0, 0] = 5
    motion = Motion(vectors_THW2, np.ones((2, 8, 8), np.float32), np.ones(2, bool), (64, 64))
    crop = {"box": (0, 0, 64, 64), "size": 24, "grid": (3, 3), "ratio": 0.5}

    def hidden(mask):
        return sum(mgm.masks(motion, mask, seed, **crop)[0, 0, 0] for seed in range(12))

    assert hidden("mgm-sparse") == hidden({"name": "mgm-sparse"}) == 12
    assert hidden({"name": "mgm-sparse", "cells": "centre"}) < 12


def test_a_mask_is_that_of_training_whatever_its_guidance(video):
    """Difference guidance has a cell per 8 pixels, as in training, also at patch 8."""
    clip = mgm.read(video, range(16))
    for mask in (Mask(guidance="difference"), Mask(compensate="median"), Mask(name="warped")):
        motion, shift = slot_motion(mask, 2, 1, [clip.motion], [clip.frames_THWC])
        assert motion.shape == (1, 8, 8, 12)
        masked_1L = make_mask(mask, Grid(8, 8, 12), motion, np.array([0]), shift)
        assert np.array_equal(mgm.masks(clip, mask, grid=(8, 12)).ravel(), masked_1L[0])


@pytest.mark.parametrize("name", ["mgm", "mgm-sparse", "warped", "tube"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_mask_for_a_crop_of_any_loader_is_that_of_the_cut_clip(video, name, flip):
    """A track and a box are enough. No pixel is read."""
    index_T, (top, left, side) = [1, 5, 30, 31], (3, 20, 50)
    clip = mgm.read(video, index_T).cut(Crop(top, left, side, side, flip=flip), 96)
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
    _, moved_BSHW2 = slot_motion(Mask(name="warped"), 2, 1, [motion])
    np.testing.assert_allclose(moved_BSHW2[0, 0, 0, 0], [2 * 6 / 128, 2 * 3 / 64])


def test_the_base_needs_no_extra(video):
    """Reading, tracks and every mask work without torch and OpenCV, with the same masks."""
    code = """
import sys
sys.modules.update(dict.fromkeys(("torch", "cv2", "PIL", "pandas")))
import mgm, numpy as np
from mgm.spec import MASKS
clip, track = mgm.read(sys.argv[1], range(16)), mgm.track(sys.argv[1])
drawn = [mgm.masks(motion, name, grid=(6, 6)) for name in MASKS for motion in (clip, track[:16])]
np.save(sys.argv[2], drawn)
"""
    out = Path(video).with_suffix(".npy")
    subprocess.run([sys.executable, "-c", code, video, out], check=True)
    track = mgm.track(video)[:16]
    known = [mgm.masks(track, name, grid=(6, 6)) for name in MASKS for _ in range(2)]
    np.testing.assert_array_equal(np.load(out), known)


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


NAN, BIG = float("nan"), 2**70


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda clip, path: mgm.read(None), TypeError),
        (lambda clip, path: mgm.read(5), TypeError),
        (lambda clip, path: mgm.read(b"video.mp4"), TypeError),
        (lambda clip, path: mgm.read("no\0such"), UserError),
        (lambda clip, path: mgm.read("none.mp4"), UserError),
        (lambda clip, path: mgm.read(path, 5), TypeError),
        (lambda clip, path: mgm.read(path, "0123"), TypeError),
        (lambda clip, path: mgm.read(path, [0.0, 1.0]), TypeError),
        (lambda clip, path: mgm.read(path, [[0, 1]]), TypeError),
        (lambda clip, path: mgm.read(path, []), ValueError),
        (lambda clip, path: mgm.read(path, [-1]), ValueError),
        (lambda clip, path: mgm.read(path, [BIG]), ValueError),
        (lambda clip, path: mgm.read(path, [40]), UserError),
        (lambda clip, path: clip.cut_to(0), ValueError),
        (lambda clip, path: clip.cut_to(-8), ValueError),
        (lambda clip, path: clip.cut_to(96.0), TypeError),
        (lambda clip, path: clip.cut_to(None), TypeError),
        (lambda clip, path: clip.cut_to(BIG), ValueError),
        (lambda clip, path: clip.cut(None, 64), TypeError),
        (lambda clip, path: clip.cut(mgm.Crop(-1, 0, 8, 8), 64), ValueError),
        (lambda clip, path: clip.cut(mgm.Crop(60, 0, 8, 8), 64), ValueError),
        (lambda clip, path: clip.cut(mgm.Crop(0, 0, 0, 8), 64), ValueError),
        (lambda clip, path: clip.cut(mgm.Crop(0.5, 0, 8, 8), 64), ValueError),
        (lambda clip, path: clip.cut(mgm.Crop(NAN, 0, 8, 8), 64), ValueError),
        (lambda clip, path: clip.cut(mgm.Crop("0", 0, 8, 8), 64), TypeError),
        (lambda clip, path: clip.cut_at_random(64, -1), ValueError),
        (lambda clip, path: clip.cut_at_random(64, 0.5), TypeError),
        (lambda clip, path: clip.cut_at_random(64, 0, crop="middle"), UserError),
        (lambda clip, path: mgm.read(path, np.array(3)), TypeError),
        (lambda clip, path: mgm.read(path, [0], motion=np.zeros(2)), TypeError),
        (lambda clip, path: mgm.masks(clip.motion, flip=np.zeros(2)), TypeError),
        (lambda clip, path: mgm.masks(clip, grid=np.array(3)), TypeError),
        (lambda clip, path: clip.cut(mgm.Crop(0, 0, 8, 8, flip=np.zeros(2)), 8), TypeError),
        (lambda clip, path: mgm.track(None), TypeError),
        (lambda clip, path: mgm.track("none.track"), UserError),
        (lambda clip, path: mgm.track(path)["0"], UserError),
        (lambda clip, path: mgm.track(path)[40], UserError),
        (lambda clip, path: mgm.masks(mgm.track(path)), TypeError),
        (lambda clip, path: mgm.masks(mgm.track(path)[:0]), UserError),
        (lambda clip, path: mgm.masks(clip.motion, box=(0, 0, 8)), TypeError),
        (lambda clip, path: mgm.masks(clip.motion, box=5), TypeError),
        (lambda clip, path: mgm.masks(clip.motion, box=("0", 0, 8, 8)), TypeError),
        (lambda clip, path: mgm.masks(clip.motion, box=(0, 0, 65, 8)), ValueError),
        (lambda clip, path: mgm.masks(clip.motion, box=(-1, 0, 8, 8)), ValueError),
        (lambda clip, path: mgm.masks(clip.motion, box=(0, 0, NAN, 8)), ValueError),
        (lambda clip, path: mgm.masks(clip.motion, flip=True, size=0), ValueError),
        (lambda clip, path: mgm.masks(clip.motion, flip=True, size=2.5), TypeError),
        (lambda clip, path: mgm.masks(clip, box=(0, 0, 8, 8)), ValueError),
        (lambda clip, path: mgm.masks(None), TypeError),
        (lambda clip, path: mgm.masks(clip.frames_THWC), TypeError),
        (lambda clip, path: mgm.masks(clip, None), TypeError),
        (lambda clip, path: mgm.masks(clip, 5), TypeError),
        (lambda clip, path: mgm.masks(clip, ""), ValueError),
        (lambda clip, path: mgm.masks(clip, {"name": 5}), ValueError),
        (lambda clip, path: mgm.masks(clip, {"names": "mgm"}), ValueError),
        (lambda clip, path: mgm.masks(clip, ratio=1.0), ValueError),
        (lambda clip, path: mgm.masks(clip, ratio=0), ValueError),
        (lambda clip, path: mgm.masks(clip, ratio=NAN), ValueError),
        (lambda clip, path: mgm.masks(clip, ratio="0.9"), TypeError),
        (lambda clip, path: mgm.masks(clip, seed=-1), ValueError),
        (lambda clip, path: mgm.masks(clip, seed=2**63), ValueError),
        (lambda clip, path: mgm.masks(clip, seed=0.5), TypeError),
        (lambda clip, path: mgm.masks(clip, seed=None), TypeError),
        (lambda clip, path: mgm.masks(clip, tubelet=0), ValueError),
        (lambda clip, path: mgm.masks(clip, tubelet=2.0), TypeError),
        (lambda clip, path: mgm.masks(clip, tubelet=3), ValueError),
        (lambda clip, path: mgm.masks(clip, stride=0), ValueError),
        (lambda clip, path: mgm.masks(clip, stride="2"), TypeError),
        (lambda clip, path: mgm.masks(clip, grid=(2.0, 3.0)), TypeError),
        (lambda clip, path: mgm.masks(clip, grid=14), TypeError),
        (lambda clip, path: mgm.masks(clip, grid="14"), TypeError),
        (lambda clip, path: mgm.masks(clip, grid=(1, 2, 3)), TypeError),
        (lambda clip, path: mgm.masks(clip, grid=(0, 3)), ValueError),
        (lambda clip, path: mgm.load(None), TypeError),
        (lambda clip, path: mgm.load(5), TypeError),
        (lambda clip, path: mgm.load(""), TypeError),
        (lambda clip, path: mgm.load("none"), UserError),
        (lambda clip, path: mgm.load(path), UserError),
        (lambda clip, path: mgm.load(WEIGHTS, frames=0), ValueError),
        (lambda clip, path: mgm.load(WEIGHTS, size=4), UserError),
        (lambda clip, path: mgm.load(WEIGHTS, size=48.0), TypeError),
        (lambda clip, path: mgm.load(WEIGHTS, stride=0), ValueError),
        (lambda clip, path: mgm.load(WEIGHTS).embed(None), TypeError),
        (lambda clip, path: mgm.load(WEIGHTS).embed(path, clips=0), ValueError),
        (lambda clip, path: mgm.load(WEIGHTS).embed(path, clips=1.5), TypeError),
        (lambda clip, path: mgm.load(WEIGHTS).embed(path, clips=10**9), ValueError),
        (lambda clip, path: mgm.rng.clip_seed(0, 0, 0.5), TypeError),
        (lambda clip, path: mgm.rng.clip_seed(BIG, 0, 0), ValueError),
    ],
)
def test_an_odd_argument_is_one_line(video, call, kind):
    """The error is one that Python users expect, and one that `except UserError` catches."""
    with pytest.raises(kind) as caught:
        call(mgm.read(video, range(8)), video)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)


WEIGHTS = ROOT / "weights" / "mgm"


def test_numbers_of_numpy_are_numbers(video):
    clip = mgm.read(video, np.arange(8)[::-1])
    np.testing.assert_array_equal(clip.frames_THWC, mgm.read(video, range(7, -1, -1)).frames_THWC)
    two = np.int64(2)
    one = mgm.masks(clip, seed=np.uint8(3), tubelet=two, stride=two, grid=np.array([6, 6]))
    assert np.array_equal(
        one, mgm.masks(clip, seed=3, stride=2, grid=[6, 6], ratio=np.float32(0.75))
    )
    assert mgm.rng.clip_seed(two, 0, 1) == mgm.rng.clip_seed(2, 0, 1)


def test_a_random_cut_is_that_of_training(video):
    clip = mgm.read(video, range(8))
    flips = set()
    for sample in range(8):
        seed = mgm.rng.clip_seed(0, 0, sample)
        cut = clip.cut_at_random(32, seed)
        box = random_crop(Clips(size=32), clip.height, clip.width, seed)
        np.testing.assert_array_equal(cut.frames_THWC, clip.cut(box, 32).frames_THWC)
        np.testing.assert_array_equal(cut.motion_THW2, clip.cut(box, 32).motion_THW2)
        assert not clip.cut_at_random(32, seed, flip=False).motion.crop.flip
        flips.add(cut.motion.crop.flip)
    assert flips == {False, True}


def test_what_is_printed_is_short(video):
    clip, model = mgm.read(video, range(8)), mgm.load(WEIGHTS)
    for value in (clip, clip.motion, clip.cut_to(32), model):
        assert len(repr(value)) < 120
        assert type(value).__name__ in repr(value)


def test_a_name_that_is_almost_right_is_suggested(video):
    with pytest.raises(UserError, match=r"did you mean motion-bins\?"):
        mgm.masks(mgm.read(video, range(8)), "motionbins")
    with pytest.raises(UserError, match="choose from agnostic, tube"):
        mgm.masks(mgm.read(video, range(8)), "xyz")


def test_the_models_of_a_clone_are_looked_for_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"weights/mgm: no such weights; .*clone"):
        mgm.load("weights/mgm")
