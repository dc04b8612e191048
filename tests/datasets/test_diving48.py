import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from mgm.datasets.published import PUBLISHED
from mgm.datasets.published.diving48 import index_diving48, read_lists
from tests.helpers.errors import refused

LISTS = Path(__file__).parents[3] / "shared" / "data" / "splits" / "diving48_v2"
VOCABULARY = [["Back", "15som", "NoTwis", "PIKE"], ["Forward", "15som", "NoTwis", "TUCK"]]


def row(name, label, start=0, end=8) -> dict:
    return {"vid_name": name, "label": label, "start_frame": start, "end_frame": end}


TRAIN, TEST = [row("-a_b_00001", 0), row("-a_b_00002", 1)], [row("c_00001", 1)]


@pytest.fixture
def source(tmp_path, published):
    """A source of three dives of 8 frames, with these lists."""
    video = published("diving48").index.videos[0].path

    def build(train=TRAIN, test=TEST, vocabulary=VOCABULARY) -> Path:
        folder = tmp_path / "diving48"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "rgb").mkdir(parents=True)
        for name in ("-a_b_00001", "-a_b_00002", "c_00001"):
            shutil.copy(video, folder / "rgb" / f"{name}.mp4")
        lists = {"Diving48_V2_train": train, "Diving48_V2_test": test, "Diving48_vocab": vocabulary}
        for name, value in lists.items():
            if value is not None:
                (folder / f"{name}.json").write_text(json.dumps(value))
        return folder

    return build


@pytest.mark.skipif(not LISTS.is_dir(), reason="the official lists are not here")
def test_the_carried_lists_are_the_official_ones(tmp_path):
    assert read_lists(tmp_path) == read_lists(LISTS)
    assert all(
        row["start_frame"] == 0 for split in ("train", "test") for row in json.loads((LISTS / f"Diving48_V2_{split}.json").read_text())
    )


def test_the_carried_lists_are_what_is_said_of_them(tmp_path):
    """Counts, the class without videos, the dives' lengths, and no competition on both sides."""
    lists = read_lists(tmp_path)
    classes, entries = lists.classes, lists.entries
    frames = [entry.frames for entry in entries.values()]
    assert (len(classes), classes[0]) == (48, "Back, 15som, 05Twis, FREE")
    counts = Counter(entry.split for entry in entries.values())
    assert (counts["train"], counts["test"]) == PUBLISHED["diving48"].official
    assert set(range(48)) - {entry.label for entry in entries.values()} == {30}
    assert (min(frames), max(frames)) == (24, 822)
    sides = {split: {entry.group for entry in entries.values() if entry.split == split} for split in counts}
    assert (len(sides["train"]), len(sides["test"]), len(sides["train"] & sides["test"])) == (58, 26, 0)


def test_labels_splits_and_competitions_are_read(source, tmp_path):
    index = index_diving48(source(train=[*TRAIN, row("d_00007", 0)]), tmp_path / "out")
    assert index.classes == ("Back, 15som, NoTwis, PIKE", "Forward, 15som, NoTwis, TUCK")
    assert [(index.name(video), video.label, video.split, video.group) for video in index.videos] == [
        ("rgb/-a_b_00001.mp4", 0, "train", "-a_b"),
        ("rgb/-a_b_00002.mp4", 1, "train", "-a_b"),
        ("rgb/c_00001.mp4", 1, "test", "c"),
    ]
    assert (tmp_path / "out" / "missing.txt").read_text() == "rgb/d_00007.mp4\n"
    assert "the lists in the source differ from the official 15,027 train and 1,970 test videos" in index.note
    assert "fewer frames" not in index.note


def test_without_lists_the_carried_ones_are_followed(published, tmp_path):
    rgb = tmp_path / "diving48" / "rgb"
    rgb.mkdir(parents=True)
    for name in ("-mmq0PT-u8k_00155", "8qRmKunCjtY_00016"):
        shutil.copy(published("diving48").index.videos[0].path, rgb / f"{name}.mp4")
    index = index_diving48(rgb.parent, tmp_path / "out")
    assert len(index.classes) == 48
    assert [(video.label, video.split, video.group) for video in index.videos] == [(0, "train", "-mmq0PT-u8k"), (0, "test", "8qRmKunCjtY")]
    assert "1 of 15,027 train videos are there, 1 of 1,970 test videos are there" in index.note
    assert "official" not in index.note
    assert "2 videos have fewer frames than the lists say (rgb/-mmq0PT-u8k_00155.mp4 has 8 of 48)" in index.note


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ({"vocabulary": None}, "Diving48_vocab.json: no such file; add it to the others, or remove those"),
        ({"train": None}, "Diving48_V2_train.json: no such file"),
        ({"vocabulary": [["a"], ["a"]]}, "Diving48_vocab.json: names a class twice among its 2"),
        ({"train": [*TRAIN, row("e_1", 2)]}, "Diving48_V2_train.json: 2: label 2 is none of the 2 in Diving48_vocab.json"),
        ({"train": [row("e_1", -1)]}, "0: label -1 is none of the 2"),
        ({"train": [row("e_1", True)]}, "Diving48_V2_train.json: 0.label: Input should be a valid integer (got True)"),
        ({"train": [row("e_1", 0, 9, 9)]}, "0: ends at frame 9 and starts at frame 9"),
        ({"train": [row("e_1", 0, -1, 9)]}, "0: ends at frame 9 and starts at frame -1"),
        ({"train": [row("../e_1", 0)]}, "0: '../e_1' is not the plain name of a video"),
        ({"test": TRAIN[:1]}, "Diving48_V2_test.json: 0: names rgb/-a_b_00001.mp4 a second time"),
        ({"test": [{"vid_name": "e"}]}, "Diving48_V2_test.json: 0.label: Field required"),
        ({"train": [], "test": []}, "name no video"),
    ],
)
def test_lists_that_cannot_be_followed_name_file_and_entry(source, tmp_path, lists, says):
    with refused(says):
        index_diving48(source(**lists), tmp_path / "out")
    assert not (tmp_path / "out").exists()
