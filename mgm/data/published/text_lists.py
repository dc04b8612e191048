"""UCF101 and HMDB51 in their official layouts: a folder per class, and lists of text.

UCF101 (Soomro, Zamir and Shah, 2012):

    SOURCE/UCF-101/CLASS/v_CLASS_gNN_cMM.avi, or SOURCE/CLASS/...
    SOURCE/ucfTrainTestlist/{classInd,trainlist0N,testlist0N}.txt

If the source has no lists, those of this package are used. A label is the official number minus 1,
whichever classes the source has. Clips of a class and a group come from the same source video, and
no group is on both sides of an official split.

Our copy of the lists, lists/ucf101.csv, has the number of clips in each of the 25 groups of a
class. The official files (ucfTrainTestlist at www.crcv.ucf.edu/research/data-sets/ucf101) follow
from it: clips are numbered from c01 without gaps, and split N tests groups 7N-6 to 7N of every
class.

HMDB51 (Kuehne et al., 2011):

    SOURCE/.../CLASS/NAME.avi               hmdb51_org/CLASS as published, or the class folders
    SOURCE/.../CLASS_test_splitN.txt        per line a name and its mark: 0 unused, 1 train, 2 test

The split files may be in the source, or up to two folders below it (testTrainMulti_7030_splits).
lists/hmdb51_split1.txt.xz is a copy of split 1. Labels number the classes in sorted order. A name
is SOURCE_CLASS_..._N. Videos of the same film have the same SOURCE, and no film is on both sides of
an official split.
"""

import csv
import os
from collections import Counter
from pathlib import Path

from mgm.data.index import SPLITS, Index
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
from mgm.spec import PUBLISHED

_FILES_OF = {"HandstandPushups": "HandStandPushups"}  # spelled in another way in file names


def index_ucf101(source: Path, out: Path, split: int = 1) -> Index:
    root, folder = source / "UCF-101", source / "ucfTrainTestlist"
    files = find_videos(root if root.is_dir() else source, "{0}/{1}".format)
    lists = read_ucf101_lists(folder, split) if folder.is_dir() else carried_ucf101_lists(split)
    return index_listed(
        files, lists, out, f"UCF101 split {split}", PUBLISHED["ucf101"].splits[split - 1]
    )


def carried_ucf101_lists(split: int) -> Lists:
    """Return the official lists, from the copy in this package."""
    clips_of = dict(list(csv.reader(carried("ucf101.csv").splitlines()))[1:])
    tested = range(7 * split - 6, 7 * split + 1)
    split_of = {
        f"{name}/v_{_FILES_OF.get(name, name)}_g{group:02}_c{clip:02}.avi": "test"
        if group in tested
        else "train"
        for name, counts in clips_of.items()
        for group, count in enumerate(counts, start=1)
        for clip in range(1, int(count) + 1)
    }
    return _lists(tuple(clips_of), split_of)


def read_ucf101_lists(folder: Path, split: int) -> Lists:
    """Read the lists in a folder, in the official format.

    Lines may have Windows line ends, as those of classInd.txt have.

    Raises:
        UserError: a file is missing, or a line is wrong. The message names the file and the line.
    """
    names: dict[str, str] = {}  # official number: class
    for where, words in _lines(folder / "classInd.txt"):
        if len(words) != 2 or not words[0].isdecimal():
            raise UserError(
                f"{where}: is not a number and a class; correct it, or remove {folder} to use "
                "mgm's own lists"
            )
        names[words[0]] = words[1]
    if sorted(map(int, names)) != list(range(1, len(names) + 1)):
        raise UserError(
            f"{folder / 'classInd.txt'}: its {len(names)} classes are not numbered from 1 to "
            f"{len(names)}; correct it"
        )
    split_of: dict[str, str] = {}
    for side in SPLITS:
        for where, (name, *number) in _lines(folder / f"{side}list{split:02}.txt"):
            label, separator, _ = name.partition("/")
            if not separator or len(number) > 1:
                raise UserError(
                    f"{where}: is not CLASS/VIDEO.avi, or CLASS/VIDEO.avi and the class's number; "
                    "correct it"
                )
            if label not in names.values() or (number and number[0] not in names):
                raise UserError(
                    f"{where}: class {' '.join([label, *number])} is not one of the {len(names)} "
                    "in classInd.txt; correct one"
                )
            if number and names[number[0]] != label:
                raise UserError(
                    f"{where}: class {label} has number {number[0]}, which is "
                    f"{names[number[0]]} in classInd.txt; correct one"
                )
            plain_name(where, name.partition("/")[2])
            if name in split_of:
                raise UserError(f"{where}: names {name} a second time; remove one of the lines")
            split_of[name] = side
    return _lists(tuple(names[number] for number in sorted(names, key=int)), split_of)


def _lists(classes: tuple[str, ...], split_of: dict[str, str]) -> Lists:
    """Return the lists, from {path of a video: split}. Keys are CLASS/NAME without suffix."""
    label_of = {name: label for label, name in enumerate(classes)}
    entries = {
        name.removesuffix(".avi"): Entry(
            name, label_of[name.partition("/")[0]], side, Path(name).stem.rpartition("_")[0]
        )
        for name, side in split_of.items()
    }
    return Lists(classes, entries)


def _lines(path: Path) -> list[tuple[str, list[str]]]:
    """Return (place, words) of each line of a list, without empty lines."""
    text = read_text(path, f"add it, or remove {path.parent} to use mgm's own lists")
    return [
        (f"{path}: line {number}", line.split())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]


A_CLASS = (70, 30)  # train and test videos, in each split
_SPLITS = {"0": "", "1": "train", "2": "test"}


def index_hmdb51(source: Path, out: Path, split: int = 1) -> Index:
    files, lists = find_videos(source, "{0}/{1}".format), read_hmdb51_lists(source, split)
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
        f"; the lists of {len(other)} classes have other than {train} train and {test} test "
        f"videos, such as {other[0]}"
        if other
        else ""
    )
    return index_listed(
        files,
        lists,
        out,
        f"HMDB51 split {split}",
        PUBLISHED["hmdb51"].splits[split - 1],
        lambda index: uneven,
    )


def read_hmdb51_lists(source: Path, split: int) -> Lists:
    """Read the lists of a split in a source. Keys are CLASS/NAME without suffix.

    If the source has no lists of split 1, those of this package are used.

    Raises:
        UserError: a line is wrong, the lists are in several folders, or there are none.
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
        return carried_hmdb51_lists()
    if not paths:
        raise UserError(
            f"{source}: has no lists *_test_split{split}.txt; add the published "
            "testTrainMulti_7030_splits (mgm has a copy of split 1 only)"
        )
    return _follow(
        [
            (f"{path}: line {number}", path.name.removesuffix(f"_test_split{split}.txt"), line)
            for path in paths
            for number, line in enumerate(read_text(path, "add it").splitlines(), start=1)
            if line.strip()
        ]
    )


def carried_hmdb51_lists() -> Lists:
    """Return the official lists of split 1, from the copy in this package."""
    lines = [line.split("/") for line in carried("hmdb51_split1.txt.xz").splitlines()]
    return _follow(
        [
            (f"mgm's own list: line {number}", label, line)
            for number, (label, line) in enumerate(lines, start=1)
        ]
    )


def _follow(lines: list[tuple[str, str, str]]) -> Lists:
    """Return the lists, from (place, class, line) of each line."""
    label_of = {name: label for label, name in enumerate(sorted({name for _, name, _ in lines}))}
    # Unused videos stay in it until the end.
    entries: dict[str, Entry] = {}
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
