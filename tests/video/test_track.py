"""Tracks: slices have the motion of the clips, whoever reads them, and damage is found."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgm.errors import NoMotion, UserError
from mgm.video import Track, read_clip, read_track
from mgm.video.track import END, MAGIC, TrackWriter, pack_cells
from mgm.video.vectors import write_track
from tests.helpers.videos import CARRIED, moving_square, rotate_metadata, write_video


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    """Return videos of each codec with motion vectors, and a rotated one."""
    folder = tmp_path_factory.mktemp("videos")
    frames = moving_square(40, 100, 132, (6, 2), side=40)
    paths = [
        write_video(folder / "h264.mp4", frames, gop=12, b_frames=3),
        write_video(folder / "turned.mp4", frames),
        write_video(folder / "mpeg4.avi", frames, "mpeg4", gop=12, b_frames=2),
        write_video(folder / "mpeg1.mpg", frames[:, :96, :128], "mpeg1video", gop=12, b_frames=2),
    ]
    rotate_metadata(paths[1], 90)
    return [*paths, *map(str, CARRIED)]


def written(path: str, out: Path) -> Track:
    with out.open("wb") as file:
        write_track(path, file)
    return Track(out)


def assert_equal(one, other):
    for name in ("vectors_THW2", "distance_THW", "has_mv_T"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.frame == other.frame


def test_slices_have_the_motion_of_clips(paths, tmp_path):
    rng = np.random.default_rng(0)
    for path in paths:
        track = written(path, tmp_path / "v.track")
        every = read_clip(path, range(len(track))).motion
        assert_equal(track[:], every)
        assert_equal(track[3:20:4], every[3:20:4])
        for _ in range(5):
            index_T = rng.integers(0, len(track), 7)
            assert_equal(track[index_T], read_clip(path, index_T).motion)
        assert_equal(read_track(path)[:], every)


def test_a_slice_reads_its_frames_alone(paths, tmp_path, monkeypatch):
    track, read = written(paths[0], tmp_path / "v.track"), []

    def counted(file, count, start, real=os.pread):
        read.append(count)
        return real(file, count, start)

    monkeypatch.setattr(os, "pread", counted)
    track[[7, 5]]
    assert sorted(read) == sorted(track._size_T[[5, 7]].tolist())


def _slice(track: Track) -> np.ndarray:
    return track[[3, 9, 4]].vectors_THW2


def test_a_track_is_pickled_and_used_by_threads_and_forks(paths, tmp_path):
    for track in (written(paths[0], tmp_path / "v.track"), read_track(paths[0])):
        known = _slice(track)
        with ThreadPoolExecutor(4) as threads:
            several = list(threads.map(_slice, [track] * 40))
        with multiprocessing.get_context("fork").Pool(2) as forks:
            several += forks.map(_slice, [track] * 4)
        several.append(_slice(pickle.loads(pickle.dumps(track))))
        for each in several:
            np.testing.assert_array_equal(each, known)


def test_reading_a_track_imports_neither_torch_nor_pyav(paths, tmp_path):
    written(paths[0], tmp_path / "v.track")
    code = (
        "import sys, mgm\n"
        f"assert mgm.track({str(tmp_path / 'v.track')!r})[[5]].vectors_THW2.any()\n"
        "assert not {'torch', 'av', 'cv2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("frames", [[40], [-1], [0.5], [[1]], "ab", None])
def test_frames_that_are_not_there_are_one_line(paths, frames):
    with pytest.raises(UserError, match=r"h264\.mp4: frame"):
        read_track(paths[0])[frames]


def test_a_flipped_byte_is_found_wherever_it_lies(paths, tmp_path):
    path = tmp_path / "v.track"
    written(paths[0], path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 11):
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        with pytest.raises(NoMotion, match=r"v\.track: .*mgm prepare") as error:
            Track(path)[:]
        assert "\n" not in str(error.value)
    for data in (b"", whole[:-1], whole[1:], b"no track at all", whole + whole[:3]):
        path.write_bytes(data)
        with pytest.raises(NoMotion, match=r"v\.track: "):
            Track(path)[:]
    path.unlink()
    with pytest.raises(NoMotion, match=r"v\.track: no such track"):
        Track(path)


@pytest.mark.parametrize("table", [b"", b"{}\n", b'{"frames": 4000000000}\n', b"x" * 100])
def test_a_foreign_table_is_one_line(table, tmp_path):
    packed = zlib.compress(table)
    data = packed + END.pack(len(packed), zlib.crc32(packed), MAGIC)
    with pytest.raises(NoMotion, match="v: has changed"):
        Track("v", data)


def test_a_file_that_changes_while_it_is_open_is_named(paths, tmp_path):
    track = written(paths[0], tmp_path / "v.track")
    written(paths[3], tmp_path / "v.track")
    with pytest.raises(NoMotion, match=r"v\.track: the motion of frame \d+ has changed"):
        track[:]


def test_a_video_without_vectors_has_times_and_no_motion(tmp_path):
    for codec, options, says in (
        ("libvpx-vp9", {}, "vp9 has no motion vectors"),
        ("libx264", {"g": 1}, "h264, all I-frames, has no motion vectors"),
    ):
        path = write_video(tmp_path / "v.mp4", moving_square(12), codec, **options)
        track = read_track(path)
        assert (len(track), track.timeline is None) == (12, False)
        with pytest.raises(NoMotion, match=says):
            track[:]


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from(["codec", "dis"]),
    st.integers(0, 99),
)
def test_cells_of_any_shape_are_packed_without_loss(rows, columns, values, method, seed):
    rng = np.random.default_rng(seed)
    file, frames = BytesIO(), []
    writer = TrackWriter(file)
    for t in range(4):
        vectors_HW2 = rng.integers(-2 * values, 2 * values, (rows, columns, 2)) / np.float32(4)
        future_HW = rng.random((rows, columns)) < (0.5 if t % 2 else 0)
        if method == "dis":
            vectors_HW2 = rng.normal(size=vectors_HW2.shape).astype(np.float16)
        frames.append((vectors_HW2, future_HW))
        writer.add(t, "B" if t % 2 else "P", t % 2 == 0, pack_cells(vectors_HW2, future_HW))
    source = SimpleNamespace(path=__file__, format="mov", timeline=None)
    writer.finish(source, 4, (8 * rows, 8 * columns), method=method, codec="h264", vectors=True)
    motion = Track("memory", file.getvalue())[:]
    for t, (vectors_HW2, future_HW) in enumerate(frames):
        np.testing.assert_array_equal(motion.vectors_THW2[t], vectors_HW2.astype(np.float32))
        # Frames 0 and 2 are references. No reference follows frame 3.
        past, future = ((1, 2), (1, 1), (2, 1), (1, 1))[t]
        np.testing.assert_array_equal(motion.distance_THW[t], np.where(future_HW, future, past))


@pytest.mark.parametrize("vector", [0.1, 8192.0])
def test_a_vector_that_is_not_stored_exactly_is_refused(vector):
    with pytest.raises(UserError, match="finer than a quarter pixel, or longer"):
        pack_cells(np.full((2, 2, 2), vector, np.float32))
