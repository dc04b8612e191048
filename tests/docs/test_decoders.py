"""Masks for pixels that other decoders read: the dataset of docs/masks-and-weights.md."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import mgm
from mgm.video import Motion
from tests.docs.test_pages import ROOT, blocks
from tests.helpers.videos import moving_square, write_video

PAGE = ROOT / "docs" / "masks-and-weights.md"
DATASET = next(code for code in blocks(PAGE, "python") if "class Clips(Dataset)" in code)


@pytest.fixture
def videos(tmp_path, monkeypatch) -> list[str]:
    """Return videos with and without B-frames."""
    monkeypatch.chdir(tmp_path)
    write_video("video.mp4", moving_square(40, 256, 340, (6, 2), side=64), bf=2, g=12)
    write_video("plain.mp4", moving_square(40, 256, 340, (-4, 4), side=64), bf=0)
    write_video("video.mkv", moving_square(40, 256, 340, (4, 0), side=64), bf=3)
    return ["video.mp4", "plain.mp4", "video.mkv"]


def dataset(code: str, videos: list[str]):
    scope = {"mgm": mgm}
    exec(compile(code, PAGE.name, "exec"), scope)
    return scope["Clips"](videos)


def test_a_dataset_on_decord_has_the_masks_of_our_own_clips(videos):
    pytest.importorskip("decord")
    clips = dataset(DATASET, videos)
    batches = list(DataLoader(clips, batch_size=1, num_workers=2))
    for n, (frames_BTHWC, masked_BL) in enumerate(batches):
        rng = np.random.default_rng(n)
        index_T = rng.integers(10) + np.arange(0, 32, 2)
        top, left = rng.integers(56), rng.integers(100)
        clip = mgm.read(videos[n], index_T)
        own_THWC = clip.frames_THWC[:, top : top + 200, left : left + 200]
        # swscale of decord's FFmpeg rounds differently.
        error = np.abs(frames_BTHWC[0].numpy().astype(int) - own_THWC).mean()
        assert error < 3, videos[n]
        box = mgm.video.clip.Crop(top, left, 200, 200)
        known_SHW = mgm.masks(clip.cut(box, 224), "mgm", seed=n)
        np.testing.assert_array_equal(masked_BL[0].numpy(), known_SHW.ravel())
        assert isinstance(clips.tracks[n][index_T], Motion)


def test_a_pipeline_of_frames_and_crops_has_the_masks_of_our_own_clips(videos):
    """`Samples` has the one method of WebDataset's that the page calls."""

    class Samples(IterableDataset):
        def __init__(self, samples, change=None):
            self.samples, self.change = samples, change

        def map(self, change):
            return Samples(self.samples, change)

        def __iter__(self):
            return map(self.change, self.samples)

    given = [
        {"__key__": video, "frames": np.arange(n, n + 16), "box": (n, 20, 200, 180), "seed": n}
        for n, video in enumerate(videos)
    ]
    scope = {"mgm": mgm, "samples": Samples(given)}
    recipe = next(code for code in blocks(PAGE, "python") if "def mask_of" in code)
    (mapped,) = (code for code in blocks(PAGE, "py") if "samples.map" in code)
    exec(compile(recipe + mapped, PAGE.name, "exec"), scope)
    for sample in DataLoader(scope["samples"], batch_size=None, num_workers=1):
        clip = mgm.read(sample["__key__"], sample["frames"])
        box = mgm.Crop(*(int(side) for side in sample["box"]))
        known_SHW = mgm.masks(clip.cut(box, 224), "mgm", seed=sample["seed"])
        np.testing.assert_array_equal(sample["mask"], known_SHW.ravel())


def test_motion_of_tokens_is_the_mean_velocity_in_pixels_of_the_crop():
    """Cells of 16 pixels move by (6, 2) and (-3, 1) per frame; the second frame has no motion."""
    vectors_THW2 = np.zeros((4, 16, 16, 2), np.float32)
    vectors_THW2[:, :, :8], vectors_THW2[:, :, 8:] = (6, 2), (-3, 1)
    # The last frame refers to two frames before.
    distance_THW = np.ones((4, 16, 16), np.float32)
    vectors_THW2[3], distance_THW[3] = 2 * vectors_THW2[3], 2
    has_mv_T = np.array([True, False, True, True])
    motion = Motion(vectors_THW2, distance_THW, has_mv_T, (128, 128))
    recipe = next(code for code in blocks(PAGE, "python") if "def motion_of_tokens" in code)
    scope = {"mgm": mgm, "np": np}
    exec(compile(recipe.partition("\n\n\n")[0], PAGE.name, "exec"), scope)
    target_SHW2, known_S = scope["motion_of_tokens"](motion, (0, 0, 128, 128), size=256)
    assert target_SHW2.shape == (2, 16, 16, 2)
    np.testing.assert_allclose(target_SHW2[:, :, :8] - [12, 4], 0)
    np.testing.assert_allclose(target_SHW2[:, :, 8:] - [-6, 2], 0)
    assert known_S.all()
    # Patches at the border between them have the mean of both.
    border_SHW2, _ = scope["motion_of_tokens"](motion, (0, 56, 64, 64), size=64)
    np.testing.assert_allclose(border_SHW2[:, :, 0] - [1.5, 1.5], 0)
    still = Motion(vectors_THW2, distance_THW, np.zeros(4, bool), (128, 128))
    target_SHW2, known_S = scope["motion_of_tokens"](still, (0, 0, 128, 128))
    assert not target_SHW2.any()
    assert not known_S.any()


def test_a_decoder_that_scales_frames_says_so(videos):
    """decord's VideoReader(width=170, height=128) halves the frames, and so the box."""
    motion = mgm.track(videos[0])[range(8)]
    whole = mgm.masks(motion, box=(20, 40, 100, 120), size=96, seed=1)
    half = mgm.masks(motion, box=(10, 20, 50, 60), frame=(128, 170), size=96, seed=1)
    np.testing.assert_array_equal(whole, half)


@pytest.mark.slow
def test_a_dataset_on_torchcodec_has_the_same_masks(videos):
    """torchcodec brings no FFmpeg, so `bench` lends it PyAV's."""
    pytest.importorskip("decord")
    ((imported, _, read, permuted),) = (
        code.splitlines() for code in blocks(PAGE, "py") if "torchcodec" in code
    )
    decord_line = next(line for line in DATASET.splitlines() if "decord.VideoReader" in line)
    space = " " * 8
    code = DATASET.replace(decord_line, f"{space}{read}\n{space}{permuted}")
    known = [masked_L for _, masked_L in dataset(DATASET, videos)]
    np.save("known.npy", np.stack(known))
    program = (
        "from measuring import lend_ffmpeg\nlend_ffmpeg()\nimport mgm\nimport numpy as np\n"
        f"{imported}\n{code.partition('for frames_BTHWC')[0]}\n"
        f"clips = Clips({videos})\n"
        "own = np.stack([clips[n][1] for n in range(3)])\n"
        "assert (own == np.load('known.npy')).all()\n"
    )
    Path("program.py").write_text(program)
    path = os.pathsep.join([str(ROOT), str(ROOT / "bench")])
    done = subprocess.run(
        [sys.executable, "program.py"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert torch.from_numpy(np.stack(known)).any()
