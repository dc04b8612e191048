"""Diving48 (Li, Li and Vasconcelos, 2018), version 2 of its labels, in its official layout becomes an index.

    SOURCE/Diving48_V2_{train,test}.json            vid_name, label, start_frame, end_frame
    SOURCE/Diving48_vocab.json                      a class's four parts, by label
    SOURCE/rgb/NAME.mp4

Where the source has none of the three lists, those carried here are followed: lists/diving48_v2.json.xz.

The files are the trimmed dives: every start_frame of version 2 is 0 and end_frame is the dive's number of frames. So clips are
drawn from the whole file, whatever the two say; a file with fewer frames than they promise is counted in the index's note.
One of the 48 classes (label 30) has no video. A name is ID_NUMBER, ID the competition's video: the split keeps those together.
"""

import json
from pathlib import Path
from typing import Any

from mgm.datasets.index import SPLITS, Index
from mgm.datasets.published import PUBLISHED
from mgm.datasets.published.listed import LISTS, Entry, Lists, add, carried, index_listed, plain_name, read_json, rows_of
from mgm.errors import UserError

_FIELDS = {"vid_name": str, "label": int, "start_frame": int, "end_frame": int}
_NAMES = ("Diving48_V2_train", "Diving48_V2_test", "Diving48_vocab")
_CARRIED = "diving48_v2.json.xz"
_INSTEAD = "add it to the others, or remove those to use the lists mgm carries"


def index_diving48(source: Path, out: Path) -> Index:
    return index_listed(source, out, "Diving48 V2", lambda _, name: name, read_lists, PUBLISHED["diving48"].official, _short)


def _short(index: Index, lists: Lists) -> str:
    listed = [(video, lists.entries[Path(video.path).stem].frames) for video in index.videos]
    short = [f"{index.name(video)} has {video.frames} of {frames}" for video, frames in listed if video.frames < frames]
    return f"; {len(short):,} videos have fewer frames than the lists say ({short[0]})" if short else ""


def read_lists(source: Path) -> Lists:
    """What the lists in a source say, by name, or those carried here.

    Raises:
        UserError: a file is missing, or an entry cannot be followed; the file and the entry are named.
    """
    lists = _read(source)
    vocabulary, parts = lists["Diving48_vocab"]
    classes = tuple(", ".join(map(str, part)) if isinstance(part, list) else str(part) for part in parts)
    if len(set(classes)) < len(classes):
        raise UserError(f"{vocabulary}: names a class twice among its {len(classes)}; download it again")
    entries: dict[str, Entry] = {}
    for split in SPLITS:
        for where, row in rows_of(*lists[f"Diving48_V2_{split}"], _FIELDS):
            name, label, start, end = (row[field] for field in _FIELDS)
            if not 0 <= label < len(classes):
                raise UserError(f"{where}: label {label} is none of the {len(classes)} in {vocabulary.name}; correct one")
            if not 0 <= start < end:
                raise UserError(f"{where}: ends at frame {end} and starts at frame {start}; correct it")
            entry = Entry(f"rgb/{name}.mp4", label, split, name.rpartition("_")[0] or name, end - start)
            add(entries, plain_name(where, name), entry, where)
    if not entries:
        raise UserError(f"{source}: the lists of Diving48 V2 name no video; download them again")
    return Lists(classes, entries)


def _read(source: Path) -> dict[str, tuple[Path, list[Any]]]:
    """(the file, what it holds) of each list by its name."""
    paths = {name: source / f"{name}.json" for name in _NAMES}
    if any(path.is_file() for path in paths.values()):
        return {name: (path, read_json(path, list, _INSTEAD)) for name, path in paths.items()}
    return {name: (LISTS / _CARRIED, values) for name, values in json.loads(carried(_CARRIED)).items()}
