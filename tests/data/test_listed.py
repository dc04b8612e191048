"""Behaviour that all published sets share.

Files are looked up and counted, missing ones are listed, and paths that lead outside are refused.
"""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from mgm.data.index import read_index
from mgm.data.published import index_published
from mgm.data.published.listed import Entry, Lists, find_videos, index_listed
from mgm.data.synthetic.params import Kind
from tests.helpers.errors import refused

# The datasets that the generator draws.
PREPARE = {name: partial(index_published, name) for name in get_args(Kind)}
# Names that HMDB51 and K400 have, or could.
ODD = (
    "-dash",
    "a b",
    "(c) [d]",
    "#e;f!",
    "& 'g' \"h\"",
    "naïve ダンス",
    "100%_x",
)


@pytest.mark.parametrize("kind", PREPARE)
def test_a_look_alike_is_read_back(published, tmp_path, kind):
    """The same videos have the same classes and splits.

    Where the layout has labels, they are the same too. Elsewhere classes are sorted.
    """
    drawn = published(kind)
    index = PREPARE[kind](drawn.source, tmp_path)
    assert index == read_index(tmp_path)
    rows = {
        (video.path, drawn.index.classes[video.label].lower(), video.split, video.frames)
        for video in drawn.index.videos
    }
    assert {
        (video.path, index.classes[video.label].lower(), video.split, video.frames)
        for video in index.videos
    } == rows
    assert sorted(name.lower() for name in index.classes) == sorted(drawn.index.classes)
    if kind in ("ssv2", "ucf101", "diving48"):
        assert {video.path: video.label for video in index.videos} == {
            video.path: video.label for video in drawn.index.videos
        }
    else:
        assert index.classes == tuple(sorted(index.classes))
    assert index.excluded == ()
    assert "6 of 6 train videos are there, 3 of 3 test videos are there" in index.note
    assert (tmp_path / "missing.txt").read_text() == ""
    assert all(video.has_vectors for video in index.videos)


@pytest.mark.parametrize("kind", PREPARE)
def test_what_is_not_there_or_not_whole_is_listed(published, tmp_path, kind):
    drawn = published(kind)
    source = tmp_path / "source"
    shutil.copytree(drawn.source, source)
    gone, broken = (
        source / Path(video.path).relative_to(drawn.source) for video in drawn.index.train[:2]
    )
    gone.unlink()
    broken.write_bytes(broken.read_bytes()[:100])
    stranger = shutil.copy(drawn.index.videos[3].path, broken.with_name(f"x_1_2{broken.suffix}"))
    index = PREPARE[kind](source, tmp_path / "out")
    assert len(index.videos) == 7
    missing = (tmp_path / "out" / "missing.txt").read_text().splitlines()
    assert [Path(name).stem for name in missing] == [gone.stem]
    (first, why), (second, reason) = index.excluded
    assert (Path(first).name, Path(second).name) == (broken.name, Path(stranger).name)
    assert why
    assert reason.startswith("is not in the lists of ")
    assert (
        "5 of 6 train videos are there, 3 of 3 test videos are there; the others are in missing.txt"
        in index.note
    )


@pytest.mark.parametrize("kind", PREPARE)
def test_a_source_without_the_videos_says_so(published, tmp_path, kind):
    def fails(source, *says):
        with refused(*says):
            PREPARE[kind](source, tmp_path / "out")
        assert not (tmp_path / "out" / "index.json").exists()

    drawn = published(kind)
    fails(tmp_path / "nowhere", "nowhere: no such folder", "--source")
    empty = tmp_path / "empty"
    shutil.copytree(
        drawn.source,
        empty,
        ignore=lambda folder, names: [name for name in names if name.endswith((".mp4", ".avi"))],
    )
    fails(empty, "holds no video", "--source")
    root = empty / "UCF-101" if kind == "ucf101" else empty
    (root / "cats").mkdir()
    shutil.copy(drawn.index.videos[0].path, root / "cats" / "cat.mp4")
    fails(empty, "0 of the 9 videos of ", "(1 others)", "--source")
    name = Path(drawn.index.train[0].path).relative_to(drawn.source)
    shutil.copy(drawn.index.train[0].path, empty / name)
    fails(empty, "0 of the 1 readable videos are in the test split", "add some")


def test_odd_names_pass_and_are_found_again(build, tmp_path):
    source = build(
        *(f"{name}/{name}.mp4" for name in ODD), ".hidden/x.mp4", "a b/.x.mp4", "a b/x.mp4.part"
    )
    entries = {
        f"{name}/{name}": Entry(
            f"{name}/{name}.mp4", number % 2, ("train", "test")[number % 2], name
        )
        for number, name in enumerate(ODD)
    }
    index_listed(
        find_videos(source, "{0}/{1}".format), Lists(("a", "b"), entries), tmp_path / "out", "odd"
    )
    again = read_index(tmp_path / "out")
    assert (again.excluded, (tmp_path / "out" / "missing.txt").read_text()) == ((), "")
    assert {video.group for video in again.videos} == set(ODD)
    assert all(os.path.getsize(video.path) == video.bytes for video in again.videos)


def test_of_several_files_of_a_video_one_is_used(build, tmp_path):
    """A re-encoded copy or a replacement from CVDF is used instead of the source.

    The unused files are counted.
    """
    names = ("1.webm", "1.mp4", "2.webm", "val/3.mp4", "replacement_for_corrupted_k400/3.mp4")
    found = find_videos(build(*names), lambda _, name: name)
    assert found.name_of == {
        "1": "1.mp4",
        "2": "2.webm",
        "3": "replacement_for_corrupted_k400/3.mp4",
    }
    assert found.spare == ["val/3.mp4", "1.webm"]
    entries = {name: Entry(name, 0, "test" if name == "3" else "train", name) for name in "123"}
    index = index_listed(found, Lists(("a",), entries), tmp_path / "out", "set")
    assert "2 further files of the same videos are not used, such as val/3.mp4" in index.note
