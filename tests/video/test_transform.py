import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mgm.spec import Clips
from mgm.video import transform
from mgm.video.decode import Clip
from mgm.video.transform import Box, apply, multiscale, resized

SIDE = st.integers(16, 400)


def random_clip(frames=3, height=50, width=70, seed=0) -> Clip:
    rng = np.random.default_rng(seed)
    h, w = -(-height // 8), -(-width // 8)
    return Clip(
        rng.integers(0, 256, (frames, height, width, 3), np.uint8),
        rng.normal(size=(frames, h, w, 2)).astype(np.float32),
        rng.integers(1, 4, (frames, h, w)).astype(np.float32),
        rng.random(frames) < 0.5,
    )


@given(SIDE, SIDE, st.sampled_from(["multiscale", "resized", "centre"]), st.integers(0, 99))
def test_boxes_lie_in_the_frame(height, width, crop, seed):
    box = transform.training_box(
        Clips(crop=crop, size=48), height, width, np.random.default_rng(seed)
    )
    assert box.top >= 0
    assert box.left >= 0
    assert 0 < box.height <= height - box.top + 1e-9
    assert 0 < box.width <= width - box.left + 1e-9


def test_multiscale_has_coupled_scales_and_thirteen_places():
    rng = np.random.default_rng(0)
    boxes = {multiscale(256, 340, 224, rng) for _ in range(4000)}
    sides = [256, 224, 192, 168]
    pairs = {(sides.index(box.height), sides.index(box.width)) for box in boxes}
    assert pairs == {(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    places = {(box.top, box.left) for box in boxes if (box.height, box.width) == (192, 168)}
    down, right = (256 - 192) // 4, (340 - 168) // 4
    corners_and_middles = {(i * down, j * right) for i in (0, 2, 4) for j in (0, 2, 4)}
    assert places == corners_and_middles | {(i * down, j * right) for i in (1, 3) for j in (1, 3)}


def test_resized_covers_the_area_and_ratio_it_should():
    rng = np.random.default_rng(0)
    boxes = [resized(256, 340, rng) for _ in range(3000)]
    area = np.array([box.height * box.width / (256 * 340) for box in boxes])
    ratio = np.array([box.width / box.height for box in boxes])
    assert 0.07 < area.min() < 0.1
    assert area.max() > 0.9
    assert 0.74 < ratio.min() < 0.78
    assert 1.29 < ratio.max() < 1.35
    narrow = resized(
        10, 400, np.random.default_rng(0)
    )  # no box fits: the largest central one within the ratios
    assert (narrow.height, narrow.width) == (10, 13)


@pytest.mark.parametrize(
    "box", [Box(3, 5, 40, 61), Box(0, 0, 50, 70), Box(10, 20, 17, 13), Box(1, 2, 48, 48)]
)
@pytest.mark.parametrize("flip", [False, True])
def test_pretraining_crops_are_resized_as_pillow_does(box, flip):
    clip = random_clip()
    out = apply(clip, box, 48, flip)
    assert out.frames_THWC.shape == (3, 48, 48, 3)
    for frame, got in zip(clip.frames_THWC, out.frames_THWC):
        image = Image.fromarray(frame).crop(
            (box.left, box.top, box.left + box.width, box.top + box.height)
        )
        expected = np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR))[
            :, :: -1 if flip else 1
        ]
        assert np.abs(got.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("height", "width"), [(50, 70), (50, 90), (200, 133), (97, 61), (48, 80), (30, 41)]
)
@pytest.mark.parametrize("views", [1, 3])
def test_test_views_are_those_of_videomae(height, width, views):
    """V's kinetics.py step by step:

    `Resize(short_side)` by cv2 with INTER_LINEAR, then squares along the long side.
    """
    clip = random_clip(height=height, width=width)
    tall, wide = (
        (48, int(48 * width / height)) if height < width else (int(48 * height / width), 48)
    )
    frames = np.stack(
        [
            cv2.resize(frame, (wide, tall), interpolation=cv2.INTER_LINEAR)
            for frame in clip.frames_THWC
        ]
    )
    step = (max(tall, wide) - 48) / max(views - 1, 2)
    for view in range(views):
        start = int((view if views > 1 else 1) * step)
        expected = (
            frames[:, start : start + 48] if tall >= wide else frames[:, :, start : start + 48]
        )
        out = apply(clip, transform.test_box(height, width, view, views, 48), 48, flip=False)
        assert np.abs(out.frames_THWC.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("seed", range(6))
def test_finetuning_crops_are_resized_as_videomae_does(seed):
    """V's video_transforms.py, `random_resized_crop`:

    F.interpolate of the crop, in floating point, without antialiasing.
    """
    clip = random_clip(height=250, width=170)
    box = resized(250, 170, np.random.default_rng(seed))
    crop = clip.frames_THWC[:, box.top : box.top + box.height, box.left : box.left + box.width]
    crop_TCHW = torch.from_numpy(crop).permute(0, 3, 1, 2).double()
    expected = torch.nn.functional.interpolate(
        crop_TCHW, size=(48, 48), mode="bilinear", align_corners=False
    ).permute(0, 2, 3, 1)
    assert np.abs(apply(clip, box, 48, flip=False).frames_THWC - expected.numpy()).max() <= 1


@given(
    st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 40), st.booleans()
)
def test_motion_is_cut_scaled_and_flipped_like_the_pixels(top, left, height, width, flip):
    clip, box = random_clip(), Box(top, left, height, width)
    out = apply(clip, box, 24, flip)
    assert out.motion_THW2.shape == (3, 3, 3, 2)
    np.testing.assert_array_equal(out.has_motion_T, clip.has_motion_T)
    for row in range(3):
        for column in range(3):
            y = int(top + (row + 0.5) / 3 * height)
            x = int(left + ((2 - column if flip else column) + 0.5) / 3 * width)
            dx, dy = clip.motion_THW2[:, y // 8, x // 8].T
            expected = np.stack([dx * 24 / width * (-1 if flip else 1), dy * 24 / height], -1)
            np.testing.assert_allclose(out.motion_THW2[:, row, column], expected, rtol=1e-5)
            np.testing.assert_array_equal(
                out.distance_THW[:, row, column], clip.distance_THW[:, y // 8, x // 8]
            )
