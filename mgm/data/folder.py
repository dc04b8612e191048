"""List a user's own videos: one folder per class, a flat folder, a table or lists.

The source is one of these:

- A table or a list (`mgm.data.lists`), or a folder with a table videos.csv. Without labels, the
  videos are for pretraining.
- A folder with lists as VideoMAE, mmaction2 and UCF101 have them: .csv or .txt files with `train`,
  `val` or `test` in their names. A file of class names such as classInd.txt names the labels.
- A folder of class folders. Every video below a class folder is a video of that class. If all
  folders are called train, val, test and the like, classes are the folders one level below.
- A folder of videos. They have no labels, and are for pretraining.

Splits are train and test. A validation split is the test split if there is no other. Without
splits, a fifth of each class becomes the test split. Videos that were prepared keep their split.
Groups are never divided. They are the table's column `group`, or else the files.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TypeVar
from unicodedata import normalize

from mgm.data.lists import (
    SPLIT_OF,
    UNLABELLED,
    Row,
    is_list,
    is_video,
    read_list,
    read_names,
    unseen,
)
from mgm.errors import UserError, as_user_error

T = TypeVar("T", int, str)
DRAWN = "no split given: a fifth of each class, in whole groups, is the test split"
SHOWN = 10  # absent videos that are named
LISTS = (".csv", ".txt", ".tsv", ".lst")
TEXTS = (*LISTS, ".json", ".jsonl")  # that may list videos
# Folders of systems, in small letters. Hidden folders are like them.
SYSTEM = (
    *("@eadir", "#recycle", "#snapshot", "lost+found", "__macosx", "$recycle.bin"),
    "system volume information",
)
NOT_USED = (
    "lists videos, and is not used; name it videos.csv (with a header) or with its split, as "
    "train.txt, or pass it as --source"
)


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
        note: where the split comes from, and what is missing or not used.
        excluded: (path, reason) of videos and lists that cannot be used.
        lists: the files of text that it is from.
        drawn: whether the split was drawn, and not given.
    """

    root: Path
    classes: tuple[str, ...]
    entries: list[Entry]
    note: str
    excluded: list[tuple[str, str]] = field(default_factory=list)
    lists: tuple[Path, ...] = ()
    drawn: bool = False


@dataclass(frozen=True)
class Choices:
    """What the user decides about a listing.

    Attributes:
        test: the split to test on, "test" or "val". Empty: test if there is one, or else val.
        first: whether the first row counts of a video that is listed twice.
        known: the splits of videos that were prepared earlier, by their paths.
    """

    test: str = ""
    first: bool = False
    known: Mapping[str, str] = field(default_factory=dict)


USUAL = Choices()


def key(path: str) -> str:
    """Return what two names share that differ in case or in their form of Unicode alone."""
    return normalize("NFC", normalize("NFC", path).casefold())


def _raise(error: OSError) -> None:
    raise error


class Files:
    """The video files below a folder, without hidden ones. Links are followed.

    Attributes:
        skipped: the number of video files in each hidden folder or folder of a system.
        again: links to folders that were read already, such as their own parent.
    """

    def __init__(self, root: Path):
        self.paths, self._named = dict[str, None](), defaultdict[str, list[str]](list)
        self.skipped, self.again, seen = Counter[str](), list[str](), set[str]()
        for at, folders, files in os.walk(root, onerror=_raise, followlinks=True):
            if (place := os.path.realpath(at)) in seen:
                self.again.append(os.path.relpath(at, root))
                folders.clear()
                continue
            seen.add(place)
            hidden = [name for name in folders if name[0] == "." or name.casefold() in SYSTEM]
            folders[:] = sorted({*folders} - {*hidden})
            for name in hidden:
                below = os.walk(os.path.join(at, name))
                self.skipped[name] += sum(is_video(file) for _, _, own in below for file in own)
            for name in sorted(filter(is_video, files)):
                if name.startswith("."):
                    self.skipped[name] += 1
                    continue
                path = os.path.relpath(os.path.join(at, name), root)
                self.paths[path] = None
                # Without its suffix, since lists may have another.
                self._named[key(stem(name))].append(path)

    def find(self, path: str, name: str) -> str | None:
        """Return the one file whose path ends with a listed one, up to case and suffix.

        Of several files, the one with the path `name` counts.
        """
        wanted = f"/{key(stem(path))}"
        named = self._named.get(wanted.rpartition("/")[2], ())
        found = [one for one in named if f"/{key(stem(one))}".endswith(wanted)]
        found = [one for one in found if stem(one) == name] or found
        return found[0] if len(found) == 1 else None


def stem(path: str) -> str:
    """Return a path without the suffix of a video."""
    return os.path.splitext(path)[0] if is_video(path) else path


def listing(
    root: Path,
    rows: Iterable[Row],
    note: str,
    classes: Sequence[str] = (),
    files: Files | None = None,
    choices: Choices = USUAL,
) -> Listing:
    """Return the listing of some rows, whose files are looked up below `root`.

    A row's path is below `root`. If there is no such file, it is the end of the path of one file,
    which no other row lists. So a list without folders finds its files in any folder.

    Args:
        classes: names by label. Empty: those in the rows, sorted.
        files: the files below `root`, where they are known already.
    """
    rows = list(rows)
    if not rows:
        raise UserError(f"{root}: has no videos")
    count = len(rows)
    rows, unused = _with_splits(rows, choices.test)
    found, absent, excluded, searched = _found(root, rows, files)
    own = dict[str, Row]()
    for row in found:
        earlier = own.setdefault(row.path, row)
        if earlier[1:4] != row[1:4] and not choices.first:
            raise UserError(
                f"{row.where or root}: lists {row.path} as {_as_listed(row)}, and "
                f"{earlier.where or 'an earlier row'} as {_as_listed(earlier)}; correct one, or "
                "keep the first by --first"
            )
    shown = ", ".join(row.path for row in absent[:SHOWN]) + ", ..." * (len(absent) > SHOWN)
    if not own:
        why = f"; left out: {': '.join(excluded[-1])}" if excluded else ""
        raise UserError(f"{root}: has 0 of the {count:,} listed videos: {shown}{why}")
    notes, chosen = [note], [*own.values()]
    if drawn := not any(row.split for row in rows):
        kept = sum(path in choices.known for path in own)
        notes.append(DRAWN + f"; {kept:,} known videos keep theirs" * bool(kept))
        chosen = _split_by_hash(chosen, choices.known)
    notes += [f"{split}: {number:,} videos are not used" for split, number in unused.items()]
    if searched:
        notes.append(f"{searched:,} videos were found in other folders than listed")
    if twice := len(found) - len(own):
        notes.append(f"{twice:,} rows list a video again, and are not used")
    if absent:
        lacking = Counter(row.split for row in absent)
        order = ("train", "test", "")
        counts = " and ".join(f"{lacking[one]:,} {one}".strip() for one in order if lacking[one])
        notes.append(f"absent: {counts} of the {count:,} listed videos ({shown})")
    _require_whole_groups(root, chosen)
    # Sort classes by name, or by value if all names are numbers.
    names = {row.label for row in rows if not unseen(row.label)}
    numbers = all(name.isdecimal() for name in names)
    classes = classes or sorted(names, key=lambda name: (int(name) if numbers else 0, name))
    label_of = {name: label for label, name in enumerate(classes)}
    if strange := next((row for row in chosen if row.label not in label_of), None):
        raise UserError(f"{strange.where or root}: {strange.label!r} is in no list of classes")
    entries = [
        Entry(row.name, row.path, label_of[row.label], row.split, row.group or row.path)
        for row in chosen
    ]
    note = "; ".join(filter(None, notes))
    return Listing(root, tuple(classes), entries, note, excluded, drawn=drawn)


def _as_listed(row: Row) -> str:
    return ", ".join(filter(None, row[1:4]))


def _found(
    root: Path, rows: Sequence[Row], files: Files | None
) -> tuple[list[Row], list[Row], list[tuple[str, str]], int]:
    """Return rows with their file and their name, absent rows, (file, reason) of those whose name
    has an unseen letter, and how many were found by their name.
    """
    base = os.path.join(os.path.abspath(root), "")
    rows = [row._replace(path=os.path.normpath(row.path.removeprefix(base))) for row in rows]
    listed = files.paths if files else ()
    there = {row.path for row in rows if row.path in listed or os.path.isfile(root / row.path)}
    lost = [row.path for row in rows if row.path not in there]
    files = files or Files(root) if lost else None
    # A list of absolute paths that was made on another machine, in folders with other names.
    places = {os.path.dirname(path) for path in lost if os.path.isabs(path)}
    shared = os.path.commonpath(places) if places else ""
    if shared in places:
        # Each keeps a folder.
        shared = os.path.dirname(shared)
    found, absent, excluded, searched = list[Row](), list[Row](), list[tuple[str, str]](), 0
    for row in rows:
        path = row.path
        if files and path not in there:
            tail = os.path.relpath(path, shared) if os.path.isabs(path) else path
            path = files.find(tail, row.name or stem(tail)) or ""
            if not path or path in there:
                absent.append(row)
                continue
            searched += stem(path) != (row.name or stem(row.path))
        # A list's absolute path is of another machine.
        name = row.name or stem(path if os.path.isabs(row.path) else row.path)
        if mark := unseen(path):
            excluded.append((ascii(path)[1:-1], f"has {mark} in its name; rename it"))
        else:
            found.append(row._replace(path=path, name=name))
    return found, absent, excluded, searched


# --- Splits ---


def _with_splits(rows: list[Row], test: str = "") -> tuple[list[Row], Counter[str]]:
    """Return the rows of train and test, and how many rows of another split there are.

    Rows without splits, or of val alone, have none.
    """
    splits = {row.split for row in rows}
    if test and test not in splits:
        raise UserError(f"--test {test}: the videos have no such split")
    if splits <= {"", "val"} and not test:
        return [row._replace(split="") for row in rows], Counter()
    side_of = {"train": "train", test or ("test" if "test" in splits else "val"): "test"}
    used = [row._replace(split=side_of[row.split]) for row in rows if row.split in side_of]
    return used, Counter(row.split for row in rows if row.split not in side_of)


def _split_by_hash(rows: list[Row], known: Mapping[str, str] = {}) -> list[Row]:
    """Return rows of which a fifth of each class is in the test split, in whole groups.

    Of every five groups of a class, in the order of the rows, a hash chooses one, and the second of
    the first five. So rows that are appended move no others. A group of several classes counts for
    its first one. Then the classes are balanced.

    Args:
        known: splits that stay, by path.
    """
    groups_of = defaultdict[str, dict[str, None]](dict)
    class_of, kept = dict[str, str](), defaultdict[str, set[str]](set)
    for row in rows:
        name = row.group or row.path
        groups_of[row.label][name] = None
        class_of.setdefault(name, row.label)
        if row.path in known:
            kept[name].add(known[row.path])
    fixed = {name: min(splits) for name, splits in kept.items() if len(splits) == 1}
    split_of, count = {**fixed}, Counter[str]()
    # Known groups come first, whatever their place among the rows.
    for name, label in sorted(class_of.items(), key=lambda item: item[0] not in fixed):
        block, place = divmod(count[label], 5)
        count[label] += 1
        digest = hashlib.sha256(os.fsencode(f"{label} {block}")).digest()
        chosen = digest[0] % 5 if block else 1
        split_of.setdefault(name, "test" if place == chosen else "train")
    both_of = balanced(groups_of, split_of, fixed)
    return [row._replace(split=both_of[row.group or row.path]) for row in rows]


def balanced(
    groups_of: Mapping[T, Collection[str]], split_of: Mapping[str, str], fixed: Container[str] = ()
) -> Mapping[str, str]:
    """Return the split of each group. A class of several groups has both, where that can be.

    Of a class that is in one split alone, one group that is not `fixed` is moved, unless that takes
    another class out of a split.
    """

    several = {label: groups for label, groups in groups_of.items() if len(groups) > 1}

    def lone(split_of: Mapping[str, str]) -> set[T]:
        return {
            label for label, groups in several.items() if len({split_of[n] for n in groups}) == 1
        }

    for label in sorted(alone := lone(split_of)):
        for name in several[label]:
            if label in alone and name not in fixed:
                moved = {**split_of, name: "train" if split_of[name] == "test" else "test"}
                if (left := lone(moved)) < alone:
                    split_of, alone = moved, left
    return split_of


def _require_whole_groups(root: Path, rows: Iterable[Row]) -> None:
    first = dict[str, Row]()
    for row in rows:
        other = first.setdefault(row.group or row.path, row)
        if other.split != row.split:
            raise UserError(
                f"{row.where or root}: group {row.group} is in {other.split} ({other.path}) and in "
                f"{row.split} ({row.path}); correct the column split or the column group"
            )


# --- Sources ---


def list_folder(source: Path, choices: Choices = USUAL) -> Listing:
    """List the videos of a folder, a table or a list."""
    if source.is_file():
        return _of_table(source, False, choices)
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    table = source / "videos.csv"
    if table.is_file():
        made = _of_table(table, True, choices)
    else:
        made = split_lists(source, choices) or _of_folders(source, choices)
    known = {*made.lists, *(source / name for name, _ in made.excluded)}
    reasons = {path.name: _unused(path) for path in _texts(source) if path not in known}
    made.excluded += [(name, reason) for name, reason in reasons.items() if reason]
    return made


def _unused(path: Path) -> str:
    """Return why a file of text is not used as a list; empty if it says nothing of videos."""
    try:
        if is_list(path):
            return NOT_USED
        # It may have been meant as a list.
        if _split_in(path):
            return "" if read_list(path) else "lists no video"
    except (UserError, OSError) as error:
        return str(as_user_error(error)).removeprefix(f"{path}: ")
    return ""


def _of_table(table: Path, headed: bool, choices: Choices) -> Listing:
    rows = read_list(table, headed)
    note = "split as listed" if any(row.split for row in rows) else ""
    made = listing(table.parent, rows, note, choices=choices)
    made.lists = (table,)
    return made


def _split_of(folder: str) -> str:
    """Return the split that a name means, also as train_set or trainlist01; "" if none."""
    return SPLIT_OF.get(re.sub(r"[ _-]?(set|split|list)$", "", folder.casefold()), "")


def _split_in(path: Path) -> str:
    """Return the one split that a list's name has a word of; "" if none or several."""
    splits = {*map(_split_of, re.findall("[a-z]+", path.stem.lower()))} - {""}
    return splits.pop() if len(splits) == 1 and path.suffix.lower() in LISTS else ""


def _of_folders(source: Path, choices: Choices) -> Listing:
    """List the videos in a folder without lists."""
    files = Files(source)
    folders = [path.split("/")[:-1] for path in files.paths]
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
    flat = not any(labels)
    rows = [
        Row(path, label or UNLABELLED, split if given else "")
        for path, label, split in zip(files.paths, labels, splits)
        if label or flat
    ]
    notes = ["split as the folders say"] * given
    if files.skipped.total():
        names = ", ".join(sorted(+files.skipped)[:SHOWN])
        notes.append(f"{files.skipped.total():,} hidden videos are not used ({names})")
    if files.again:
        names = ", ".join(files.again[:SHOWN])
        notes.append(f"{len(files.again):,} links to folders that are read already ({names})")
    made = listing(source, rows, "; ".join(notes), files=files, choices=choices)
    if made.classes != (UNLABELLED,):
        why = "is not in a class folder, so it has no label"
        made.excluded += [(path, why) for path in files.paths if "/" not in path]
    return made


def _texts(source: Path) -> list[Path]:
    """Return the files of a folder that may be lists. A broken link is one, and a pipe is none."""
    return [
        path
        for path in sorted(source.iterdir())
        if path.suffix.lower() in TEXTS
        and not path.name.startswith(".")
        and (path.is_file() or not path.exists())
    ]


def split_lists(source: Path, choices: Choices, number: int = 1, title: str = "") -> Listing | None:
    """List the videos by lists in a folder that have a split in their names; None without any.

    Args:
        number: the split. Lists named split_N or trainlistN of other splits are not used.
        title: what the note begins with.
    """
    per_list, others = dict[Path, list[Row]](), list[tuple[str, str]]()
    for path in _texts(source):
        if not (split := _split_in(path)):
            continue
        try:
            rows = read_list(path)
        except UserError:
            # Else it is a text on something else.
            if is_list(path):
                raise
            continue
        of = re.search(r"(?:split|list)_?0*([1-9])(?![0-9])", path.stem.lower())
        if of and int(of[1]) != number:
            others.append((path.name, f"is of split {of[1]}, and not used"))
        elif listed := next((row for row in rows if row.split not in ("", split)), None):
            raise UserError(
                f"{listed.where} is of {listed.split}, and the file's name says {split}"
            )
        elif rows:
            per_list[path] = [row._replace(split=split) for row in rows]
    if not per_list:
        return None
    rows = [*chain(*per_list.values())]
    splits = {row.split for row in rows}
    if "train" not in splits:
        shown = ", ".join(path.name for path in per_list)
        raise UserError(f"{source}: has lists ({shown}), and none of train; add one, or move them")
    names, note = _class_names(source, per_list)
    rows = _labelled(rows, names)
    if splits == {"train"}:
        rows = [row._replace(split="") for row in rows]
    made = listing(source, rows, title + note, choices=choices)
    made.excluded += others
    made.lists = (*per_list,)
    return made


def _class_names(source: Path, per_list: Mapping[Path, list[Row]]) -> tuple[dict[str, str], str]:
    """Return {number: name} of a file of class names that fits the lists, and a note."""
    note = f"split and labels as listed in {', '.join(path.name for path in per_list)}"
    labels = {row.label for rows in per_list.values() for row in rows} - {UNLABELLED}
    for path in _texts(source):
        if path in per_list or not re.search("class|categor|label", path.stem.lower()):
            continue
        names = read_names(path)
        if names and labels <= {*names} and len({*names.values()}) == len(names):
            return names, f"{note}, classes in {path.name}"
        if not is_list(path):
            note += f" ({path.name} does not number these classes, and is not used)"
    return {}, note


def _labelled(listed: list[Row], names: Mapping[str, str]) -> list[Row]:
    """Return the rows of some lists, with class names.

    Rows of a list without labels, as UCF101's of a test split, have the label that rows of the same
    folder have in another list.
    """
    known, rows = {*names.values()}, list[Row]()
    for row in listed:
        label, folder = names.get(row.label, row.label), os.path.basename(os.path.dirname(row.path))
        if folder in known and label not in (folder, UNLABELLED):
            raise UserError(f"{row.where}: label {row.label} is class {label}, in folder {folder}")
        rows.append(row._replace(label=label))
    if all(row.label == UNLABELLED for row in rows):
        return rows
    labels_of = defaultdict[str, set[str]](set)
    for row in rows:
        labels_of[os.path.dirname(row.path)].add(row.label)
    for number, row in enumerate(rows):
        if row.label == UNLABELLED:
            labels = labels_of[os.path.dirname(row.path)] - {UNLABELLED}
            if len(labels) != 1:
                raise UserError(f"{row.where} has no label, and others have one")
            rows[number] = row._replace(label=min(labels))
    return rows
