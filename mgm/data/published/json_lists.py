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
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from mgm.data.index import SPLITS, Index
from mgm.data.published.listed import (
    Entry,
    Lists,
    add,
    carried,
    find_videos,
    index_listed,
    plain_name,
    read_json,
)
from mgm.errors import UserError
from mgm.spec import PUBLISHED

_CARRIED = "diving48_v2.json.xz"
_INSTEAD = "add it to the others, or remove those to use mgm's own lists"


class Diving48Row(BaseModel, strict=True):
    vid_name: str
    label: int
    start_frame: int
    end_frame: int


def index_diving48(source: Path, out: Path) -> Index:
    files = find_videos(source, lambda _, name: name)
    lists = read_diving48_lists(source)

    def short(index: Index) -> str:
        listed = [(video, lists.entries[Path(video.path).stem].frames) for video in index.videos]
        fewer = [
            f"{index.name(video)} has {video.frames} of {frames}"
            for video, frames in listed
            if video.frames < frames
        ]
        return (
            f"; {len(fewer):,} videos have fewer frames than the lists say ({fewer[0]})"
            if fewer
            else ""
        )

    return index_listed(files, lists, out, "Diving48 V2", PUBLISHED["diving48"].official, short)


def read_diving48_lists(source: Path) -> Lists:
    """Read the lists of a source, or those of this package. Keys are video names.

    Raises:
        UserError: a file is missing, or an entry is wrong. The message names the file and the
            entry.
    """
    kinds = dict.fromkeys((f"Diving48_V2_{split}" for split in SPLITS), list[Diving48Row]) | {
        "Diving48_vocab": list[list[str]]
    }
    paths = {name: source / f"{name}.json" for name in kinds}
    if any(path.is_file() for path in paths.values()):
        values = {name: read_json(path, kinds[name], _INSTEAD) for name, path in paths.items()}
    else:
        values = {
            name: TypeAdapter(kinds[name]).validate_python(rows)
            for name, rows in json.loads(carried(_CARRIED)).items()
        }
    classes = tuple(", ".join(parts) for parts in values["Diving48_vocab"])
    if len(set(classes)) < len(classes):
        raise UserError(
            f"{paths['Diving48_vocab']}: names a class twice among its {len(classes)}; download it "
            "again"
        )
    entries: dict[str, Entry] = {}
    for split in SPLITS:
        for number, row in enumerate(values[f"Diving48_V2_{split}"]):
            where, name = f"{paths[f'Diving48_V2_{split}']}: {number}", row.vid_name
            if not 0 <= row.label < len(classes):
                raise UserError(
                    f"{where}: label {row.label} is not one of the {len(classes)} in "
                    "Diving48_vocab.json; correct one"
                )
            if not 0 <= row.start_frame < row.end_frame:
                raise UserError(
                    f"{where}: starts at frame {row.start_frame} and ends at frame "
                    f"{row.end_frame}; correct it"
                )
            group, frames = name.rpartition("_")[0] or name, row.end_frame - row.start_frame
            add(
                entries,
                plain_name(where, name),
                Entry(f"rgb/{name}.mp4", row.label, split, group, frames),
                where,
            )
    if not entries:
        raise UserError(f"{source}: the lists of Diving48 V2 have 0 videos; download them again")
    return Lists(classes, entries)


_SSV2_SPLITS = {"train": "train", "test": "validation"}
_SSV2_INSTEAD = (
    "put labels.json, train.json and validation.json into --source or a folder labels in it"
)


class Ssv2Row(BaseModel):
    id: str
    template: str


class TestRow(BaseModel):
    id: str


def index_ssv2(source: Path, out: Path) -> Index:
    files = find_videos(source, lambda _, name: name)
    return index_listed(
        files, read_ssv2_lists(source), out, "Something-Something v2", PUBLISHED["ssv2"].official
    )


def read_ssv2_lists(source: Path) -> Lists:
    """Read the lists of a source. Keys are video ids.

    Raises:
        UserError: a file is missing, or an entry is wrong. The message names the file and the
            entry.
    """
    path = list_file(source, "labels")
    numbers = read_json(path, dict[str, str], _SSV2_INSTEAD)
    if sorted(numbers.values(), key=lambda text: (len(text), text)) != [
        str(label) for label in range(len(numbers))
    ]:
        raise UserError(
            f"{path}: its {len(numbers)} classes are not numbered from 0 to {len(numbers) - 1}; "
            "download it again"
        )
    label_of = {name: int(number) for name, number in numbers.items()}
    entries: dict[str, Entry] = {}
    for split, official in _SSV2_SPLITS.items():
        listed = list_file(source, official)
        for number, row in enumerate(read_json(listed, list[Ssv2Row], _SSV2_INSTEAD)):
            where, name = f"{listed}: {number}", row.template.replace("[", "").replace("]", "")
            if name not in label_of:
                raise UserError(
                    f"{where}: class {name!r} is not one of the {len(label_of)} in {path.name}; "
                    "correct one"
                )
            video = plain_name(where, row.id)
            add(entries, video, Entry(f"{video}.webm", label_of[name], split, video), where)
    if not entries:
        raise UserError(f"{path.parent}: its lists have 0 videos; download them again")
    unused, test = frozenset[str](), list_file(source, "test")
    if test.is_file():
        unused = frozenset(row.id for row in read_json(test, list[TestRow], _SSV2_INSTEAD))
    return Lists(
        tuple(sorted(label_of, key=label_of.__getitem__)), entries, unused - entries.keys()
    )


def list_file(source: Path, name: str) -> Path:
    """Return the path of a list. If it does not exist, return where it should be."""
    places = [
        folder / f"{prefix}{name}.json"
        for folder in (source / "labels", source)
        for prefix in ("", "something-something-v2-")
    ]
    return next((path for path in places if path.is_file()), places[0])
