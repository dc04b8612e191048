"""Tracks: exact, read in parts, and whole or refused."""

import os
import pickle
import subprocess
import sys
import zipfile
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st

import mgm
from mgm.errors import NoMotion, UserError
from mgm.video.crop import Crop
from mgm.video.decode import read
from mgm.video.track import Facts, Track, TrackWriter, read_track
from tests.helpers.videos import moving_square, stored, write_video

SIDE = st.integers(1, 60)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracks")
    path = write_video(folder / "v.mp4", moving_square(24, 96, 128), bf=2)
    return path, stored(path, folder)[1]


def test_any_frames_are_those_of_the_video(video):
    path, track = video
    for frames in (slice(2, 9, 3), [5, 5, 0], np.array([23, 1]), 7):
        index_T = np.atleast_1d(np.arange(24)[frames])
        motion, known = track[frames], read(path, index_T).motion
        for name, array in vars(known).items():
            np.testing.assert_array_equal(getattr(motion, name), array, err_msg=name)
    assert (len(track), track.facts.size) == (24, (96, 128))
    for frames in ([24], [-1], [0.5]):
        with pytest.raises(UserError, match=r"v\.stored\.npz: "):
            track[frames]


@given(SIDE, SIDE, st.sampled_from(["source", "dis"]), st.integers(0, 99))
def test_cells_of_any_shape_are_kept_without_loss(height, width, vectors, seed):
    rng = np.random.default_rng(seed)
    shape = 4, -(-height // 8), -(-width // 8)
    if vectors == "source":
        motion_THW2 = (rng.integers(-32768, 32768, (*shape, 2)) / 4).astype(np.float32)
    else:
        motion_THW2 = rng.normal(size=(*shape, 2)).astype(np.float16)
    # Reaches to the nearest I- or P-frames, and to others.
    reach_THW = rng.integers(0, (1, 2, 256)[seed % 3], shape).astype(np.uint8)
    writer, file = TrackWriter(), BytesIO()
    # B-frames of VC-1 may be intra pictures, BI.
    kinds = "I", "P", ("B", "BI")[seed % 2], "P"
    for kind, motion_HW2, reach_HW in zip(kinds, motion_THW2, reach_THW):
        writer.add(kind, *((motion_HW2, reach_HW) if kind != "I" else ()))
    facts = Facts(4, 25.0, width, height, width, height, "h264", vectors, 0.0, 0)
    writer.write(file, facts, {})
    motion = Track("memory", file.getvalue())[:]
    np.testing.assert_array_equal(motion.vectors_THW2[1:], motion_THW2[1:].astype(np.float32))
    # Kinds I P B P: the past reference is one frame before, the future one, one after.
    for t, past, future in ((1, 1, 2), (3, 2, 1)):
        known = {0: past, 1: future}
        distances = [known.get(reach, reach - 1) for reach in reach_THW[t].ravel().tolist()]
        assert motion.distance_THW[t].ravel().tolist() == distances
    assert not motion.vectors_THW2[0].any()


def test_a_vector_that_is_not_stored_exactly_is_refused():
    for value in (0.1, 8192.0):
        with pytest.raises(UserError, match="finer than a quarter pixel, or longer"):
            TrackWriter().add("P", np.full((1, 1, 2), value, np.float32))


def test_every_flipped_byte_of_the_motion_and_a_cut_file_are_found(video, tmp_path):
    data = Path(video[1].path).read_bytes()
    known, wrong = video[1][:].vectors_THW2, 0
    for at in range(100, len(data), len(data) // 60):
        path = tmp_path / "v.npz"
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            # Bytes that nothing reads, such as a name in a local header, may change.
            np.testing.assert_array_equal(Track(path)[:].vectors_THW2, known)
        except NoMotion:
            wrong += 1
    assert wrong > 40
    for part in (b"", data[:-1], data[: len(data) // 2], b"noise" * 99):
        path.write_bytes(part)
        with pytest.raises(NoMotion, match="is not a whole track"):
            Track(path)
    with pytest.raises(NoMotion, match=r"none\.npz: cannot be read"):
        Track(tmp_path / "none.npz")


def test_another_format_says_to_prepare_again(video, tmp_path):
    with zipfile.ZipFile(video[1].path) as own, zipfile.ZipFile(tmp_path / "old.npz", "w") as old:
        for name in own.namelist():
            # Format 1 did not state its number.
            old.writestr(name, own.read(name).replace(b'"format": 2, ', b""))
    with pytest.raises(NoMotion, match=r"old\.npz: .*run the same `mgm prepare` again"):
        Track(tmp_path / "old.npz")


def test_a_cut_motion_is_that_under_the_crop(video, rng):
    """Before vectors become floats, or after."""
    track = video[1]
    for n in range(20):
        index_T, flip, frame = rng.integers(24, size=6), bool(n % 2), (96 // (1 + n % 3), 128)
        top, left = rng.uniform(0, frame[0] - 20), rng.uniform(0, frame[1] - 20)
        crop = Crop(top, left, rng.uniform(1, 20), rng.uniform(1, 20), flip)
        size = int(rng.integers(8, 300))
        one = track.motion(index_T, crop, size, frame)
        two = track.motion(index_T).under(crop, size, frame)
        for name, array in vars(two).items():
            np.testing.assert_array_equal(getattr(one, name), array, err_msg=name)
        np.testing.assert_array_equal(one.magnitude(2), two.magnitude(2))
        np.testing.assert_array_equal(one.displacement(2, 4), two.displacement(2, 4))


def test_kinds_and_times_are_those_that_ffmpeg_shows(video):
    path, track = video
    with av.open(str(path)) as container:
        shown = [(PictureType(f.pict_type).name, f.time) for f in container.decode(video=0)]
    for known in (track, mgm.track(path)):
        assert list(zip(known.kind_T.tolist(), known.time_T.tolist())) == shown
        assert known.fps == 25
        motion = known[5:21:2]
        assert list(zip(motion.kind_T.tolist(), motion.time_T.tolist())) == shown[5:21:2]
        assert motion[1:3].time_T.tolist() == known.time_T[[7, 9]].tolist()


def test_a_track_that_is_written_again_is_read_again(tmp_path):
    for frames in (8, 12):
        _, track = stored(write_video(tmp_path / "v.mp4", moving_square(frames)), tmp_path)
        assert len(read_track(track.path)) == frames
        assert (known := read_track(track.path)) is read_track(track.path)
    # Of the same size.
    os.utime(track.path, ns=(0, 0))
    assert read_track(track.path) is not known


def test_a_track_is_pickled_and_read_by_forks(video):
    again = pickle.loads(pickle.dumps(video[1]))
    with get_context("fork").Pool(2) as pool:
        for motion in pool.map(again.motion, [[1, 2], [3, 4]]):
            assert motion.has_mv_T.all()


def test_numpy_opens_a_track(video):
    arrays = np.load(video[1].path)
    assert {"frames", "motion"} <= set(arrays)
    assert arrays["frames"]["kind"][0] == b"I"


def test_reading_a_track_imports_neither_torch_nor_pyav(video):
    code = """
import sys
sys.modules.update(dict.fromkeys(("torch", "av", "cv2")))
import mgm
mgm.masks(mgm.track(sys.argv[1])[:16], "mgm")
"""
    subprocess.run([sys.executable, "-c", code, video[1].path], check=True)
