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

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from mgm.data.index import Index
from mgm.data.published.listed import (
    Entry,
    Lists,
    VideoFiles,
    add,
    find_videos,
    index_listed,
    require_class,
)
from mgm.errors import UserError, valid
from mgm.reading import read_table

_NAME = re.compile(r"(.+)_(\d+)_(\d+)")
Second = Annotated[float, Field(ge=0, lt=1e9)]


class _Row(BaseModel):
    """The columns of the annotations that are read."""

    label: str
    youtube_id: str
    time_start: Second
    time_end: Second
    split: Literal["train", "val", "validate", "validation", "test"]


def index_k400(source: Path, out: Path) -> Index:
    """Index the videos that the annotations list, and write the index to folder `out`.

    The note counts files that are more than a second too short. A file in another class's folder is
    left out.
    """
    files, annotations = find_videos(source, _key), read_annotations(source)
    _leave_out_other_classes(files, annotations)
    return index_listed(files, annotations, out, "Kinetics-400")


def read_annotations(source: Path) -> Lists:
    """Read the annotations of a source. Keys are ID_START_END, without leading zeros."""
    rows = list(_rows(source))
    if not rows:
        raise UserError(
            f"{source}: has no annotations (CSVs with columns {','.join(_Row.model_fields)})"
        )
    classes = sorted({row.label for _, row in rows if row.split != "test"})
    label_of = {name: label for label, name in enumerate(classes)}
    trained = {row.label for _, row in rows if row.split == "train"}
    entries: dict[str, Entry] = {}
    unused = set()
    for where, row in rows:
        start, end = int(row.time_start), int(row.time_end)
        key = f"{row.youtube_id}_{start}_{end}"
        if row.split == "test":
            unused.add(key)
            continue
        require_class(row.label, trained, where)
        name = f"{row.split}/{row.label}/{row.youtube_id}_{start:06}_{end:06}.mp4"
        split, label = "train" if row.split == "train" else "test", label_of[row.label]
        add(entries, key, Entry(name, label, split, row.youtube_id, seconds=end - start), where)
    return Lists(tuple(classes), entries, frozenset(unused - entries.keys()))


def _rows(source: Path) -> Iterator[tuple[str, _Row]]:
    """Yield (place, row) of each line of the annotations. Ignore files with other columns."""
    for path in sorted((source / "annotations").glob("*.csv")) or sorted(source.glob("*.csv")):
        lines = read_table(path)
        header = next(lines, (0, []))[1]
        for number, line in lines if set(_Row.model_fields) <= set(header) else ():
            where = f"{path}: line {number}"
            with valid(f"{where}: "):
                if line:
                    yield where, _Row.model_validate(dict(zip(header, line)))


def _key(_: str, name: str) -> str | None:
    """Return the key of a file named ID_START_END, with or without leading zeros."""
    match = _NAME.fullmatch(name)
    return f"{match[1]}_{int(match[2])}_{int(match[3])}" if match else None


def _leave_out_other_classes(files: VideoFiles, annotations: Lists) -> None:
    """Leave out files that are in the folder of a class other than the annotated one.

    A space and an underscore in a folder's name are the same.
    """

    def plain(name: str) -> str:
        return name.replace("_", " ").casefold()

    class_of = {plain(name): name for name in annotations.classes}
    for key, entry in annotations.entries.items():
        folder = Path(files.name_of.get(key, "")).parent.name
        label = annotations.classes[entry.label]
        if (lies_in := class_of.get(plain(folder), label)) != label:
            reason = f"is in the folder of class {lies_in}, but is annotated as {label}"
            files.unusable.append((files.name_of.pop(key), reason))
