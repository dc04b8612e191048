"""List a user's own videos: one folder per class, a flat folder, a CSV, or `path label` lists.

The source is one of these:

- A CSV, or a folder with a `videos.csv`. It has a header and the columns
  `path[,label][,split][,group]`, in any order. Without labels, the videos are for pretraining.
- A folder with lists as VideoMAE and mmaction2 have them: .csv or .txt files with `train`, `val` or
  `test` in their names, and a path and a label number in each line. Commas, spaces or tabs separate
  them. A number of frames may stand between the two.
- A folder of class folders. Every video below a class folder is a video of that class. If all
  folders are called train, val, test and the like, classes are the folders one level below.
- A folder of videos. They have no labels, and are for pretraining.

Splits are train and test. A validation split is the test split if there is no other. Without
splits, about a fifth of the videos become the test split. A hash of a video's group decides which,
so other videos change nothing. Groups are never divided. They are the CSV's column `group`, or
else the files.
"""

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from mgm.data.index import SPLITS
from mgm.errors import UserError
from mgm.files import read_text

UNLABELLED = "unlabelled"  # the one class of videos without labels
HASHED = "no split given: a hash of each group, or else path, chose a fifth for the test split"
SHOWN = 10  # absent videos that are named
SPLIT_OF = {"train": "train", "training": "train", "test": "test", "testing": "test"} | (
    dict.fromkeys(("val", "valid", "validation", "validate", "eval", "dev"), "val")
)
SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m2v", "ts", "mts", "m2ts"),
        *("vob", "wmv", "asf", "flv", "3gp", "3g2", "ogv", "mxf", "rm", "rmvb", "dv", "divx"),
        *("h264", "264", "hevc", "y4m", "gif"),
    )
)
# A line of a list: a path, perhaps a number of frames, and a label.
LINE = re.compile(r"(.+?)[,\s]\s*(?:\d+[,\s]\s*)?(\d+)\s*")


class Row(NamedTuple):
    """A video as a source lists it. `split` and `group` are empty if the source has none."""

    path: str
    label: str
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class Entry:
    """A video to prepare: its name and path as the source lists it, below its root or absolute."""

    name: str
    source: str
    label: int
    split: str
    group: str


@dataclass
class Listing:
    """The videos of a source, before any is opened.

    Attributes:
        note: where the split comes from, and what is missing.
        excluded: (path, reason) of listed videos that cannot be used.
    """

    root: Path
    classes: tuple[str, ...]
    entries: list[Entry]
    note: str
    excluded: list[tuple[str, str]] = field(default_factory=list)


def key(path: str) -> str:
    """Return what two names share that differ in case or in their form of Unicode alone."""
    return normalize("NFC", normalize("NFC", path).casefold())


class Files:
    """The video files below a folder, without hidden ones. Links are followed."""

    def __init__(self, root: Path):
        self.root, self.paths, self._named = root, dict[str, None](), dict[str, list[str]]()
        seen = set[str]()
        for at, folders, files in os.walk(root, followlinks=True):
            # A link may lead to a folder that was seen, such as its own parent.
            if (place := os.path.realpath(at)) in seen:
                folders.clear()
                continue
            seen.add(place)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                    path = os.path.relpath(os.path.join(at, name), root).replace(os.sep, "/")
                    self.paths[path] = None
                    # Without its suffix, since lists may have another.
                    self._named.setdefault(key(stem(name)), []).append(path)

    def find(self, path: str) -> str | None:
        """Return the file that a list calls `path`, or else the one file of its name."""
        if path in self.paths or os.path.isfile(self.root / path):
            return path
        named = self._named.get(key(stem(path.rpartition("/")[2])), [])
        return named[0] if len(named) == 1 else None


def stem(path: str) -> str:
    """Return a path without the suffix of a video."""
    start, suffix = os.path.splitext(path)
    return start if suffix.lower() in SUFFIXES else path


def listing(
    root: Path,
    rows: Iterable[Row],
    note: str,
    classes: Sequence[str] = (),
    files: Files | None = None,
) -> Listing:
    """Return the listing of some rows, whose files are looked up below `root`.

    Args:
        classes: names by label. Empty: those in the rows, sorted.
        files: the files below `root`, where they are known already.
    """
    base, files = os.path.join(os.path.abspath(root), ""), files or Files(root)
    rows = [
        row._replace(path=os.path.normpath(row.path.removeprefix(base)))
        for row in _with_splits(list(rows))
    ]
    found, absent, excluded = dict[str, Row](), list[Row](), list[tuple[str, str]]()
    for row in rows:
        path = files.find(row.path)
        if path is None:
            absent.append(row)
        elif not path.isprintable():
            excluded.append((ascii(path)[1:-1], "has a name that cannot be printed; rename it"))
        elif found.setdefault(path, row)[1:] != row[1:]:
            raise UserError(f"{root}: {path} is listed twice, with other labels or splits")
    shown = ", ".join(row.path for row in absent[:SHOWN]) + ", ..." * (len(absent) > SHOWN)
    if not rows:
        raise UserError(f"{root}: has no videos")
    if not found:
        raise UserError(f"{root}: has 0 of the {len(rows):,} listed videos: {shown}")
    if absent:
        count = Counter(row.split for row in absent)
        counts = " and ".join(f"{count[split]:,} {split}" for split in SPLITS if count[split])
        note += f"; absent: {counts} of the {len(rows):,} listed videos ({shown})"
    # Sort classes by name, or by value if all names are numbers.
    names = {row.label for row in rows if row.label.isprintable()}
    numbers = all(name.isdecimal() for name in names)
    classes = classes or sorted(names, key=lambda name: (int(name) if numbers else 0, name))
    label_of = {name: label for label, name in enumerate(classes)}
    entries = []
    for path, (listed, label, split, group) in found.items():
        # A list's absolute path is of another machine.
        name = stem(path if os.path.isabs(listed) else listed)
        entries.append(Entry(name, path, label_of[label], split, group or path))
    return Listing(root, tuple(classes), entries, note, excluded)


def _with_splits(rows: list[Row]) -> list[Row]:
    """Return rows that are in train or test each."""
    splits = {row.split for row in rows}
    if splits == {""} or splits == {"val"}:
        return _split_by_hash(rows)
    if "" in splits:
        raise UserError(f"{next(row.path for row in rows if not row.split)}: has no split")
    tested = "test" if "test" in splits else "val"
    return [
        row._replace(split="test" if row.split == tested else "train")
        for row in rows
        if row.split in ("train", tested)
    ]


def _split_by_hash(rows: list[Row]) -> list[Row]:
    """Return rows of which about a fifth are in the test split, in whole groups.

    Of a class with several groups, at least one is tested on and at least one is trained on, unless
    that takes another class out of a split.
    """
    marks = [
        int(hashlib.sha256(os.fsencode(row.group or row.path)).hexdigest(), 16) for row in rows
    ]
    test = {mark for mark in marks if mark % 5 == 0}
    of_class: dict[str, set[int]] = {}
    for row, mark in zip(rows, marks):
        of_class.setdefault(row.label, set()).add(mark)
    several = [groups for _, groups in sorted(of_class.items()) if len(groups) > 1]

    def lacking(test: set[int]) -> set[int]:
        """Return which classes are in one split alone."""
        return {n for n, own in enumerate(several) if len(own & test) in (0, len(own))}

    # Move a group of such a class, if that takes no other class out of a split.
    for number in sorted(lacking(test)):
        for mark in sorted(several[number]):
            if number in (now := lacking(test)) and lacking(test ^ {mark}) < now:
                test ^= {mark}
    return [
        row._replace(split="test" if mark in test else "train") for row, mark in zip(rows, marks)
    ]


def list_folder(source: Path) -> Listing:
    """List the videos of a folder or a CSV."""
    table = source / "videos.csv" if (source / "videos.csv").is_file() else source
    if table.is_file():
        rows = list(read_csv(table))
        unlabelled = [row.path for row in rows if row.label == UNLABELLED]
        if 0 < len(unlabelled) < len(rows):
            raise UserError(f"{table}: {unlabelled[0]} has no label, and others have one")
        return listing(table.parent, rows, "split as listed" if rows and rows[0].split else HASHED)
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    if rows := label_lists(source):
        return listing(source, rows, "lists of paths and labels")
    files = Files(source)
    made = listing(source, *_rows_of(source, list(files.paths)), files=files)
    if made.classes != (UNLABELLED,):
        loose = [path for path in files.paths if "/" not in path]
        made.excluded += [(path, "is not in a class folder, so it has no label") for path in loose]
    return made


def _split_of(folder: str) -> str:
    """Return the split that a folder's name means, also as train_set; "" if none."""
    return SPLIT_OF.get(re.sub(r"[ _-]?(set|split)$", "", folder.casefold()), "")


def _rows_of(source: Path, paths: Sequence[str]) -> tuple[list[Row], str]:
    """Return the rows of the videos in a folder, and where their split comes from."""
    folders = [path.split("/")[:-1] for path in paths]
    tops = {names[0] for names in folders if names}
    # Below folders of splits, classes are one level deeper.
    level = int(bool(tops) and all(map(_split_of, tops)))
    if not level and {"train"} < {_split_of(name) for names in folders for name in names} - {""}:
        raise UserError(
            f"{source}: has folders of splits, such as train, next to others or below them; pass "
            "the folder that has the splits alone, or list the videos in a videos.csv"
        )
    splits = [_split_of(names[0]) if level and names else "" for names in folders]
    # A lone folder "train" is no split.
    given = {"train"} < {*splits} - {""}
    labels = ["".join(names[level : level + 1]) for names in folders]
    rows = [
        Row(path, label or UNLABELLED, split if given else "")
        for path, label, split in zip(paths, labels, splits)
        if label or not any(labels)
    ]
    return rows, "split as the folders say" if given else HASHED


def read_csv(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV `path[,label][,split][,group]`."""
    with StringIO(read_text(path)) as file:
        rows = csv.DictReader(file)
        header = rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        if not {"path"} <= {*header} <= {*Row._fields}:
            raise UserError(
                f"{path}: line 1: the columns are {','.join(header)}, not path[,label][,split]"
                "[,group]"
            )
        for row in rows:
            if None in row or None in row.values():
                raise UserError(
                    f"{path}: line {rows.line_num} has other values than the {len(header)} "
                    "columns; quote values with commas"
                )
            cells = {name: cell.strip() for name, cell in row.items()}
            split = cells.get("split", "").casefold()
            if split and split not in SPLIT_OF:
                raise UserError(
                    f"{path}: line {rows.line_num}: split {split!r} is not train or test"
                )
            label = cells.get("label") or UNLABELLED
            yield Row(cells["path"], label, SPLIT_OF.get(split, ""), cells.get("group", ""))


def label_lists(source: Path, number: int = 1) -> list[Row]:
    """Return the rows of the lists `path label` in a folder; none if it has no such lists.

    Args:
        number: the split. Lists named split_N of other splits are left out.
    """
    rows = list[Row]()
    for path in sorted([*source.glob("*.csv"), *source.glob("*.txt")]):
        words = re.findall("[a-z]+", path.stem.lower())
        split = next((SPLIT_OF[word] for word in words if word in SPLIT_OF), "")
        of = re.search(r"split_?(\d)", path.stem.lower())
        if not split or (of and int(of[1]) != number):
            continue
        lines = [line for line in read_text(path).splitlines() if line.strip()]
        found = [LINE.fullmatch(line) for line in lines]
        rows += [Row(line[1], line[2], split) for line in found if line] if all(found) else []
    # Lists of a test split alone are other files.
    splits = {row.split for row in rows}
    if splits == {"train"}:
        return [row._replace(split="") for row in rows]
    return rows if "train" in splits else []
