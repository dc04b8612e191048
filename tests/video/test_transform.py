from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mgm.errors import UserError
from mgm.spec import Clips
from mgm.video import transform
from mgm.video.clip import Clip
from mgm.video.crop import Crop, resize
from mgm.video.motion import Motion
from mgm.video.transform import multiscale, resized

SIDE = st.integers(1, 400)


def random_clip(frames=3, height=50, width=70, seed=0) -> Clip:
    rng = np.random.default_rng(seed)
    h, w = -(-height // 8), -(-width // 8)
    frames_THWC = rng.integers(0, 256, (frames, height, width, 3), np.uint8)
    motion = Motion(
        rng.normal(size=(frames, h, w, 2)).astype(np.float32),
        rng.integers(1, 4, (frames, h, w)).astype(np.float32),
        rng.random(frames) < 0.5,
        (height, width),
    )
    return Clip(frames_THWC, motion)


@given(SIDE, SIDE, st.sampled_from(["multiscale", "resized", "centre"]), st.integers(0, 99))
def test_cropes_lie_in_the_frame(height, width, crop, seed):
    box = transform.random_crop(Clips(crop=crop, size=48), height, width, seed)
    assert box.top >= 0
    assert box.left >= 0
    assert 0 < box.height <= height - box.top + 1e-9
    assert 0 < box.width <= width - box.left + 1e-9


def test_multiscale_has_coupled_scales_and_thirteen_places(rng):
    boxes = {multiscale(256, 340, 224, rng) for _ in range(4000)}
    sides = [256, 224, 192, 168]
    pairs = {(sides.index(box.height), sides.index(box.width)) for box in boxes}
    assert pairs == {(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    places = {(box.top, box.left) for box in boxes if (box.height, box.width) == (192, 168)}
    down, right = (256 - 192) // 4, (340 - 168) // 4
    corners_and_middles = {(i * down, j * right) for i in (0, 2, 4) for j in (0, 2, 4)}
    assert places == corners_and_middles | {(i * down, j * right) for i in (1, 3) for j in (1, 3)}


def test_resized_covers_the_area_and_ratio_it_should(rng):
    boxes = [resized(256, 340, rng) for _ in range(3000)]
    area = np.array([box.height * box.width / (256 * 340) for box in boxes])
    ratio = np.array([box.width / box.height for box in boxes])
    assert 0.07 < area.min() < 0.1
    assert area.max() > 0.9
    assert 0.74 < ratio.min() < 0.78
    assert 1.29 < ratio.max() < 1.35
    # No box fits: the largest central one within the ratios.
    narrow = resized(10, 400, rng)
    assert (narrow.height, narrow.width) == (10, 13)
    # Aspects are log-uniform. Boxes below 0.4 of the area all fit. 5 standard errors are 0.03.
    assert abs(np.log(ratio[area < 0.4]).mean()) < 0.03


@pytest.mark.parametrize("side", [20, 40, 48, 61, 120, 200])
@pytest.mark.parametrize("flip", [False, True])
def test_crops_are_scaled_nearly_as_pillow_does(side, flip):
    """Pillow scales bilinearly and averages over all pixels, as VideoMAE's pretraining does."""
    y, x = np.mgrid[:220, :260]
    smooth = np.stack([np.sin(x / 9), np.cos(y / 11), np.sin((x + y) / 13)], -1)
    frames_THWC = (128 + 100 * smooth).astype(np.uint8)[None]
    box = Crop(3, 5, side, side + 7, flip)
    (got,) = Clip(frames_THWC).cut(box, 48).frames_THWC
    image = Image.fromarray(frames_THWC[0]).crop((5, 3, 5 + side + 7, 3 + side))
    expected = np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR))
    off = np.abs(got.astype(int) - expected[:, :: -1 if flip else 1])
    assert off.mean() < 1.5
    assert off.max() < 16


@pytest.mark.parametrize("size", [(40, 70), (50, 60), (60, 80)])
def test_crops_that_shrink_little_are_scaled_as_videomaes_opencv_does(size):
    frame = random_clip().frames_THWC[0]
    expected = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize(frame, *size), expected)


@pytest.mark.parametrize("size", [(31, 44), (20, 28)])
def test_crops_that_shrink_by_more_are_means_of_all_pixels(size):
    frame = random_clip().frames_THWC[0]
    expected = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resize(frame, *size), expected)


@pytest.mark.parametrize(("height", "width"), [(50, 70), (200, 133), (97, 61), (48, 48)])
@pytest.mark.parametrize("views", [1, 3])
def test_test_views_are_squares_along_the_long_side(height, width, views):
    """As in VideoMAE's kinetics.py, which scales the frame before."""
    crops = [transform.view_crop(height, width, view, views) for view in range(views)]
    short, slack = min(height, width), abs(height - width)
    offsets = [crop.top + crop.left for crop in crops]
    assert offsets == ([slack // 2] if views == 1 else [0, slack // 2, slack])
    for crop in crops:
        assert (crop.height, crop.width) == (short, short)
        crop.require_in(height, width)


@given(
    st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 40), st.booleans()
)
def test_motion_is_cut_scaled_and_flipped_like_the_pixels(top, left, height, width, flip):
    clip, box = random_clip(), Crop(top, left, height, width)
    out = clip.cut(replace(box, flip=flip), 24)
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


def test_a_clip_is_cut_once_and_within_its_frame():
    clip = random_clip(height=100, width=140)
    with pytest.raises(UserError, match="under a crop already"):
        clip.cut_to(64).cut_to(64)
    with pytest.raises(UserError, match="is not in a frame of 100 x 140"):
        clip.cut(Crop(60, 0, 41, 8), 64)


LENGTH, FRAMES, STEP = st.integers(1, 300), st.integers(1, 16), st.integers(1, 5)


@given(LENGTH, FRAMES, STEP, st.sampled_from(["stride", "window", "segments"]), st.integers(0, 9))
def test_indices_are_in_range_sorted_and_a_function_of_the_generator(
    n, frames, step, sampling, seed
):
    clips = Clips(frames=frames, stride=step, sampling=sampling)
    one, two = (transform.training_indices(clips, n, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    views = [transform.view_indices(clips, n, view, 3) for view in range(3)]
    for index_T in (one, *views):
        assert index_T.shape == (frames,)
        assert index_T.dtype == np.int64
        assert index_T.min() >= 0
        assert index_T.max() < n
        assert (np.diff(index_T) >= 0).all()


@given(LENGTH, FRAMES, STEP, st.integers(0, 9))
def test_stride_is_exact_where_the_video_is_long_enough(n, frames, step, seed):
    index_T = transform.stride(n, frames, step, np.random.default_rng(seed))
    if n > (frames - 1) * step:
        assert (np.diff(index_T) == step).all()
    else:
        assert index_T.tolist() == [min(t * step, n - 1) for t in range(frames)]


def kinetics_window(n, frames, rate, rng):
    """Draw a window as VideoMAE's kinetics.py does, line by line."""
    converted = frames * rate
    if n <= converted:
        index = np.linspace(0, n, num=n // rate)
        index = np.concatenate((index, np.ones(frames - n // rate) * n))
        return np.clip(index, 0, n - 1).astype(np.int64)
    end = rng.integers(converted, n)
    start = end - converted
    return np.clip(np.linspace(start, end, num=frames), start, end - 1).astype(np.int64)


@given(LENGTH, FRAMES, STEP, st.integers(0, 9))
def test_window_matches_videomae(n, frames, step, seed):
    found, known = (
        draw(n, frames, step, np.random.default_rng(seed))
        for draw in (transform.window, kinetics_window)
    )
    np.testing.assert_array_equal(found, known)


@given(LENGTH, FRAMES, st.integers(0, 9))
def test_segments_take_one_frame_of_each(n, frames, seed):
    index_T = transform.segments(n, frames, np.random.default_rng(seed))
    if n < frames:
        assert index_T.tolist() == [0] * frames
    else:
        assert (index_T // (n // frames)).tolist() == list(range(frames))


def test_each_segment_has_a_draw_of_its_own(rng):
    index_T = transform.segments(160, 16, rng)
    assert len({*(index_T % 10).tolist()}) > 3


@given(st.integers(1, 300))
def test_segment_views_match_videomae(n):
    """VideoMAE's ssv2.py sorts 32 indices, and view k takes [k::2]."""
    tick = n / 16
    both = sorted(
        [int(tick / 2 + tick * x) for x in range(16)] + [int(tick * x) for x in range(16)]
    )
    for view in (0, 1):
        assert transform.segment_view(n, 16, view, 2).tolist() == both[view::2]
    assert transform.segment_view(n, 16, 0, 1).tolist() == [
        int(tick / 2 + tick * x) for x in range(16)
    ]


@given(LENGTH, st.integers(1, 5))
def test_stride_views_spread_evenly_from_the_first_frame_to_the_last(n, views):
    index_VT = np.array([transform.stride_view(n, 8, 4, view, views) for view in range(views)])
    if n > 28:
        assert (np.diff(index_VT) == 4).all()
    if views > 1:
        assert index_VT[0, 0] == 0
        assert index_VT[-1, -1] >= n - 4
        assert np.ptp(np.diff(index_VT[:, 0])) <= 4


def test_every_frame_with_room_is_a_start(rng):
    assert {int(transform.stride(12, 4, 3, rng)[0]) for _ in range(200)} == {0, 1, 2}
