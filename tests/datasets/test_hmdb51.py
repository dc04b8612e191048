import shutil
from collections import Counter
from pathlib import Path

import pytest

from mgm.datasets.published import PUBLISHED
from mgm.datasets.published.hmdb51 import A_CLASS, carried_lists, index_hmdb51, read_lists
from mgm.errors import UserError
from tests.helpers.errors import refused

LISTS = Path(__file__).parents[3] / "shared" / "data" / "splits" / "hmdb51_split1"


@pytest.fixture
def source(tmp_path, published):
    """Builds a source of these videos (CLASS/NAME) below hmdb51_org, and lists by class."""
    video = published("hmdb51").index.videos[0].path

    def build(*names: str, below="hmdb51_org", split=1, **lists: str) -> Path:
        folder = tmp_path / "hmdb51"
        shutil.rmtree(folder, ignore_errors=True)
        for name in names:
            path = folder / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video, path)
        for name, text in lists.items():
            path = folder / "testTrainMulti_7030_splits" / f"{name}_test_split{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, newline="")
        return folder

    return build


def test_the_carried_lists_have_the_official_counts():
    lists = carried_lists()
    assert (len(lists.classes), lists.classes) == (51, tuple(sorted(lists.classes)))
    counts = Counter((entry.label, entry.split) for entry in lists.entries.values())
    assert all((counts[label, "train"], counts[label, "test"]) == A_CLASS for label in range(51))
    assert (
        tuple(sum(entry.split == split for entry in lists.entries.values()) for split in ("train", "test")) == PUBLISHED["hmdb51"].official
    )
    assert len(lists.unused) == 6_766 - sum(PUBLISHED["hmdb51"].official)
    sides = {split: {entry.group for entry in lists.entries.values() if entry.split == split} for split in ("train", "test")}
    assert sides["train"].isdisjoint(sides["test"])


@pytest.mark.skipif(not LISTS.is_dir(), reason="the official lists are not here")
def test_the_carried_lists_are_the_official_ones():
    assert carried_lists() == read_lists(LISTS, 1)


@pytest.mark.parametrize("below", ["hmdb51_org", ".", "hmdb51/videos"])
def test_a_part_of_the_videos_is_indexed_by_the_carried_lists(source, tmp_path, below):
    lists = carried_lists()
    odd = [entry for entry in lists.entries.values() if set(entry.name) & set("()[]#;!&+@")]
    assert {char for entry in odd for char in entry.name} >= set("()[]#;!&+@")
    some = [*odd, next(entry for entry in lists.entries.values() if entry.split == "test")]
    unused = f"{sorted(lists.unused)[0]}.avi"
    index = index_hmdb51(source(*(entry.name for entry in some), unused, below=below), tmp_path / "out")
    assert index.classes == lists.classes
    names = {"/".join(Path(video.path).parts[-2:]): (video.label, video.split, video.group) for video in index.videos}
    assert names == {entry.name: (entry.label, entry.split, entry.group) for entry in some}
    assert index.excluded == ()
    assert "1 others are in neither split, as the lists say" in index.note
    missing = (tmp_path / "out" / "missing.txt").read_text().splitlines()
    assert len(missing) == sum(PUBLISHED["hmdb51"].official) - len(names)


def test_lists_beside_the_videos_are_followed_with_their_marks(source, tmp_path):
    lists = {"jump": "a_jump_0.avi 1 \r\nb_jump_0.avi 2 \r\nc_jump_0.avi 0 \r\n", "hug": "a b_hug_0.avi 1\n\nd_hug_0.avi 2\n"}
    names = ("jump/a_jump_0.avi", "jump/b_jump_0.avi", "jump/c_jump_0.avi", "hug/a b_hug_0.avi", "hug/d_hug_0.mp4")
    for split in (1, 2):
        index = index_hmdb51(source(*names, split=split, **lists), tmp_path / "out", split)
        assert index.classes == ("hug", "jump")
        assert {("/".join(Path(video.path).parts[-2:]), video.label, video.split, video.group) for video in index.videos} == {
            ("jump/a_jump_0.avi", 1, "train", "jump/a"),
            ("jump/b_jump_0.avi", 1, "test", "jump/b"),
            ("hug/a b_hug_0.avi", 0, "train", "hug/a b"),
            ("hug/d_hug_0.mp4", 0, "test", "hug/d"),
        }
        assert "the lists in the source differ from the official 3,570 train and 1,530 test videos" in index.note
        assert "the lists of 2 classes have other than 70 train and 30 test videos, such as hug" in index.note
    with pytest.raises(UserError, match=r"has no lists \*_test_split3.txt.*carries split 1 only"):
        index_hmdb51(tmp_path / "hmdb51", tmp_path / "out", 3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a_jump_0.avi\n", "jump_test_split1.txt: line 1: is not a video's name and its mark, 0, 1 or 2"),
        ("a_jump_0.avi 1\nb_jump_0.avi 3\n", "line 2: is not a video's name and its mark"),
        ("a_jump_0.avi 1\n\na_jump_0.avi 2\n", "line 3: names jump/a_jump_0.avi a second time"),
        ("a_jump_0.avi 0\na_jump_0.avi 2\n", "line 2: names jump/a_jump_0.avi a second time"),
        ("../hug/a_jump_0.avi 1\n", "line 1: '../hug/a_jump_0.avi' is not the plain name of a video"),
    ],
)
def test_lists_that_cannot_be_followed_name_file_and_line(source, tmp_path, text, says):
    with refused(says):
        index_hmdb51(source("jump/a_jump_0.avi", jump=text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_folders_of_lists_are_not_guessed_between(source, tmp_path):
    folder = source("jump/a_jump_0.avi", jump="a_jump_0.avi 1\n")
    shutil.copytree(folder / "testTrainMulti_7030_splits", folder / "splits")
    with pytest.raises(UserError, match="both hold lists of split 1; remove one"):
        index_hmdb51(folder, tmp_path / "out")
