"""Files that are damaged, in another encoding or hostile: one line each, never a traceback or a
hang.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mgm.data.folder import index_folder
from mgm.data.index import read_index
from mgm.errors import UserError
from mgm.models.files import read_tensors
from mgm.paper.scales import read_yaml
from mgm.reading import read_arrays, read_json, read_table, read_text
from mgm.stages.measure.saliency import read_boxes
from tests.helpers.errors import refused
from tests.helpers.videos import moving_square, write_video

LATIN_1 = "path,frame\nä.mp4,1\n".encode("latin-1")
UTF_16 = "path,label\nä.mp4,b\n".encode("utf-16")
BINARY = bytes(range(256)) * 3
NUL = b"path,\0label\n"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Two classes of three videos, and their index."""
    folder = tmp_path_factory.mktemp("prepared")
    for label in "ab":
        (folder / "videos" / label).mkdir(parents=True)
        for number in range(3):
            frames = moving_square(4, 32, 32, side=12, seed=number + ord(label))
            write_video(folder / "videos" / label / f"{number}.mp4", frames)
    index_folder(folder / "videos", folder / "index")
    return folder


@pytest.fixture
def place(prepared, tmp_path) -> Path:
    """A copy of these, for a test to damage."""
    return Path(shutil.copytree(prepared, tmp_path / "place"))


@pytest.mark.parametrize(
    "data", [LATIN_1, UTF_16, BINARY, NUL], ids=["latin1", "utf16", "bin", "nul"]
)
@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("index/index.csv", lambda place: read_index(place / "index")),
        ("index/index.json", lambda place: read_index(place / "index")),
        (
            "index/boxes.csv",
            lambda place: read_boxes(place / "index", read_index(place / "index")),
        ),
        ("videos/videos.csv", lambda place: index_folder(place / "videos", place / "new")),
        ("scale.yaml", lambda place: read_yaml(place / "scale.yaml")),
        ("x.json", lambda place: read_json(place / "x.json")),
        (
            "model.safetensors.index.json",
            lambda place: read_tensors(place / "model.safetensors.index.json"),
        ),
    ],
)
def test_what_is_not_utf_8_is_one_line(place, file, read, data):
    (place / file).write_bytes(data)
    with refused(f"{place / file}: ", "save it as UTF-8"):
        read(place)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "x").write_bytes("\ufeffä\r\n".encode())
    assert read_text(tmp_path / "x") == "ä\r\n"
    assert list(read_table(tmp_path / "x")) == [(1, ["ä"])]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data[: len(data) // 2], "BadZipFile"),
        (lambda data: data[:200] + bytes(40) + data[240:], "BadZipFile"),
        (lambda data: b"text", "ValueError"),
        (lambda data: b"", "EOFError"),
    ],
)
def test_damaged_arrays_are_one_line(tmp_path, change, says):
    path = tmp_path / "boxes.npz"
    np.savez(path, a=np.arange(50.0), b=np.arange(3))
    path.write_bytes(change(path.read_bytes()))
    with refused(f"{path}: not a whole npz file ({says})"):
        read_arrays(path)


def test_arrays_of_objects_are_not_opened(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{}], object))
    with refused("not a whole npz file"):
        read_arrays(tmp_path / "x.npz")


DEEP = "[" * 10**5 + "]" * 10**5
INDEX = [
    (DEEP, "is not JSON"),
    ("null", "not an index"),
    ({"root": "\0"}, "no path holds a NUL character"),
    ({"root": 3}, "root: Input should be a valid string"),
    ({"classes": [1, 2]}, "classes.0: Input should be a valid string"),
    ({"classes": ["a", "a"]}, "two classes have one name"),
    ({"classes": "ab"}, "classes: Input should be a valid list"),
    ({"videos": "6"}, "videos: Input should be a valid integer"),
    ({"excluded": [["x"]]}, "an entry is not a path and a reason"),
    ({"excluded": [[1, 2]]}, "excluded.0.0: Input should be a valid string"),
]


@pytest.mark.parametrize(("change", "says"), INDEX)
def test_an_odd_index_json_is_one_line(place, change, says):
    path = place / "index" / "index.json"
    text = change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change)
    path.write_text(text)
    with refused(f"{path}: ", says, "run `mgm prepare`"):
        read_index(place / "index")


CELLS = [
    ("frames", "-1", "frames '-1' is no whole number"),
    ("frames", "9" * 5000, "frames '9999"),
    ("width", "1e3", "width '1e3' is no whole number"),
    ("bytes", "٣", "bytes '٣' is no whole number"),
    ("fps", "nan", "fps nan is no rate"),
    ("fps", "1e400", "fps 1e400 is no rate"),
    ("label", "2", "label 2 is outside the 2 classes"),
]


@pytest.mark.parametrize(("column", "value", "says"), CELLS)
def test_an_odd_cell_of_index_csv_is_one_line(place, column, value, says):
    path = place / "index" / "index.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    rows[2][rows[0].index(column)] = value
    path.write_text("\n".join(map(",".join, rows)) + "\n")
    with refused(f"{path}: line 3: {says}", "run `mgm prepare`"):
        read_index(place / "index")


YAML = [
    ("[1, 2]: 3\n", "a list or a mapping is no name of a field"),
    ("{a: 1}: 3\n", "a list or a mapping is no name of a field"),
    ("a:\n  ? [b, [c]]\n  : 3\n", "line 2"),
    ("<<: 3\n", "expected a mapping"),
    ("[" * 5000, "recursion"),
    ("2020-99-99: 1", "month must be in 1..12"),
]


@pytest.mark.parametrize(("text", "says"), YAML)
def test_odd_yaml_is_one_line(tmp_path, text, says):
    (tmp_path / "x.yaml").write_text(text)
    with refused("x.yaml: not YAML", says):
        read_yaml(tmp_path / "x.yaml")


WEIGHT_MAPS = [
    "[" * 10**5,
    '{"weight_map": {"a": 1}}',
    '{"weight_map": {"a": {"b": 1}}}',
    '{"weight_map": [1]}',
    '{"weight_map": {"a": 1, "b": "x"}}',
    '{"weight_map": {"a": "\\u0000"}}',
    '{"weight_map": {"a": "\\ud800"}}',
    '{"weight_map": {"a": "../x"}}',
    "null",
]


@pytest.mark.parametrize("text", WEIGHT_MAPS)
def test_an_odd_index_of_weights_is_one_line(tmp_path, text):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    with refused(f"{path}: "):
        read_tensors(path)


def test_a_name_cannot_act_on_the_terminal(tmp_path):
    """Escape codes become text, and a name of a megabyte is shortened."""
    for name in ("\x1b[31mred\x1b[2J\r\n\u202e", "a" * 10**6):
        torch.save({name: torch.zeros(3, dtype=torch.int64)}, tmp_path / "w.pt")
        with pytest.raises(UserError) as error:
            read_tensors(tmp_path / "w.pt")
        message = str(error.value)
        assert message.isprintable()
        assert len(message) < 2000
        assert message.endswith("convert it")


def test_a_path_with_a_nul_character_is_one_line():
    with refused("no file's name can hold a NUL character"):
        read_text(Path("a\0b"))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_no_reader_hangs_at_a_pipe_or_a_device(tmp_path, make):
    make(tmp_path / "x.yaml")
    for read in (read_text, read_yaml, read_json, read_arrays, lambda path: [*read_table(path)]):
        with refused("x.yaml: is a pipe or a device, not a file"):
            read(tmp_path / "x.yaml")
