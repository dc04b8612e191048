"""Change bytes of copies and indices, and read them.

Reading returns what was written, or raises an error of one line. It never returns other frames,
vectors or labels.
"""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mgm.data.copies import copy_videos
from mgm.data.folder import index_folder
from mgm.data.index import read_index
from mgm.errors import UserError
from mgm.video import read_clip
from tests.helpers.videos import moving_square, write_video

pytestmark = pytest.mark.slow
FRAMES = np.arange(4)
# (position as a share of the file, kind of change, bytes)
CHANGES = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["replace", "cut", "insert", "flip"]),
    st.binary(min_size=1, max_size=9),
)
TIMES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """Folder with six videos of two classes, and their packs."""
    place = tmp_path_factory.mktemp("tampered")
    for label in "ab":
        (place / "videos" / label).mkdir(parents=True)
        for seed in range(3):
            frames = moving_square(6, 72, 80, (3, 2), seed=ord(label) + seed)
            write_video(place / "videos" / label / f"{seed}.mp4", frames, gop=4, b_frames=1)
    written(place)
    return place


def written(place: Path):
    index = index_folder(place / "videos", place / "out" / "source")
    return copy_videos(index, place / "out", "pack", 64)


def unless_refused(call):
    """Return `call()`, or None if it raises a UserError of one line."""
    try:
        return call()
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    return None


def read(index) -> list[tuple]:
    """Return name, label, split and clip of each video. An unreadable clip is None."""
    found = []
    for video in index.videos:
        clip = unless_refused(partial(read_clip, video.path, FRAMES))
        content = clip and (clip.frames_THWC.tobytes(), clip.motion_THW2.tobytes())
        found.append((video.path.rpartition("/")[2], video.label, video.split, content))
    return found


def tamper(path: Path, change: tuple[float, str, bytes]) -> None:
    share, how, given_bytes = change
    data = bytearray(path.read_bytes())
    at = int(share * len(data))
    if how == "replace":
        data[at : at + len(given_bytes)] = given_bytes
    elif how == "cut":
        del data[at : at + len(given_bytes)]
    elif how == "insert":
        data[at:at] = given_bytes
    else:
        data[at] ^= given_bytes[0] or 1
    path.write_bytes(data)


def copied(origin: Path, tmp_path: Path) -> Path:
    place = tmp_path / "copy"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(origin, place)
    return place


@TIMES
@given(change=CHANGES)
def test_a_pack(origin, tmp_path, change):
    place = copied(origin, tmp_path)
    index = read_index(place / "out")
    whole = read(index)
    tamper(Path(index.videos[0].path), change)
    for before, after in zip(whole, read(index), strict=True):
        assert after == before or after[3] is None


@TIMES
@given(change=CHANGES)
@example(change=(0.0, "cut", b"{"))
def test_settings_of_copies_are_written_again_or_named(origin, tmp_path, change):
    place = copied(origin, tmp_path)
    whole = read(written(place))
    tamper(place / "out" / "copies.json", change)
    found = unless_refused(lambda: written(place))
    assert found is None or read(found) == whole


def rows(index) -> tuple:
    """Return an index's content without its root. The root may move, so no checksum covers it."""
    return index.classes, [replace(video, path=index.name(video)) for video in index.videos]


@TIMES
@given(name=st.sampled_from(["index.csv", "index.json"]), change=CHANGES)
@example(name="index.csv", change=(0.9, "replace", b"1"))
# This changes the first letter of the root, to a folder without videos.
@example(name="index.json", change=(0.109375, "replace", b" "))
def test_an_index(origin, tmp_path, name, change):
    place = copied(origin, tmp_path)
    whole = read_index(place / "out")
    tamper(place / "out" / name, change)
    found = unless_refused(lambda: read_index(place / "out"))
    assert found is None or rows(found) == rows(whole)
