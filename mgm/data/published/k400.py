"""Index Kinetics-400 (Kay et al., 2017) in the layouts in which it is distributed.

    SOURCE/annotations/*.csv, or SOURCE/*.csv
        one or several files with the columns label,youtube_id,time_start,time_end,split[,is_cc]
    SOURCE/.../ID_START_END.mp4 (or .mkv, .webm, .avi)
        START and END are seconds, with or without leading zeros

A file's name identifies its clip, so folders do not matter. CVDF's copy has the folders train and
val. The official crawler writes class folders, with spaces or underscores. CVDF's replacements of
corrupted files (a folder replacement...) are preferred.

Labels number the annotations' classes in sorted order. Our test split is the validation split (val
or validate). Rows of the test split are not used. The published set shrinks as videos leave
YouTube, so there is no official count. The note compares with the annotations.
"""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mgm.data.index import Index
from mgm.data.published.listed import (
    Entry,
    Lists,
    VideoFiles,
    add,
    find_videos,
    index_listed,
    plain_name,
    read_text,
)
from mgm.errors import UserError
from mgm.spec import PUBLISHED

_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
_SPLITS = {"train": "train", "val": "test", "validate": "test", "validation": "test", "test": ""}
_NAME = re.compile(r"(.+)_(\d+)_(\d+)")


def index_k400(source: Path, out: Path) -> Index:
    """Index the videos that the annotations list, and write the index to folder `out`.

    The note counts files that are more than a second too short. A file in another class's folder is
    left out.
    """
    files, annotations = find_videos(source, _key), read_annotations(source)
    _leave_out_other_classes(files, annotations)
    return index_listed(
        files, annotations, out, "Kinetics-400", remark=lambda index: _remarks(index, annotations)
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
    """Read the annotations of a source. Keys are ID_START_END, without leading zeros.

    Raises:
        UserError: there are none, or a line is wrong. The message names the file and the line.
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
            raise UserError(
                f"{where}: split {split!r} is not one of {', '.join(_SPLITS)}; correct it"
            )
        start, end = (_second(where, column, row[column]) for column in ("time_start", "time_end"))
        if end <= start:
            raise UserError(
                f"{where}: starts at second {start} and ends at second {end}; correct it"
            )
        key = f"{identity}_{start}_{end}"
        if not _SPLITS[split]:
            unused.add(key)
            continue
        label = plain_name(where, row["label"])
        if label not in trained:
            raise UserError(
                f"{where}: class {label!r} is not one of the {len(trained)} with training videos; "
                "correct one"
            )
        name = f"{split}/{label}/{identity}_{start:06}_{end:06}.mp4"
        add(entries, key, Entry(name, label_of[label], _SPLITS[split], identity), where)
    return Lists(tuple(label_of), entries, frozenset(unused - entries.keys()))


def _rows(source: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place, values) of each line of the annotations.

    CSV files with other columns are ignored.
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
    """Return the key of a file named ID_START_END, with or without leading zeros."""
    match = _NAME.fullmatch(name)
    return f"{match[1]}_{int(match[2])}_{int(match[3])}" if match else None


def _seconds(key: str) -> int:
    _, start, end = key.rsplit("_", 2)
    return int(end) - int(start)


def _leave_out_other_classes(files: VideoFiles, annotations: Lists) -> None:
    """Leave out files that are in the folder of a class other than the annotated one.

    A space and an underscore in a folder's name are the same.
    """

    def plain(name: str) -> str:
        return name.replace("_", " ").casefold()

    class_of = {plain(name): name for name in annotations.classes}
    for key, entry in annotations.entries.items():
        name, label = files.name_of.get(key, ""), annotations.classes[entry.label]
        if (
            lies_in := class_of.get(plain(os.path.basename(os.path.dirname(name))), label)
        ) != label:
            reason = (
                f"is in the folder of class {lies_in}, but is annotated as {label}; move it, or "
                "correct the annotation"
            )
            files.unusable.append((files.name_of.pop(key), reason))
