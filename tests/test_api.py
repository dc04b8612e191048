"""The short interface returns what the parts return that it calls."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import mgm
from mgm.errors import NoMotion, UserError
from mgm.masking import Grid, make_mask
from mgm.rng import generator
from mgm.spec import MASKS, Clips, Mask
from mgm.video.crop import Crop
from mgm.video.decode import read
from mgm.video.transform import random_crop, training_indices
from tests.helpers.videos import moving_square, stored, write_video

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "weights" / "mgm"


@pytest.fixture
def video(tmp_path) -> str:
    return write_video(tmp_path / "video.mp4", moving_square(40, 64, 96, (3, 1)), gop=12)


def test_read_and_masks_are_the_parts(video):
    clip, index_T = mgm.read(video, range(0, 32, 2)), range(0, 32, 2)
    known = read(video, index_T)
    np.testing.assert_array_equal(clip.frames_THWC, known.frames_THWC)
    assert len(mgm.read(video).frames_THWC) == len(mgm.track(video)) == 40
    motion_SHW = known.motion.magnitude(2)
    masked_1L = make_mask("mgm", Grid(8, 4, 6), motion_SHW[None], np.array([3]))
    assert np.array_equal(mgm.masks(clip, seed=3).ravel(), masked_1L[0])
    for name in MASKS:
        masked_SHW = mgm.masks(clip, name, grid=(6, 6))
        assert masked_SHW.shape == (8, 6, 6)
        assert masked_SHW.any()
    half = mgm.masks(clip, Mask(name="block", ratio=0.5), tubelet=4)
    assert half.sum((1, 2)).tolist() == [12] * 4
    for mask in ("block", Mask(name="block"), {"name": "block"}):
        assert np.array_equal(mgm.masks(clip, mask, tubelet=4, ratio=0.5), half)
    # A name hides as much as its paper.
    assert mgm.masks(clip, "tube")[0].sum() == mgm.masks(clip, {"name": "tube"})[0].sum() == 21
    assert mgm.masks(clip, "mgm")[0].sum() == 18


def test_the_grid_is_that_of_the_patches_that_fill_what_the_model_sees(video):
    """Of a clip as it is cut, of motion under a crop, and of a crop that is yet to be cut."""
    clip, motion = mgm.read(video, range(8)), mgm.track(video)[:8]
    crop = mgm.Crop(0, 0, 64, 64)
    for patch, side in ((16, 14), (32, 7), (14, 16)):
        shapes = {
            mgm.masks(clip.cut_to(224), patch=patch).shape,
            mgm.masks(motion.under(crop, 224), patch=patch).shape,
            mgm.masks(motion, box=(0, 0, 64, 64), patch=patch).shape,
        }
        assert shapes == {(4, side, side)}
    assert mgm.masks(clip.cut_to(96)).shape == (4, 6, 6)
    assert mgm.masks(motion, size=160).shape == (4, 10, 10)
    assert mgm.masks(clip, patch=8).shape == (4, 8, 12)


def test_drawn_frames_are_those_of_training():
    for sample in range(20):
        seed, frames = mgm.rng.clip_seed(1, 2, sample), int(sample * 7 % 90 + 1)
        clips = Clips(frames=8, stride=3)
        known_T = training_indices(clips, frames, generator(seed, "sample"))
        np.testing.assert_array_equal(mgm.draw_frames(frames, 8, 3, seed), known_T)


def test_wrong_calls_name_the_argument(video):
    clip, track = mgm.read(video, range(8)), mgm.track(video)
    moved = track[:4]
    vectors_THW2 = moved.vectors_THW2.copy()
    vectors_THW2[:, 0, 0] = np.nan
    box = (0, 0, 8, 8)
    settings = {
        "mask: name: .*mgm": {"mask": "mgn"},
        r"did you mean motion-bins\?": {"mask": "motionbins"},
        "8 frames, .* tubelet 3": {"tubelet": 3},
        "grid: is 0": {"grid": (0, 14)},
        "ratio: ": {"ratio": 1.0},
        "guidance dis ": {"mask": {"guidance": "dis"}},
        "box and flip are for motion": {"box": box},
        "patch: 15 pixels do not divide 64 x 96": {"patch": 15},
        "patch: is 0": {"patch": 0},
    }
    calls = {says: partial(mgm.masks, clip, **own) for says, own in settings.items()} | {
        "in a frame of 64 x 96": lambda: mgm.masks(moved, box=(0, 0, 65, 8)),
        "frames are": lambda: mgm.read(video, [[0, 1]]),
        "frames 0 to 39": lambda: track[[[0, 1]]],
        "size: is 0": lambda: clip.cut(Crop(*box), 0),
        "size: is 8.5": lambda: clip.cut(Crop(*box), 8.5),
        "not in a frame": lambda: clip.cut(Crop(63.9, 95.9, 0.1, 0.1), 8),
        "crop: .*multiscale": lambda: clip.cut_at_random(8, 0, "x"),
        "motion: is of type Track": lambda: mgm.masks(track),
        "motion: is of type ndarray": lambda: mgm.masks(vectors_THW2),
        "1 frames, which tubelet 2": lambda: mgm.masks(clip[0]),
        "tubelet: is 0": lambda: mgm.masks(moved, tubelet=0),
        r"box: is \(0, 0, 8\)": lambda: mgm.masks(moved, box=(0, 0, 8)),
        "frame: is .* 2 numbers": lambda: mgm.masks(moved, box=box, frame=(64, 96, 3)),
        "grid: is 14; pass 2": lambda: mgm.masks(moved, grid=14),
        "grid: is 7.5": lambda: mgm.masks(moved, grid=(7.5, 14)),
        "mask: is None": lambda: mgm.masks(moved, None),
        "not in a frame of 64 x": lambda: moved.under(Crop(-8, 0, 16, 16), 16),
        "is not in a frame of": lambda: moved.under(Crop(60, 0, 8, 8), 16),
        "left=nan.* is not in a frame": lambda: moved.under(Crop(0, float("nan"), 8, 8), 16),
        "patch: 16 pixels do not divide 100 x 100": lambda: mgm.masks(moved, box=box, size=100),
        "count: is 0": lambda: mgm.draw_frames(0),
        "size: is -8": lambda: mgm.masks(moved, box=box, size=-8),
        "stride: is 0": lambda: mgm.masks(moved, "warped", stride=0),
        "seed: is .*2\\*\\*63 - 1": lambda: mgm.masks(moved, seed=2**63),
        "motion: .*not finite": lambda: mgm.masks(replace(moved, vectors_THW2=vectors_THW2)),
        "masked_SHW: ": lambda: mgm.patch_positions(np.zeros((2, 4, 4)), range(4)),
        "indices: ": lambda: mgm.patch_positions(np.zeros((2, 4, 4), bool), range(5)),
        "indices: pass": lambda: mgm.patch_positions(np.zeros((2, 4, 4), bool), [0.5, 2.5]),
        "absent: No such file": lambda: mgm.load("absent"),
        "frames: is 0": lambda: mgm.load(WEIGHTS, frames=0),
        "is a run with clips of its own": lambda: mgm.load(WEIGHTS, stride=1),
    }
    for says, call in calls.items():
        with pytest.raises(UserError, match=says) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("ModuleNotFoundError(name='torch')", "torch is not installed; run pip install '.[train]'"),
        ("ImportError('libtorch.so: cannot map')", "torch is installed, but does not load (libto"),
    ],
)
def test_a_model_without_torch_is_one_line(error, says):
    """Python and the command line say it. A package of this name stands for the broken one."""
    code = f"""
import sys, tempfile
from pathlib import Path
folder = Path(tempfile.mkdtemp())
(folder / "torch.py").write_text("raise {error}")
sys.path.insert(0, str(folder))
import mgm
from mgm.errors import UserError
try:
    mgm.load("weights/mgm")
except UserError as error:
    print(error)
from mgm.errors import one_line
from mgm.cli import app
with one_line():
    app(["embed", "docs/walk.mp4", "--weights", "weights/mgm", "--out", str(folder / "x.npz")],
        standalone_mode=False)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert says in done.stdout
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_positions_are_those_of_visible_tokens(video):
    index_T = range(0, 32, 2)
    masked_SHW = mgm.masks(mgm.track(video)[index_T], grid=(6, 5))
    visible = [token for token in product(range(8), range(6), range(5)) if not masked_SHW[token]]
    known = [[index_T[2 * slot], row, column] for slot, row, column in visible]
    assert mgm.patch_positions(masked_SHW, index_T).tolist() == known
    assert mgm.patch_positions(masked_SHW, range(8))[:, 0].max() == 7


def test_a_clip_without_motion_has_unguided_masks(tmp_path):
    path = write_video(tmp_path / "v.webm", moving_square(8, 64, 96), codec="libvpx-vp9")
    clip = mgm.read(path, motion=False)
    assert mgm.masks(clip, "tube").sum() == 4 * int(0.9 * 24)
    with pytest.raises(UserError, match="without motion, and mask mgm"):
        mgm.masks(clip, "mgm")
    for work in (mgm.read, mgm.track):
        with pytest.raises(NoMotion, match=r"v\.webm: .*vp9.*mgm prepare"):
            work(path)


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
        masked_1HW = mgm.masks(clip, mask, seed=5, grid=(14, 14))
        assert np.array_equal(masked_1HW.ravel(), wanted_1L[0])


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
        arrays = {"box": np.array(crop["box"]), "frame": np.array([64, 96])}
        again = mgm.masks(mgm.track(video)[index_T], name, **(crop | arrays), **given)
        assert np.array_equal(own, again)
        assert own.dtype == bool
        np.testing.assert_array_equal(own, mgm.masks(clip, name, **given))
        if name != "warped":
            np.testing.assert_array_equal(own.sum((1, 2)), int(ratio * 36))


def test_a_prepared_track_masks_crops_of_the_stores_frames(video, tmp_path):
    """`frame` says which frames a box is of: the store's are smaller than the source's."""
    _, prepared = stored(video, tmp_path, short_side=32)
    motion = mgm.track(prepared.path)[range(8)]
    whole = mgm.masks(mgm.track(video)[range(8)], box=(20, 40, 40, 48), size=96, seed=1)
    half = mgm.masks(motion, box=(10, 20, 20, 24), frame=(32, 48), size=96, seed=1)
    np.testing.assert_array_equal(whole, half)


def test_the_base_needs_no_extra(video):
    """Reading, tracks, crops and every mask work without torch, with the same masks."""
    code = """
import sys
from pathlib import Path
sys.modules.update(dict.fromkeys(("torch", "PIL", "pandas", "scipy")))
import mgm, numpy as np
from mgm.spec import MASKS
clip, track = mgm.read(sys.argv[1], range(16)), mgm.track(sys.argv[1])
assert len(mgm.packets(sys.argv[1])) == len(track) == len(track.kind_T) == 40
assert len(mgm.blocks(sys.argv[1], [1])[0])
assert len(mgm.patch_positions(mgm.masks(clip), range(16))) == 8 * 6
assert mgm.draw_frames(40).shape == (16,)
from mgm.stages.motion import table
table(Path(sys.argv[1]), None)
assert clip.cut_to(32).cut_to is not None
assert clip.cut_at_random(32, 0).frames_THWC.shape == (16, 32, 32, 3)
drawn = [mgm.masks(motion, name, grid=(6, 6)) for name in MASKS for motion in (clip, track[:16])]
np.save(sys.argv[2], drawn)
"""
    out = Path(video).with_suffix(".npy")
    subprocess.run([sys.executable, "-c", code, video, out], check=True)
    track = mgm.track(video)[:16]
    known = [mgm.masks(track, name, grid=(6, 6)) for name in MASKS for _ in range(2)]
    np.testing.assert_array_equal(np.load(out), known)


def test_a_random_cut_is_that_of_training(video):
    clip, flips = mgm.read(video, range(8)), set()
    for sample in range(8):
        seed = mgm.rng.clip_seed(0, 0, sample)
        cut = clip.cut_at_random(32, seed)
        box = random_crop(Clips(size=32), clip.height, clip.width, seed)
        np.testing.assert_array_equal(cut.frames_THWC, clip.cut(box, 32).frames_THWC)
        np.testing.assert_array_equal(cut.motion_THW2, clip.cut(box, 32).motion_THW2)
        assert not clip.cut_at_random(32, seed, flip=False).motion.crop.flip
        flips.add(cut.motion.crop.flip)
    assert flips == {False, True}


@pytest.mark.parametrize("name", ["mgm", "block", "tube"])
def test_the_models_of_the_repository_embed_a_video(name, video):
    model = mgm.load(ROOT / "weights" / name)
    feature_D = model.embed(video)
    assert feature_D.shape == (48,)
    assert np.isfinite(feature_D).all()
    assert np.abs(feature_D - model.embed(video, clips=1)).max() > 0
