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
from collections.abc import Iterable
from pathlib import Path

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
from mgm.reading import read_text
from mgm.spec import PUBLISHED

_FILES_OF = {"HandstandPushups": "HandStandPushups"}  # spelled in another way in file names


def index_ucf101(source: Path, out: Path, split: int = 1) -> Index:
    root, folder = source / "UCF-101", source / "ucfTrainTestlist"
    files = find_videos(root if root.is_dir() else source, "{0}/{1}".format)
    lists = read_ucf101_lists(folder, split) if folder.is_dir() else carried_ucf101_lists(split)
    official = PUBLISHED["ucf101"].splits[split - 1]
    return index_listed(files, lists, out, f"UCF101 split {split}", official)


def carried_ucf101_lists(split: int) -> Lists:
    """Return the official lists, from the copy in this package."""
    clips_of = dict(list(csv.reader(carried("ucf101.csv").splitlines()))[1:])
    tested = range(7 * split - 6, 7 * split + 1)
    return _ucf101_lists(
        tuple(clips_of),
        (
            (
                "mgm's own list",
                f"{name}/v_{_FILES_OF.get(name, name)}_g{group:02}_c{clip:02}.avi",
                "test" if group in tested else "train",
            )
            for name, counts in clips_of.items()
            for group, count in enumerate(counts, start=1)
            for clip in range(1, int(count) + 1)
        ),
    )


def read_ucf101_lists(folder: Path, split: int) -> Lists:
    """Read the lists in a folder, in the official format. Line ends may be those of Windows."""
    path = folder / "classInd.txt"
    number_of = {
        name: number for _, line in _lines(path) for number, _, name in [line.partition(" ")]
    }
    classes, rows = numbered(path, number_of, 1), []
    for side in SPLITS:
        for where, line in _lines(folder / f"{side}list{split:02}.txt"):
            name, _, number = line.partition(" ")
            label = name.partition("/")[0]
            if number and number_of.get(label) != number:
                raise UserError(f"{where}: class {label} has another number in {path.name}")
            rows.append((where, name, side))
    return _ucf101_lists(classes, rows)


def _ucf101_lists(classes: tuple[str, ...], rows: Iterable[tuple[str, str, str]]) -> Lists:
    """Return the lists from (place, path of a video, split). Keys are CLASS/NAME without suffix."""
    label_of = {name: label for label, name in enumerate(classes)}
    entries: dict[str, Entry] = {}
    for where, name, split in rows:
        label, _, file = name.partition("/")
        require_class(label, label_of, where)
        group = file.rpartition("_")[0]
        add(entries, name.removesuffix(".avi"), Entry(name, label_of[label], split, group), where)
    return Lists(classes, entries)


def _lines(path: Path) -> list[tuple[str, str]]:
    """Return (place, line) of each line of a list, without empty lines."""
    return [
        (f"{path}: line {number}", line.strip())
        for number, line in enumerate(read_text(path).splitlines(), start=1)
        if line.strip()
    ]


def index_hmdb51(source: Path, out: Path, split: int = 1) -> Index:
    files, lists = find_videos(source, "{0}/{1}".format), read_hmdb51_lists(source, split)
    official = PUBLISHED["hmdb51"].splits[split - 1]
    return index_listed(files, lists, out, f"HMDB51 split {split}", official)


def read_hmdb51_lists(source: Path, split: int) -> Lists:
    """Read the lists of a split in a source. Keys are CLASS/NAME without suffix.

    If the source has no lists of split 1, those of this package are used.
    """
    end = f"_test_split{split}.txt"
    paths = [path for depth in ("", "*/", "*/*/") for path in source.glob(f"{depth}*{end}")]
    if not paths and split == 1:
        return carried_hmdb51_lists()
    if not paths:
        raise UserError(f"{source}: has no lists *{end}, and mgm has a copy of split 1 only")
    return _hmdb51_lists(
        (where, f"{path.name.removesuffix(end)}/{line}")
        for path in sorted(paths)
        for where, line in _lines(path)
    )


def carried_hmdb51_lists() -> Lists:
    """Return the official lists of split 1, from the copy in this package."""
    lines = carried("hmdb51_split1.txt.xz").splitlines()
    return _hmdb51_lists(("mgm's own list", line) for line in lines)


def _hmdb51_lists(rows: Iterable[tuple[str, str]]) -> Lists:
    """Return the lists, from the place of each line, and CLASS/LINE."""
    rows = list(rows)
    classes = tuple(sorted({line.partition("/")[0] for _, line in rows}))
    # Unused videos stay in it until the end.
    entries: dict[str, Entry] = {}
    for where, line in rows:
        name, _, mark = line.rstrip().rpartition(" ")
        if mark not in ("0", "1", "2"):
            raise UserError(f"{where}: is not a video's name and its mark, 0, 1 or 2")
        name = name.rstrip()
        key, label = os.path.splitext(name)[0], name.partition("/")[0]
        film = key.rpartition(f"_{label}_")[0] or key
        split = ("", *SPLITS)[int(mark)]
        add(entries, key, Entry(name, classes.index(label), split, film), where)
    used = {key: entry for key, entry in entries.items() if entry.split}
    return Lists(classes, used, frozenset(entries.keys() - used.keys()))
