import shutil
from collections import Counter
from itertools import cycle
from pathlib import Path

import pytest

from mgm.datasets.index import read_index
from mgm.datasets.prepare import summary
from mgm.datasets.published.ucf101 import OFFICIAL, carried_lists, index_ucf101, read_lists
from tests.helpers.errors import refused

DATA = Path(__file__).parents[3] / "shared" / "data"
LISTS = DATA / "splits" / "ucfTrainTestlist"
CLIPS = DATA / "clips" / "ucf101"
HERE = (
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi",
    "HandstandPushups/v_HandStandPushups_g07_c01.avi",
    "YoYo/v_YoYo_g25_c01.avi",
)


@pytest.fixture
def ucf101(tmp_path, generated):
    """Builds a copy of UCF101 that has some of its videos, and lists if they are given."""
    videos = cycle(generated[1].videos)

    def build(names=HERE, below="UCF-101", **lists: str) -> Path:
        for name in names:
            path = tmp_path / "ucf" / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(next(videos).path, path)
        for name, text in lists.items():
            path = tmp_path / "ucf" / "ucfTrainTestlist" / f"{name}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, newline="")
        return tmp_path / "ucf"

    return build


def fails(source: Path, out: Path, *says: str) -> None:
    with refused(*says):
        index_ucf101(source, out)
    assert not (out / "index.json").exists()


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_carried_lists_have_the_official_counts(split):
    lists = carried_lists(split)
    counts = Counter(entry.split for entry in lists.entries.values())
    assert (len(lists.classes), counts["train"], counts["test"]) == (101, *OFFICIAL[split])


@pytest.mark.skipif(not LISTS.is_dir(), reason="the official lists are not here")
@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_carried_lists_are_the_official_ones(split):
    assert b"\r\n" in (LISTS / "classInd.txt").read_bytes()
    assert carried_lists(split) == read_lists(LISTS, split)


@pytest.mark.parametrize("below", ["UCF-101", "."])
def test_a_part_of_the_videos_is_indexed_and_the_rest_is_listed(ucf101, tmp_path, below):
    source = ucf101(below=below)
    index = index_ucf101(source, tmp_path / "out")
    assert index == read_index(tmp_path / "out")
    assert len(index.classes) == 101
    assert [(index.name(video), video.label, video.split, video.group) for video in index.videos] == [
        (HERE[0], 0, "test", "v_ApplyEyeMakeup_g01"),
        (HERE[1], 0, "train", "v_ApplyEyeMakeup_g08"),
        (HERE[2], 36, "test", "v_HandStandPushups_g07"),  # 37 in classInd.txt, which counts from 1
        (HERE[3], 100, "train", "v_YoYo_g25"),
    ]
    missing = (tmp_path / "out" / "missing.txt").read_text().splitlines()
    assert len(missing) == 13_320 - 4
    assert set(missing) | set(HERE) == {entry.name for entry in carried_lists(1).entries.values()}
    assert "2 of 9,537 train videos are there, 2 of 3,783 test videos are there" in index.note
    assert "missing.txt" in index.note
    assert summary(index).endswith("no videos of the other 98 classes")
    other = {video.path: video.split for video in index_ucf101(source, tmp_path / "two", split=2).videos}
    assert [other[video.path] for video in index.videos] == ["train", "test", "train", "train"]


CLASSES = "1 Biking\r\n2 Diving\r\n"
TRAIN = "Biking/v_Biking_g08_c01.avi 1\r\nDiving/v_Diving_g08_c01.avi 2\r\n"
TEST = "Biking/v_Biking_g01_c01.avi\r\nDiving/v_Diving_g01_c01.avi\r\n"
NAMES = ("Biking/v_Biking_g08_c01.avi", "Diving/v_Diving_g08_c01.avi", "Biking/v_Biking_g01_c01.avi", "Diving/v_Diving_g01_c01.avi")


def test_lists_beside_the_videos_are_followed(ucf101, tmp_path):
    index = index_ucf101(ucf101(NAMES, classInd=CLASSES, trainlist01=TRAIN, testlist01=TEST), tmp_path / "out")
    assert index.classes == ("Biking", "Diving")
    assert [(video.label, video.split) for video in index.videos] == [(0, "train"), (1, "train"), (0, "test"), (1, "test")]
    assert (tmp_path / "out" / "missing.txt").read_text() == ""
    assert "missing.txt" not in index.note
    assert index.note.endswith("the lists in the source differ from the official 9,537 train and 3,783 test videos")


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ({"classInd": CLASSES, "trainlist01": TRAIN}, "testlist01.txt: no such file"),
        ({"trainlist01": TRAIN, "testlist01": TEST}, "classInd.txt: no such file"),
        ({"classInd": "Biking\n"}, "classInd.txt: line 1: is not a number and a class"),
        ({"classInd": "1 Biking\n3 Diving\n"}, "its 2 classes are not numbered from 1 to 2"),
        (
            {"classInd": CLASSES, "trainlist01": TRAIN + "Yoga/v_Yoga_g08_c01.avi 3\r\n"},
            "trainlist01.txt: line 3: class Yoga 3 is not one of the 2",
        ),
        (
            {"classInd": CLASSES, "trainlist01": TRAIN.replace("avi 2", "avi 1")},
            "line 2: class Diving has number 1, which classInd.txt gives to Biking",
        ),
        (
            {"classInd": CLASSES, "trainlist01": TRAIN, "testlist01": "Biking/v_Biking_g08_c01.avi"},
            "testlist01.txt: line 1: names Biking/v_Biking_g08_c01.avi a second time",
        ),
        ({"classInd": CLASSES, "trainlist01": "Biking\n"}, "line 1: is not a path"),
        ({"classInd": CLASSES, "trainlist01": "Biking/../../secret.avi\n"}, "line 1: '../../secret.avi' is not the plain name of a video"),
    ],
)
def test_lists_that_cannot_be_followed_name_file_and_line(ucf101, tmp_path, lists, says):
    fails(ucf101(NAMES, **lists), tmp_path / "out", says)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the UCF101 clips are not here")
def test_real_clips(tmp_path):
    index = index_ucf101(CLIPS, tmp_path / "out")
    assert index.excluded == ()
    assert Counter(video.split for video in index.videos) == {"train": 48, "test": 43}
    counts = Counter((index.classes[video.label], video.split) for video in index.videos)
    assert all(counts[name, "train"] == 16 and counts[name, "test"] == 8 for name in ("BabyCrawling", "Punch", "PushUps"))
    assert all((video.width, video.height, video.codec, video.has_vectors) == (320, 240, "mpeg4", True) for video in index.videos)
    assert {video.group for video in index.train}.isdisjoint(video.group for video in index.test)
