"""Shards and indices with changed bytes: what was written is read, or one line says what is wrong.

Nothing is read in silence that was not written: neither frames, nor vectors, nor labels.
"""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mgm.data.folder import index_folder
from mgm.data.index import read_index
from mgm.data.shards import Settings, write_shards
from mgm.errors import UserError
from mgm.video import read_clip
from tests.helpers.videos import moving_square, write_video

pytestmark = pytest.mark.slow
SIDE = Settings(short_side=64)
FRAMES = np.arange(4)
# (where, as a share of the file; what to do there; with which bytes)
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
    """Six videos of two classes, their shards, and what is read from them."""
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
    return write_shards(index, place / "out", SIDE)


def unless_refused(call):
    """Return what `call` returns, or None where one line refuses it."""
    try:
        return call()
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    return None


def read(index) -> list[tuple]:
    """Return each video's label, split, and clip; None in place of a clip that is unreadable."""
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
def test_a_shard(origin, tmp_path, change):
    place = copied(origin, tmp_path)
    index = read_index(place / "out")
    whole = read(index)
    (shard,) = (place / "out" / "shards").glob("*.tar")
    tamper(shard, change)
    for before, after in zip(whole, read(index), strict=True):
        assert after == before or after[3] is None


@TIMES
@given(name=st.sampled_from(["0*.json", "shards.json"]), change=CHANGES)
@example(name="0*.json", change=(0.0, "cut", b"{"))
def test_a_sidecar_is_written_again_or_named(origin, tmp_path, name, change):
    place = copied(origin, tmp_path)
    whole = read(written(place))
    (path,) = (place / "out" / "shards").glob(name)
    tamper(path, change)
    found = unless_refused(lambda: written(place))
    assert found is None or read(found) == whole


def rows(index) -> tuple:
    """Return what an index says, below its root: a root may move, so no seal covers it."""
    return index.classes, [replace(video, path=index.name(video)) for video in index.videos]


@TIMES
@given(name=st.sampled_from(["index.csv", "index.json"]), change=CHANGES)
@example(name="index.csv", change=(0.9, "replace", b"1"))
# The root's first letter: another folder, in which no video is found.
@example(name="index.json", change=(0.109375, "replace", b" "))
def test_an_index(origin, tmp_path, name, change):
    place = copied(origin, tmp_path)
    whole = read_index(place / "out")
    tamper(place / "out" / name, change)
    found = unless_refused(lambda: read_index(place / "out"))
    assert found is None or rows(found) == rows(whole)
