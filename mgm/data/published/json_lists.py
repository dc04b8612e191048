"""Something-Something v2 and Diving48 in their official layouts. Both have lists in JSON.

Something-Something v2 (Goyal et al., 2017):

    SOURCE/labels/{labels,train,validation[,test]}.json, or in SOURCE. Formerly named
    something-something-v2-NAME.json
    SOURCE/.../ID.webm      VP9, which has no motion vectors. ID.mp4 is used instead if it exists

labels.json numbers the classes. An entry's class is its template without the brackets around
[something]. Our test split is the validation split, as in other work: the labels of the test split
(test.json) are not public, so its videos are not used.

Diving48 (Li, Li and Vasconcelos, 2018), version 2 of its labels:

    SOURCE/Diving48_V2_{train,test}.json        vid_name, label, start_frame, end_frame
    SOURCE/Diving48_vocab.json                  a class's four parts, by label
    SOURCE/rgb/NAME.mp4

If the source has none of the three lists, those of this package are used
(lists/diving48_v2.json.xz). The files are trimmed dives: in version 2, every start_frame is 0 and
end_frame is the dive's number of frames. So clips are drawn from the whole file. The index's note
counts the files with fewer frames than the lists have. One of the 48 classes (label 30) has no
video. A name is ID_NUMBER, where ID is the video of a competition. No such video is on both sides
of the split.
"""

import json
import re
from pathlib import Path

from pydantic import BaseModel, NonNegativeInt, TypeAdapter

from mgm.data.index import SPLITS, Index
from mgm.data.published.listed import (
    Entry,
    Lists,
    add,
    carried,
    find_videos,
    index_listed,
    numbered,
    require_class,
)
from mgm.errors import UserError
from mgm.reading import read_json
from mgm.spec import PUBLISHED


class Diving48Row(BaseModel, strict=True):
    vid_name: str
    label: NonNegativeInt
    start_frame: NonNegativeInt
    end_frame: NonNegativeInt


def index_diving48(source: Path, out: Path) -> Index:
    files = find_videos(source, lambda _, name: name)
    lists = read_diving48_lists(source)
    return index_listed(files, lists, out, "Diving48 V2", PUBLISHED["diving48"].official)


def read_diving48_lists(source: Path) -> Lists:
    """Read the lists of a source, or those of this package. Keys are video names."""
    kinds = dict.fromkeys((f"Diving48_V2_{split}" for split in SPLITS), list[Diving48Row]) | {
        "Diving48_vocab": list[list[str]]
    }
    paths = {name: source / f"{name}.json" for name in kinds}
    if any(path.is_file() for path in paths.values()):
        values = {name: read_json(paths[name], kind) for name, kind in kinds.items()}
    else:
        own = json.loads(carried("diving48_v2.json.xz"))
        values = {
            name: TypeAdapter(kind).validate_python(own[name]) for name, kind in kinds.items()
        }
    classes = tuple(", ".join(parts) for parts in values["Diving48_vocab"])
    if len(set(classes)) < len(classes):
        raise UserError(f"{paths['Diving48_vocab']}: names a class twice")
    entries: dict[str, Entry] = {}
    for split in SPLITS:
        path = paths[f"Diving48_V2_{split}"]
        for number, row in enumerate(values[path.stem]):
            where, name = f"{path}: {number}", row.vid_name
            require_class(row.label, range(len(classes)), where)
            group, frames = name.rpartition("_")[0] or name, row.end_frame - row.start_frame
            add(entries, name, Entry(f"rgb/{name}.mp4", row.label, split, group, frames), where)
    return Lists(classes, entries)


class TestRow(BaseModel):
    id: str


class Ssv2Row(TestRow):
    template: str


def index_ssv2(source: Path, out: Path) -> Index:
    files, lists = find_videos(source, lambda _, name: name), read_ssv2_lists(source)
    return index_listed(files, lists, out, "Something-Something v2", PUBLISHED["ssv2"].official)


def read_ssv2_lists(source: Path) -> Lists:
    """Read the lists of a source. Keys are video ids."""
    path, test = list_file(source, "labels"), list_file(source, "test")
    classes = numbered(path, read_json(path, dict[str, str]), 0)
    label_of = {name: label for label, name in enumerate(classes)}
    entries: dict[str, Entry] = {}
    for split, official in {"train": "train", "test": "validation"}.items():
        listed = list_file(source, official)
        for number, row in enumerate(read_json(listed, list[Ssv2Row])):
            where, name = f"{listed}: {number}", re.sub(r"[][]", "", row.template)
            require_class(name, label_of, where)
            add(entries, row.id, Entry(f"{row.id}.webm", label_of[name], split, row.id), where)
    rows = read_json(test, list[TestRow]) if test.is_file() else []
    return Lists(classes, entries, frozenset(row.id for row in rows) - entries.keys())


def list_file(source: Path, name: str) -> Path:
    """Return the path of a list. If it does not exist, return where it should be."""
    places = [
        folder / f"{prefix}{name}.json"
        for folder in (source / "labels", source)
        for prefix in ("", "something-something-v2-")
    ]
    return next((path for path in places if path.is_file()), places[0])
