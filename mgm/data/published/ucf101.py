"""UCF101 (Soomro, Zamir and Shah, 2012) in its official layout becomes an index.

    SOURCE/UCF-101/CLASS/v_CLASS_gNN_cMM.avi, or SOURCE/CLASS/...
    SOURCE/ucfTrainTestlist/{classInd,trainlist0N,testlist0N}.txt       taken if there, otherwise
    the lists carried here

A label is the official one, less one, whichever classes are there. Videos of a class and a group
come from one source video, and the official splits keep groups together.

The carried lists, lists/ucf101.csv, say how many clips each of the 25 groups of a class has. That
is all there is to the official files (ucfTrainTestlist at
www.crcv.ucf.edu/research/data-sets/ucf101): clips count from c01 without gaps, and split N tests
groups 7N-6 to 7N of every class.
"""

import csv
from pathlib import Path

from mgm.data.index import SPLITS, Index
from mgm.data.published import PUBLISHED
from mgm.data.published.listed import (
    Entry,
    Lists,
    carried,
    find_videos,
    index_listed,
    plain_name,
    read_text,
)
from mgm.errors import UserError

OFFICIAL = {
    1: PUBLISHED["ucf101"].official,
    2: (9_586, 3_734),
    3: (9_624, 3_696),
}  # split: its train and test videos
_FILES_OF = {"HandstandPushups": "HandStandPushups"}  # the one class whose files spell it otherwise


def index_ucf101(source: Path, out: Path, split: int = 1) -> Index:
    root, folder = source / "UCF-101", source / "ucfTrainTestlist"
    found = find_videos(root if root.is_dir() else source, "{0}/{1}".format)
    lists = read_lists(folder, split) if folder.is_dir() else carried_lists(split)
    return index_listed(found, lists, out, f"UCF101 split {split}", OFFICIAL[split])


def carried_lists(split: int) -> Lists:
    """The official lists, from the copy carried here."""
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


def read_lists(folder: Path, split: int) -> Lists:
    """The lists in a folder, in the official format. Lines may end as on Windows; classInd.txt's
    do.

    Raises:
        UserError: a file is missing, or a line cannot be followed; the file and the line are named.
    """
    names: dict[str, str] = {}  # official number: class
    for where, words in _lines(folder / "classInd.txt"):
        if len(words) != 2 or not words[0].isdecimal():
            raise UserError(
                f"{where}: is not a number and a class; correct it, or remove {folder} to use the lists mgm carries"
            )
        names[words[0]] = words[1]
    if sorted(map(int, names)) != list(range(1, len(names) + 1)):
        raise UserError(
            f"{folder / 'classInd.txt'}: its {len(names)} classes are not numbered from 1 to {len(names)}; correct it"
        )
    split_of: dict[str, str] = {}
    for side in SPLITS:
        for where, (name, *number) in _lines(folder / f"{side}list{split:02}.txt"):
            label, separator, _ = name.partition("/")
            if not separator or len(number) > 1:
                raise UserError(
                    f"{where}: is not a path CLASS/VIDEO.avi, with its class's number at most; correct it"
                )
            if label not in names.values() or (number and number[0] not in names):
                raise UserError(
                    f"{where}: class {' '.join([label, *number])} is not one of the {len(names)} in classInd.txt; correct one"
                )
            if number and names[number[0]] != label:
                raise UserError(
                    f"{where}: class {label} has number {number[0]}, which classInd.txt gives to {names[number[0]]}; correct one"
                )
            plain_name(where, name.partition("/")[2])
            if name in split_of:
                raise UserError(f"{where}: names {name} a second time; remove one of the lines")
            split_of[name] = side
    return _lists(tuple(names[number] for number in sorted(names, key=int)), split_of)


def _lists(classes: tuple[str, ...], split_of: dict[str, str]) -> Lists:
    """By CLASS/NAME without suffix, given the split of each video by its path below the videos'
    folder.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    entries = {
        name.removesuffix(".avi"): Entry(
            name, label_of[name.partition("/")[0]], side, Path(name).stem.rpartition("_")[0]
        )
        for name, side in split_of.items()
    }
    return Lists(classes, entries)


def _lines(path: Path) -> list[tuple[str, list[str]]]:
    """(where it is, its words) of every line of a list that is not empty."""
    text = read_text(path, f"add it, or remove {path.parent} to use the lists mgm carries")
    return [
        (f"{path}: line {number}", line.split())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
