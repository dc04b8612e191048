"""Kinetics-400 (Kay et al., 2017) as its users have it becomes an index.

    SOURCE/annotations/*.csv, or SOURCE/*.csv
    label,youtube_id,time_start,time_end,split[,is_cc], in one file or several
    SOURCE/.../ID_START_END.mp4                     or .mkv, .webm, .avi; START and END in seconds,
    with or without leading zeros

The copy of CVDF has the files flat in train and val, those of the official crawler lie in class
folders, with spaces or underscores; all of that is one here, since a name says which clip a file
is. CVDF's replacements of corrupted files (a folder replacement...) come first.

Labels number the annotations' classes in sorted order. Our test split is the validation split (val
or validate); rows of the test split are left aside. The published sets shrink as videos leave
YouTube, so no count is official: the annotations are what is compared with.
"""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mgm.data.index import Index
from mgm.data.published import PUBLISHED
from mgm.data.published.listed import (
    Entry,
    Found,
    Lists,
    add,
    find_videos,
    index_listed,
    plain_name,
    read_text,
)
from mgm.errors import UserError

_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_SPLITS = {"train": "train", "val": "test", "validate": "test", "validation": "test", "test": ""}
_NAME = re.compile(r"(.+)_(\d+)_(\d+)")


def index_k400(source: Path, out: Path) -> Index:
    """Index as `index_listed` does.

    The note counts files a second and more too short; what lies in another class's folder is left
    out.
    """
    found, annotations = find_videos(source, _key), read_annotations(source)
    _leave_out_other_classes(found, annotations)
    return index_listed(
        found, annotations, out, "Kinetics-400", remark=lambda index: _remarks(index, annotations)
    )


def _remarks(index: Index, annotations: Lists) -> str:
    note, published = "", PUBLISHED["k400"].classes
    if len(annotations.classes) != published:
        note += (
            f"; the annotations have {len(annotations.classes)} classes, those published "
            f"{published}"
        )
    seconds_of = {video.path: _seconds(Path(video.path).stem) for video in index.videos}
    if short := [
        video
        for video in index.videos
        if video.fps and video.frames / video.fps < seconds_of[video.path] - 1
    ]:
        first = (
            f"{index.name(short[0])} lasts {short[0].frames / short[0].fps:.1f} of "
            f"{seconds_of[short[0].path]} s"
        )
        note += f"; {len(short):,} videos are more than a second shorter than annotated ({first})"
    return note


def read_annotations(source: Path) -> Lists:
    """What the annotations in a source say, by ID_START_END without leading zeros.

    Raises:
        UserError: there are none, or a line cannot be followed; the file and the line are named.
    """
    rows = list(_rows(source))
    label_of = {
        name: label
        for label, name in enumerate(
            sorted({row["label"] for _, row in rows if _SPLITS.get(row["split"])})
        )
    }
    entries: dict[str, Entry] = {}
    unused, trained = (
        set(),
        {row["label"] for _, row in rows if _SPLITS.get(row["split"]) == "train"},
    )
    for where, row in rows:
        identity, split = plain_name(where, row["youtube_id"]), row["split"]
        if split not in _SPLITS:
            raise UserError(f"{where}: split {split!r} is none of {', '.join(_SPLITS)}; correct it")
        start, end = (_second(where, column, row[column]) for column in ("time_start", "time_end"))
        if end <= start:
            raise UserError(
                f"{where}: ends at second {end} and starts at second {start}; correct it"
            )
        key = f"{identity}_{start}_{end}"
        if not _SPLITS[split]:
            unused.add(key)
            continue
        label = plain_name(where, row["label"])
        if label not in trained:
            raise UserError(
                f"{where}: class {label!r} is none of the {len(trained)} that have training "
                "videos; correct one"
            )
        name = f"{split}/{label}/{identity}_{start:06}_{end:06}.mp4"
        add(entries, key, Entry(name, label_of[label], _SPLITS[split], identity), where)
    return Lists(tuple(label_of), entries, frozenset(unused - entries.keys()))


def _rows(source: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(where it is, its values) of each line of the annotations.

    A csv with other columns is something else.
    """
    instead = (
        f"put the annotations (train.csv, val.csv: {','.join(_COLUMNS)}) into --source or a folder "
        "annotations in it"
    )
    count = 0
    paths = sorted((source / "annotations").glob("*.csv")) or sorted(source.glob("*.csv"))
    for path in paths:
        lines = csv.reader(read_text(path, instead).splitlines())
        header = next(lines, [])
        if not set(_COLUMNS) <= set(header):
            continue
        for line in lines:
            if not line:
                continue
            where = f"{path}: line {lines.line_num}"
            if len(line) != len(header):
                raise UserError(
                    f"{where}: has {len(line)} values for {len(header)} columns; correct it"
                )
            count += 1
            yield where, dict(zip(header, line))
    if not count:
        raise UserError(
            f"{source}: has no annotations ({len(paths)} csv files, none with these columns and a "
            f"line); {instead}"
        )


def _second(where: str, column: str, text: str) -> int:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        raise UserError(
            f"{where}: {column} is {text!r}, not a number of seconds; correct it"
        ) from None


def _key(_: str, name: str) -> str | None:
    """Read the id of a file named ID_START_END, with leading zeros or without."""
    match = _NAME.fullmatch(name)
    return f"{match[1]}_{int(match[2])}_{int(match[3])}" if match else None


def _seconds(key: str) -> int:
    _, start, end = key.rsplit("_", 2)
    return int(end) - int(start)


def _leave_out_other_classes(found: Found, annotations: Lists) -> None:
    """Leave out files that lie in the folder of another class than the annotations say.

    Spaces and underscores of a folder's name count as equal.
    """

    def plain(name: str) -> str:
        return name.replace("_", " ").casefold()

    class_of = {plain(name): name for name in annotations.classes}
    for key, entry in annotations.entries.items():
        name, label = found.name_of.get(key, ""), annotations.classes[entry.label]
        if (
            lies_in := class_of.get(plain(os.path.basename(os.path.dirname(name))), label)
        ) != label:
            reason = (
                f"lies in the folder of class {lies_in}, but is annotated as {label}; move it, or "
                "correct the annotation"
            )
            found.unusable.append((found.name_of.pop(key), reason))
