"""HMDB51 (Kuehne et al., 2011) in its official layout becomes an index.

    SOURCE/.../CLASS/NAME.avi                       hmdb51_org/CLASS as published, or the class
    folders themselves SOURCE/.../CLASS_test_splitN.txt                a name and its mark a line: 0
    unused, 1 train, 2 test

The split files may lie in any folder of the source, or in one within it
(testTrainMulti_7030_splits); of split 1 mgm carries a copy, lists/hmdb51_split1.txt.xz. Labels
number the classes in sorted order. A name is SOURCE_CLASS_..._N: videos cut from one source film
share its first part, and the official splits keep those together.
"""

import os
from collections import Counter
from pathlib import Path

from mgm.data.index import Index
from mgm.data.published import PUBLISHED
from mgm.data.published.listed import (
    Entry,
    Lists,
    add,
    carried,
    find_videos,
    index_listed,
    plain_name,
    read_text,
)
from mgm.errors import UserError

A_CLASS = (70, 30)  # train and test videos, in each split
_SPLITS = {"0": "", "1": "train", "2": "test"}


def index_hmdb51(source: Path, out: Path, split: int = 1) -> Index:
    found, lists = find_videos(source, "{0}/{1}".format), read_lists(source, split)
    counts, (train, test) = (
        Counter((entry.label, entry.split) for entry in lists.entries.values()),
        A_CLASS,
    )
    other = [
        name
        for label, name in enumerate(lists.classes)
        if (counts[label, "train"], counts[label, "test"]) != A_CLASS
    ]
    uneven = (
        f"; the lists of {len(other)} classes have other than {train} train and {test} test videos, such as {other[0]}"
        if other
        else ""
    )
    return index_listed(
        found,
        lists,
        out,
        f"HMDB51 split {split}",
        PUBLISHED["hmdb51"].official,
        lambda index: uneven,
    )


def read_lists(source: Path, split: int) -> Lists:
    """What the lists of a split in a source say, by CLASS/NAME without suffix; of split 1, if there
    are none, those carried here.

    Raises:
        UserError: a line cannot be followed, the lists lie in several folders, or there are none of
            this split.
    """
    paths = sorted(
        path
        for depth in ("", "*/", "*/*/")
        for path in source.glob(f"{depth}*_test_split{split}.txt")
    )
    if len(folders := sorted({str(path.parent) for path in paths})) > 1:
        raise UserError(
            f"{folders[0]}, {folders[1]}: both hold lists of split {split}; remove one of them"
        )
    if not paths and split == 1:
        return carried_lists()
    if not paths:
        raise UserError(
            f"{source}: has no lists *_test_split{split}.txt; add the published testTrainMulti_7030_splits (mgm carries split 1 only)"
        )
    return _follow(
        [
            (f"{path}: line {number}", path.name.removesuffix(f"_test_split{split}.txt"), line)
            for path in paths
            for number, line in enumerate(read_text(path, "add it").splitlines(), start=1)
            if line.strip()
        ]
    )


def carried_lists() -> Lists:
    """The official lists of split 1, from the copy carried here: lines CLASS/NAME MARK."""
    lines = [line.split("/") for line in carried("hmdb51_split1.txt.xz").splitlines()]
    return _follow(
        [
            (f"the carried list: line {number}", label, line)
            for number, (label, line) in enumerate(lines, start=1)
        ]
    )


def _follow(lines: list[tuple[str, str, str]]) -> Lists:
    """The lists of these (where it is, class, line)s."""
    label_of = {name: label for label, name in enumerate(sorted({name for _, name, _ in lines}))}
    entries: dict[str, Entry] = {}  # with what is marked unused, until the end
    for where, label, line in lines:
        name, _, mark = line.strip().rpartition(" ")
        if mark not in _SPLITS or not name:
            raise UserError(f"{where}: is not a video's name and its mark, 0, 1 or 2; correct it")
        stem = os.path.splitext(plain_name(where, name.strip()))[0]
        film = stem.rpartition(f"_{label}_")[0] or stem
        add(
            entries,
            f"{label}/{stem}",
            Entry(f"{label}/{name.strip()}", label_of[label], _SPLITS[mark], f"{label}/{film}"),
            where,
        )
    used = {key: entry for key, entry in entries.items() if entry.split}
    return Lists(tuple(label_of), used, frozenset(entries.keys() - used.keys()))
