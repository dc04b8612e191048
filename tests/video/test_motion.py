import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mgm
from mgm.spec import Clips
from mgm.video.crop import Crop
from mgm.video.decode import read
from mgm.video.motion import Motion, Rotation, cells, rasterise, reference_distance, rotated
from mgm.video.transform import random_crop
from tests.helpers.videos import moving_square, pan, write_video

NAMES = ("source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
VECTOR = np.dtype([(name, np.int32) for name in NAMES])


def slow_paint(vectors, height, width):
    """Paint vectors block by block; past references overwrite future ones."""
    motion_HW2 = np.zeros((-(-height // 8), -(-width // 8), 2), np.float32)
    future_HW = np.zeros(motion_HW2.shape[:2], bool)
    seen = {}
    for is_future in (True, False):
        for v in vectors:
            if (v["source"] > 0) != is_future:
                continue
            left, top = v["dst_x"] - v["w"] / 2, v["dst_y"] - v["h"] / 2
            for x in np.arange(left, left + v["w"], 8):
                for y in np.arange(top, top + v["h"], 8):
                    seen[int(y // 8), int(x // 8)] = v, is_future
    for (row, column), (v, is_future) in seen.items():
        if 0 <= row < motion_HW2.shape[0] and 0 <= column < motion_HW2.shape[1]:
            sign = 1 if is_future else -1
            moved = sign * int(v["motion_x"]), sign * int(v["motion_y"])
            motion_HW2[row, column] = np.divide(moved, int(v["motion_scale"]))
            future_HW[row, column] = is_future
    return motion_HW2, future_HW


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_paint_matches_the_slow_version_and_clips_at_the_edges(height, width, seed):
    rng = np.random.default_rng(seed)
    vectors = []
    for source in (-1, 1):
        for top in range(0, height + 16, 16):
            for left in range(0, width + 16, 16):
                w, h = rng.choice([8, 16], 2)
                blocks = [
                    (left + x, top + y)
                    for x in range(0, 16, w)
                    for y in range(0, 16, h)
                    if rng.random() < 0.7
                ]
                for x, y in blocks:
                    moved = *rng.integers(-40, 40, 2), rng.choice([1, 2, 4])
                    vectors.append((source, w, h, x + w // 2, y + h // 2, *moved))
    vectors = np.array(vectors, VECTOR)
    rng.shuffle(vectors)
    for fast, slow in zip(rasterise(vectors, height, width), slow_paint(vectors, height, width)):
        np.testing.assert_array_equal(fast, slow)


@given(st.integers(1, 40), st.integers(1, 40), st.tuples(*3 * [st.booleans()]))
def test_turned_cells_match_turned_pixels(height, width, flags):
    rng = np.random.default_rng(0)
    motion_HW2 = rng.integers(-9, 9, (cells(height), cells(width), 2)).astype(np.float32)
    future_HW = rng.random(motion_HW2.shape[:2]) < 0.5
    rotation = Rotation(*flags)
    fast, fast_future = rotated(motion_HW2, future_HW, height, width, rotation)

    pixels = rotation.apply(motion_HW2.repeat(8, 0).repeat(8, 1)[:height, :width])
    future = rotation.apply(future_HW.repeat(8, 0).repeat(8, 1)[:height, :width])
    h, w = pixels.shape[:2]
    for row in range(cells(h)):
        for column in range(cells(w)):
            y, x = min(8 * row + 4, h - 1), min(8 * column + 4, w - 1)
            dx, dy = pixels[y, x]
            dx, dy = (dy, dx) if rotation.swapped else (dx, dy)
            moved = -dx if rotation.across else dx, -dy if rotation.down else dy
            assert tuple(fast[row, column]) == moved
            assert fast_future[row, column] == future[y, x]


@given(st.text("IPB", min_size=1, max_size=20))
def test_reference_distance_matches_the_slow_version(kinds):
    references = [i for i, kind in enumerate(kinds) if kind in "IP"]
    past, future = reference_distance(np.array([kind in "IP" for kind in kinds]))
    for t in range(len(kinds)):
        before = [r for r in references if r < t]
        after = [r for r in references if r > t]
        assert past[t] == (t - before[-1] if before else 1)
        assert future[t] == (after[0] - t if after else 1)


def test_slot_displacement_is_the_mean_of_what_is_known_over_the_slots_frames():
    motion, distance = np.zeros((6, 1, 2, 2), np.float32), np.full((6, 1, 2), 2, np.float32)
    motion[1:5, 0, 0] = (8, -4)  # 4 and -2 pixels per frame
    has_motion = np.array([False, True, True, True, False, False])
    found = Motion(motion, distance, has_motion, (8, 16)).displacement(tubelet=2, stride=3)
    assert found.dtype == np.float32
    found *= (16, 8)
    # Over six frames of the video; an I-frame does not count.
    assert found[:, 0, 0].tolist() == [[24, -12], [24, -12], [0, 0]]
    assert not found[:, 0, 1].any()


@pytest.mark.parametrize("step", [(4, 0), (-4, 0), (0, 2)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("h264.mp4", {"bf": 2, "b_adapt": 0, "refs": 1, "b_pyramid": "none"}),
        ("mpeg1.mpg", {"codec": "mpeg1video", "b_frames": 2}),
        ("mpeg4.avi", {"codec": "mpeg4", "b_frames": 2}),
    ],
)
def test_a_known_motion_is_found_whatever_the_reference(tmp_path, name, options, step):
    frames_THWC = moving_square(20, 128, 144, (abs(step[0]), step[1]), side=48)
    if step[0] < 0:
        frames_THWC = frames_THWC[::-1]
    path = write_video(tmp_path / name, frames_THWC, gop=30, **options)
    clip = read(path)
    velocity_THW2 = clip.motion_THW2 / clip.distance_THW[..., None]
    moving = [velocity_THW2[t][velocity_THW2[t].any(-1)] for t in np.flatnonzero(clip.has_motion_T)]
    found = np.array([np.median(vectors, 0) for vectors in moving[1:-1]])
    assert len(found) >= 3
    assert np.abs(found - step).max() <= 1, found


@pytest.mark.parametrize(
    ("speed", "references", "options"),
    [
        (3.5, 1, {"bf": 3, "b_pyramid": "normal", "b_adapt": 0}),
        (3.5, 3, {"bf": 0}),
        (2.37, 3, {"bf": 3, "b_pyramid": "normal", "b_adapt": 0}),
        (2.37, 16, {"bf": 3, "b_pyramid": "none"}),
        (1.25, 16, {"bf": 0}),
    ],
)
def test_the_speed_of_a_pan_is_found_whatever_picture_a_block_refers_to(
    tmp_path, speed, references, options
):
    frames_THWC = np.stack([*pan(speed, 24)])
    path = write_video(tmp_path / "pan.mp4", frames_THWC, refs=references, crf=18, **options)
    for motion in (mgm.track(path)[6:18], read(path, range(6, 18)).motion):
        across_THW = motion.velocity_THW2[motion.has_mv_T][:, 2:-2, 5:-5, 0]
        assert len(across_THW) > 8
        assert abs(across_THW.mean() / speed - 1) < 0.03


def test_mpeg4_b_frames_carry_no_information_and_still_p_frames_do(tmp_path):
    moving = read(write_video(tmp_path / "b.avi", moving_square(13), codec="mpeg4", b_frames=2))
    assert 3 <= moving.has_motion_T.sum() < 6
    assert not moving.motion_THW2[~moving.has_motion_T].any()
    still = read(
        write_video(tmp_path / "p.avi", moving_square(6, step=(0, 0)), codec="mpeg4", b_frames=0)
    )
    assert still.has_motion_T.tolist() == [False] + [True] * 5
    assert not still.motion_THW2.any()


@pytest.mark.parametrize("seed", range(8))
def test_the_largest_motion_under_a_cell_is_that_of_its_pixels(seed):
    """The slow version paints each vector on its pixels and takes the largest under each cell."""
    rng = np.random.default_rng(seed)
    height, width = [(1080, 1920), (240, 320), (64, 64), (487, 333)][seed % 4]
    size, flip, shape = (224, 48)[seed % 3 == 2], bool(seed % 2), (-(-height // 8), -(-width // 8))
    motion = Motion(
        rng.normal(size=(4, *shape, 2)).astype(np.float32),
        rng.integers(1, 4, (4, *shape)).astype(np.float32),
        np.array([True, True, False, True]),
        (height, width),
    )
    clips = Clips(size=size, crop="multiscale" if seed < 4 else "centre")
    box = replace(random_crop(clips, height, width, seed), flip=flip)
    found = motion.under(box, size).magnitude(2)

    top, left = int(box.top // 8), int(box.left // 8)
    bottom, right = int(-(-(box.top + box.height) // 8)), int(-(-(box.left + box.width) // 8))
    part = np.s_[:, top:bottom, left:right]
    distance = motion.distance_THW[part]
    moved = motion.vectors_THW2[part].astype(np.float64)
    velocity = moved * (size / box.width, size / box.height) / distance[..., None]
    speed = np.hypot(*np.moveaxis(velocity, -1, 0))
    speed *= motion.has_mv_T[:, None, None]
    pixels = np.kron(speed[::2] + speed[1::2], np.ones((1, 8, 8)))
    count = size // 8
    for row in range(count):
        for column in range(count):
            y = box.top - 8 * top + np.array([row, row + 1]) * box.height / count
            place = count - 1 - column if flip else column
            x = box.left - 8 * left + np.array([place, place + 1]) * box.width / count
            y0, x0 = int(y[0] + 1e-6), int(x[0] + 1e-6)
            under = pixels[:, y0 : math.ceil(y[1] - 1e-6), x0 : math.ceil(x[1] - 1e-6)]
            np.testing.assert_allclose(found[:, row, column], under.max((1, 2)), rtol=1e-5)


def test_displacement_is_in_units_of_width_and_height_also_under_a_crop_of_a_smaller_copy():
    """A scene that moves by (6, 3) pixels per frame, on 128 x 64 pixels."""
    vectors_THW2 = np.tile(np.float32([6, 3]), (2, 8, 16, 1))
    motion = Motion(vectors_THW2, np.ones((2, 8, 16), np.float32), np.ones(2, bool), (64, 128))
    np.testing.assert_allclose(motion.displacement(2, 1)[0, 0, 0], [2 * 6 / 128, 2 * 3 / 64])
    cut = motion.under(Crop(0, 0, 16, 16, flip=True), 48, (32, 64))
    np.testing.assert_allclose(cut.displacement(2, 1)[0, 0, 0], [-2 * 6 / 32, 2 * 3 / 32])
