"""The published lists that mgm carries are the official ones.

A list that cannot be used is refused with one line that names its place.
"""

import hashlib
import json
from dataclasses import astuple
from pathlib import Path

import pytest

from mgm.data.published import index_published
from mgm.data.published.derived import carried_ids
from mgm.data.published.derived import carried_lists as task_lists
from mgm.data.published.json_lists import read_diving48_lists as diving48
from mgm.data.published.listed import Entry, add
from mgm.data.published.text_lists import carried_hmdb51_lists as carried_lists
from mgm.data.published.text_lists import carried_ucf101_lists as ucf101
from tests.helpers.errors import refused


@pytest.mark.parametrize(
    ("read", "digest"),
    [
        (lambda: ucf101(1), "798c9414dc0a"),
        (lambda: ucf101(2), "0fb24d31d12f"),
        (lambda: ucf101(3), "d6180be21985"),
        (carried_lists, "7bbbfc42b211"),
        (lambda: diving48(Path("nowhere")), "738441c9a040"),
    ],
)
def test_every_video_of_the_carried_lists_is_as_published(read, digest):
    """These digests are those of the lists as their authors distribute them."""
    lists = read()
    rows = sorted((key, *astuple(entry)) for key, entry in lists.entries.items())
    text = json.dumps([lists.classes, rows, sorted(lists.unused)])
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == digest


def test_the_ids_of_mini_k200_and_the_tasks_are_as_published():
    def digest(value) -> str:
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]

    assert digest([sorted(names) for names in carried_ids().values()]) == "2dd9866be77a"
    assert digest(task_lists("ucf14-hmdb7").videos) == "b217522479db"
    assert digest(task_lists("hmdb14-ucf7").videos) == "c0a54fd3a417"


def dive(name, label, start=0, end=8) -> dict:
    return {"vid_name": name, "label": label, "start_frame": start, "end_frame": end}


CLOSING, UCF, JUMP = "Closing [something]", "ucfTrainTestlist/", "splits/jump_test_split1.txt"
HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
CLASSES, TRAIN, TEST = (
    "1 Biking\r\n2 Diving\r\n",
    "Biking/v_Biking_g08_c01.avi 1\r\n",
    "Diving/v_Diving_g01_c01.avi\r\n",
)
WHOLE = {
    "ssv2": {
        "labels/labels.json": {"Closing something": "0"},
        "labels/train.json": [{"id": "41", "template": CLOSING}],
        "labels/validation.json": [{"id": "5", "template": CLOSING}],
    },
    "diving48": {
        "Diving48_V2_train.json": [dive("a_1", 0)],
        "Diving48_V2_test.json": [dive("c_1", 1)],
        "Diving48_vocab.json": [["Back", "PIKE"], ["Forward", "TUCK"]],
    },
    "ucf101": {
        f"{UCF}classInd.txt": CLASSES,
        f"{UCF}trainlist01.txt": TRAIN,
        f"{UCF}testlist01.txt": TEST,
    },
    "hmdb51": {},
    "k400": {},
}
BAD = [
    ("ssv2", {"labels/labels.json": ["Closing something"]}, "labels.json:"),
    ("ssv2", {"labels/labels.json": {"a": "0", "b": "2"}}, "labels.json: its 2 classes"),
    ("ssv2", {"labels/train.json": '[{"id": "1"'}, "train.json:"),
    (
        "ssv2",
        {"labels/labels.json": '{"a": "0", "a": "0"}'},
        "labels.json: is not JSON (a is given",
    ),
    ("ssv2", {"labels/train.json": [{"id": "9"}]}, "train.json: 0.template:"),
    ("ssv2", {"labels/train.json": [{"id": 41, "template": CLOSING}]}, "train.json: 0.id:"),
    ("ssv2", {"labels/train.json": [{"id": "41", "template": "Opening"}]}, "train.json: 0:"),
    (
        "ssv2",
        {"labels/validation.json": [{"id": "41", "template": CLOSING}]},
        "validation.json: 0:",
    ),
    ("ssv2", {"labels/train.json": [], "labels/validation.json": []}, "0 of the 0 videos of"),
    ("diving48", {"Diving48_vocab.json": [["a"], ["a"]]}, "Diving48_vocab.json:"),
    (
        "diving48",
        {"Diving48_V2_train.json": [dive("a_1", 0), dive("e_1", 2)]},
        "train.json: 1: class 2",
    ),
    ("diving48", {"Diving48_V2_train.json": [dive("e_1", -1)]}, "train.json: 0.label:"),
    ("diving48", {"Diving48_V2_train.json": [dive("e_1", True)]}, "train.json: 0.label:"),
    (
        "diving48",
        {"Diving48_V2_train.json": [dive("../e_1", 0)]},
        "0: 'rgb/../e_1.mp4' is not the name of a video",
    ),
    ("diving48", {"Diving48_V2_test.json": [dive("a_1", 0)]}, "Diving48_V2_test.json: 0:"),
    ("ucf101", {f"{UCF}classInd.txt": "Biking\n"}, "classInd.txt: its 1"),
    ("ucf101", {f"{UCF}classInd.txt": "1 Biking\n3 Diving\n"}, "its 2"),
    (
        "ucf101",
        {f"{UCF}trainlist01.txt": "Yoga/v_Yoga_g08_c01.avi 3\r\n"},
        "trainlist01.txt: line 1:",
    ),
    (
        "ucf101",
        {f"{UCF}trainlist01.txt": TRAIN.replace("avi 1", "avi 2")},
        "line 1: class Biking has another number",
    ),
    ("ucf101", {f"{UCF}testlist01.txt": TRAIN}, "testlist01.txt: line 1:"),
    ("hmdb51", {JUMP: "a_jump_0.avi\n"}, "jump_test_split1.txt: line 1:"),
    ("hmdb51", {JUMP: "a_jump_0.avi 1\nb_jump_0.avi 3\n"}, "line 2:"),
    ("hmdb51", {JUMP: "a_jump_0.avi 0\n\na_jump_0.avi 2\n"}, "line 3:"),
    (
        "k400",
        {},
        "has no annotations",
    ),
    ("k400", {"all.csv": HEADER}, "has no annotations"),
    ("k400", {"all.csv": "label,youtube_id\na,b\n"}, "has no annotations"),
    ("k400", {"all.csv": HEADER + "a,b,1,2\n"}, "all.csv: line 2: split"),
    ("k400", {"all.csv": HEADER + "a,b,x,2,train,0\n"}, "all.csv: line 2:"),
    ("k400", {"all.csv": HEADER + "a/../..,b,1,2,train,0\n"}, "line 2:"),
    ("k400", {"all.csv": HEADER + "a,b,1,2,train,0\na,b,1.0,2.0,val,0\n"}, "line 3:"),
    ("k400", {"all.csv": HEADER + "a,b,1,2,train,0\nA,c,1,2,val,0\n"}, "line 3:"),
]


@pytest.mark.parametrize(("kind", "lists", "says"), BAD)
def test_lists_that_cannot_be_followed_name_file_and_place(build, tmp_path, kind, lists, says):
    with refused(says):
        index_published(kind, build("jump/a_1_2.mp4", lists=WHOLE[kind] | lists), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "missing"), [("ssv2", "train.json"), ("diving48", "vocab.json"), ("ucf101", "01.txt")]
)
def test_a_missing_list_is_named(build, tmp_path, kind, missing):
    lists = {name: text for name, text in WHOLE[kind].items() if not name.endswith(missing)}
    with pytest.raises(FileNotFoundError, match=missing):
        index_published(kind, build("a.mp4", lists=lists), tmp_path / "out")


def test_a_list_that_is_no_text(build, tmp_path):
    source = build("b_1_2.mp4", lists={"all.csv": ""})
    (source / "all.csv").write_bytes(b"\xff\xfe")
    with refused("all.csv: "):
        index_published("k400", source, tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["../x", "a//b", "/etc/passwd", "..", ".", "", "a\\b", "a\nb", "a\0b"]
)
def test_a_list_names_files_below_the_source_only(name):
    with refused("list.txt: line 3: "):
        add({}, name, Entry(f"class/{name}", 0, "train", ""), "list.txt: line 3")
