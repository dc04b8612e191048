import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgm.video import inspect_video, read_clip, read_track, slot_displacement, slot_magnitude
from mgm.video.motion import (
    VECTOR,
    Rotation,
    cells,
    compensated,
    frame_difference,
    rasterise,
    reference_distance,
    rotated,
)
from tests.helpers.videos import CARRIED, moving_square, rotate_metadata, write_video

# The others are read as their frames are shown, turned.
UPRIGHT = [path for path in CARRIED if path.stem != "rotated"]


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
            motion_HW2[row, column] = [
                sign * int(v["motion_x"]) / int(v["motion_scale"]),
                sign * int(v["motion_y"]) / int(v["motion_scale"]),
            ]
            future_HW[row, column] = is_future
    return motion_HW2, future_HW


@pytest.mark.parametrize("path", UPRIGHT, ids=lambda path: path.name)
def test_vectors_of_carried_clips_are_those_pyav_exports(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.flags2 |= 1 << 28
        frames = [frame for frame, _ in zip(container.decode(stream), range(14))]
        exported = [frame.side_data.get("MOTION_VECTORS") for frame in frames]
        kinds = [frame.pict_type for frame in frames]
        assert any(data is not None for data in exported)
        clip, again = read_clip(path, range(14)), read_clip(path, range(14))
        for array, same in zip(vars(clip.motion).values(), vars(again.motion).values()):
            np.testing.assert_array_equal(array, same)
        for t, (data, kind) in enumerate(zip(exported, kinds)):
            silent = data is None or (
                path.suffix == ".avi" and kind == av.video.frame.PictureType.B
            )
            assert clip.has_motion_T[t] == (not silent)
            if data is None:
                assert not clip.motion_THW2[t].any()
                continue
            vectors = data.to_ndarray()
            # MPEG-4 B-frames: FFmpeg exports zeros. If it exports true vectors one day, use them.
            if silent:
                assert not vectors["motion_x"].any()
                assert not vectors["motion_y"].any()
            motion_HW2, _ = slow_paint(vectors, frames[t].height, frames[t].width)
            np.testing.assert_array_equal(clip.motion_THW2[t], motion_HW2)


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
                vectors += [
                    (
                        source,
                        w,
                        h,
                        x + w // 2,
                        y + h // 2,
                        *rng.integers(-40, 40, 2),
                        rng.choice([1, 2, 4]),
                    )
                    for x, y in blocks
                ]
    vectors = np.array(vectors, VECTOR)
    rng.shuffle(vectors)
    half = len(vectors) // 2  # two frames in one go, and one without vectors between them
    for fast_THW, *slow_T in zip(
        rasterise(vectors, [half, 0, len(vectors) - half], height, width),
        *(
            slow_paint(part, height, width)
            for part in (vectors[:half], vectors[:0], vectors[half:])
        ),
    ):
        np.testing.assert_array_equal(fast_THW, np.stack(slow_T))


@given(st.integers(1, 40), st.integers(1, 40), st.tuples(*3 * [st.booleans()]))
def test_turned_cells_match_turned_pixels(height, width, flags):
    rng = np.random.default_rng(0)
    motion_HW2 = rng.integers(-9, 9, (cells(height), cells(width), 2)).astype(np.float32)
    future_HW = rng.random(motion_HW2.shape[:2]) < 0.5
    rotation = Rotation(*flags)
    (fast,), (fast_future,) = rotated(motion_HW2[None], future_HW[None], height, width, rotation)

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
    past, future = reference_distance(np.arange(len(kinds)), np.array(references, int))
    for t in range(len(kinds)):
        before = [r for r in references if r < t]
        after = [r for r in references if r > t]
        assert past[t] == (t - before[-1] if before else 1)
        assert future[t] == (after[0] - t if after else 1)


def test_slot_magnitude_divides_by_distance_and_skips_uninformed_frames():
    rng = np.random.default_rng(0)
    motion, distance = (
        rng.normal(size=(6, 2, 3, 2)).astype(np.float32),
        rng.integers(1, 4, (6, 2, 3)).astype(np.float32),
    )
    has_motion = np.array([False, True, True, True, False, False])
    slow = np.zeros((3, 2, 3))
    for t in range(6):
        if has_motion[t]:
            slow[t // 2] += (motion[t, ..., 0] ** 2 + motion[t, ..., 1] ** 2) ** 0.5 / distance[t]
    fast = slot_magnitude(motion, distance, has_motion, 2)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, slow, rtol=1e-6)
    assert not fast[2].any()


def test_slot_displacement_is_the_mean_of_what_is_known_over_the_slots_frames():
    motion, distance = np.zeros((6, 1, 2, 2), np.float32), np.full((6, 1, 2), 2, np.float32)
    motion[1:5, 0, 0] = (8, -4)  # 4 and -2 pixels per frame
    has_motion = np.array([False, True, True, True, False, False])
    found = slot_displacement(motion, distance, has_motion, tubelet=2, stride=3)
    assert found.dtype == np.float32
    assert found[:, 0, 0].tolist() == [
        [24, -12],
        [24, -12],
        [0, 0],
    ]  # over six frames of the video; an I-frame does not count
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
    clip = read_clip(path, range(20))
    assert {"I", "P", "B"} == set(inspect_video(path).pictures)
    velocity_THW2 = clip.motion_THW2 / clip.distance_THW[..., None]
    moving = [velocity_THW2[t][velocity_THW2[t].any(-1)] for t in np.flatnonzero(clip.has_motion_T)]
    found = np.array([np.median(vectors, 0) for vectors in moving[1:-1]])
    assert len(found) >= 3
    assert np.abs(found - step).max() <= 1, found


def test_mpeg4_b_frames_carry_no_information_and_still_p_frames_do(tmp_path):
    moving = read_clip(
        write_video(tmp_path / "b.avi", moving_square(13), codec="mpeg4", b_frames=2), range(13)
    )
    assert 3 <= moving.has_motion_T.sum() < 6
    assert not moving.motion_THW2[~moving.has_motion_T].any()
    still = read_clip(
        write_video(tmp_path / "p.avi", moving_square(6, step=(0, 0)), codec="mpeg4", b_frames=0),
        range(6),
    )
    assert still.has_motion_T.tolist() == [False] + [True] * 5
    assert not still.motion_THW2.any()


@pytest.mark.parametrize(("codec", "rotated"), [("libx264", 0), ("libx264", 90), ("mpeg4", 0)])
def test_all_vectors_of_a_file_are_those_that_read_clip_finds(tmp_path, codec, rotated):
    path = write_video(tmp_path / "v.mp4", moving_square(24, 72, 100), codec, b_frames=2, gop=10)
    if rotated:
        rotate_metadata(path, rotated, 72, 100)
    track, clip = read_track(path), read_clip(path, range(24))
    motion = track[:]
    assert np.array_equal(track.has_mv_T, clip.has_motion_T)
    assert 0 < track.has_mv_T.sum() < 24
    assert np.array_equal(motion.vectors_THW2, clip.motion_THW2)
    assert np.array_equal(motion.distance_THW, clip.distance_THW)
    assert track.size == (clip.height, clip.width)
    assert len(track.kinds_T) == 24
    n = np.flatnonzero(track.has_mv_T)[track.has_mv_T.sum() // 2]
    assert motion.speed[n, 4, 5] == pytest.approx(
        np.linalg.norm(motion.vectors_THW2[n, 4, 5]) / motion.distance_THW[n, 4, 5]
    )
    assert motion.speed.max() > 1


def test_a_codec_without_vectors_has_none(tmp_path):
    track = read_track(write_video(tmp_path / "v.webm", moving_square(6), codec="libvpx-vp9"))
    assert (len(track.kinds_T), track.has_mv_T.any()) == (6, False)


# The camera's motion


def camera(rows, columns, a, b, c):
    """(rows, columns, 2): v = a + b x + c y in pixels, with x and y from -1 to 1."""
    field = np.zeros((rows, columns, 2))
    for i in range(rows):
        for j in range(columns):
            y = 2 * i / (rows - 1) - 1 if rows > 1 else -1
            x = 2 * j / (columns - 1) - 1 if columns > 1 else -1
            field[i, j] = np.array(a) + np.array(b) * x + np.array(c) * y
    return field


def slow_affine(velocity_HW2, rounds=8):
    """The robust fit of one frame, cell by cell, by weighted least squares from NumPy."""
    rows, columns, _ = velocity_HW2.shape
    fit_HW2 = np.empty_like(velocity_HW2)
    fit_HW2[:] = np.median(velocity_HW2.reshape(-1, 2), 0)
    places = [(i, j) for i in range(rows) for j in range(columns)]
    terms = np.array([camera(rows, columns, (1, 0), (0, 0), (0, 0))[..., 0].ravel()] * 3).T
    terms[:, 1] = camera(rows, columns, (0, 0), (1, 0), (0, 0))[..., 0].ravel()
    terms[:, 2] = camera(rows, columns, (0, 0), (0, 0), (1, 0))[..., 0].ravel()
    for _ in range(rounds):
        far = [np.linalg.norm(velocity_HW2[place] - fit_HW2[place]) for place in places]
        spread = max(1.48 * np.median(far), 0.1)
        root = np.array([1 / (1 + r**2 / spread**2) for r in far])  # square root of the weight
        given = np.array([velocity_HW2[place] for place in places]) * root[:, None]
        found = np.linalg.lstsq(terms * root[:, None], given, rcond=None)[0]
        for place, term in zip(places, terms):
            fit_HW2[place] = term @ found
    return fit_HW2


numbers = st.tuples(st.floats(-9, 9), st.floats(-9, 9))
sides = st.integers(2, 9)


@settings(deadline=None, max_examples=30)
@given(sides, sides, st.integers(0, 99))
def test_the_affine_fit_is_that_of_the_slow_version(rows, columns, seed):
    rng = np.random.default_rng(seed)
    velocity = camera(rows, columns, *rng.normal(0, 4, (3, 2))) + rng.normal(0, 0.5, (3, 1, 1, 2))
    velocity = velocity + rng.normal(0, 0.3, (3, rows, columns, 2))
    velocity[:, 0, 0] += 20
    distance = rng.integers(1, 4, (3, rows, columns)).astype(np.float32)
    motion = (velocity * distance[..., None]).astype(np.float32)
    for method in ("median", "affine"):
        found = compensated(motion, distance, method) / distance[..., None]
        for t in range(3):
            own = motion[t].astype(np.float64) / distance[t][..., None]
            median = np.median(own.reshape(-1, 2), 0)
            slow = own - (median if method == "median" else slow_affine(own))
            slow[np.linalg.norm(slow, axis=-1) < 0.01] = 0
            np.testing.assert_allclose(found[t], slow, atol=2e-3)


@settings(deadline=None)
@given(sides, sides, numbers, st.sampled_from(["median", "affine"]))
def test_a_pan_leaves_no_motion(rows, columns, pan, method):
    distance = np.random.default_rng(0).integers(1, 4, (2, rows, columns)).astype(np.float32)
    motion = (camera(rows, columns, pan, (0, 0), (0, 0)) * distance[..., None]).astype(np.float32)
    assert not compensated(motion, distance, method).any()


@settings(deadline=None)
@given(
    sides,
    sides,
    numbers,
    st.floats(-5, 5),
    st.floats(-5, 5),
)
def test_affine_fits_remove_zoom_and_rotation(rows, columns, pan, zoom, rotation):
    motion = camera(rows, columns, pan, (zoom, rotation), (-rotation, zoom)).astype(np.float32)[
        None
    ]
    ones = np.ones(motion.shape[:3], np.float32)
    assert not compensated(motion, ones, "affine").any()


def test_a_frame_without_motion_and_a_single_cell_stay_zero():
    for shape in ((1, 1, 1), (2, 1, 5), (2, 4, 4)):
        zero = np.zeros((*shape, 2), np.float32)
        for method in ("median", "affine"):
            found = compensated(zero, np.ones(shape, np.float32), method)
            assert found.dtype == np.float32
            assert not found.any()


@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(5, 30), st.integers(5, 30), st.integers(0, 99)
)
def test_frame_difference_is_that_of_the_slow_version(slots, tubelet, height, width, seed):
    rng = np.random.default_rng(seed)
    frames_THWC = rng.integers(0, 256, (slots * tubelet, height, width, 3), np.uint8)
    found_SHW = frame_difference(frames_THWC, tubelet)
    grey_THW = frames_THWC @ np.array([0.299, 0.587, 0.114])
    rows, columns = (max(side // 8, 1) for side in (height, width))
    for slot, row, column in np.ndindex(slots, rows, columns):
        down, across = (
            slice(at * side // cells, (at + 1) * side // cells)
            for at, side, cells in ((row, height, rows), (column, width, columns))
        )
        places = np.s_[down, across]
        total = sum(
            np.abs(grey_THW[t][places] - grey_THW[t - 1][places]).mean()
            for t in range(slot * tubelet, (slot + 1) * tubelet)
            if t > 0
        )
        # Rounding of float32 sums of up to 900 values of at most 255.
        assert found_SHW[slot, row, column] == pytest.approx(total, rel=1e-4, abs=1e-3)
