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
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from mgm.data.lists import (
    SPLIT_OF,
    SUFFIXES,
    UNLABELLED,
    Row,
    is_list,
    read_list,
    read_names,
    read_table,
    unseen,
)
from mgm.errors import UserError

DRAWN = "no split given: a fifth of each class, in whole groups, is the test split"
SHOWN = 10  # absent videos that are named
LISTS = (".csv", ".txt", ".tsv", ".lst")
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
    """

    root: Path
    classes: tuple[str, ...]
    entries: list[Entry]
    note: str
    excluded: list[tuple[str, str]] = field(default_factory=list)


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
    """

    def __init__(self, root: Path):
        self.root, self.paths, self._named = root, dict[str, None](), dict[str, list[str]]()
        self.skipped, seen = Counter[str](), set[str]()
        for at, folders, files in os.walk(root, onerror=_raise, followlinks=True):
            # A link may lead to a folder that was seen, such as its own parent.
            if (place := os.path.realpath(at)) in seen:
                folders.clear()
                continue
            seen.add(place)
            hidden = [name for name in folders if name[0] == "." or name.casefold() in SYSTEM]
            folders[:] = sorted({*folders} - {*hidden})
            for name in hidden:
                below = os.walk(os.path.join(at, name))
                self.skipped[name] += sum(_is_video(file) for _, _, own in below for file in own)
            for name in sorted(filter(_is_video, files)):
                if name.startswith("."):
                    self.skipped[name] += 1
                    continue
                path = os.path.relpath(os.path.join(at, name), root).replace(os.sep, "/")
                self.paths[path] = None
                # Without its suffix, since lists may have another.
                self._named.setdefault(key(stem(name)), []).append(path)

    def find(self, path: str, name: str) -> str | None:
        """Return the one file whose path ends with a listed one, up to case and suffix.

        Args:
            name: of the video. Of several files, the one with this path counts.
        """
        wanted = f"/{key(stem(path))}"
        named = self._named.get(wanted.rpartition("/")[2], ())
        found = [one for one in named if f"/{key(stem(one))}".endswith(wanted)]
        found = [one for one in found if stem(one) == name] or found
        return found[0] if len(found) == 1 else None


def _is_video(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


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
    notes, count = [note], len(rows)
    rows, unused = _used(rows, choices.test)
    notes += [f"{split}: {number:,} videos are not used" for split, number in unused.items()]
    found, absent, excluded, searched = _found(root, rows, files)
    if searched:
        notes.append(f"{searched:,} videos were found in other folders than listed")
    shown = ", ".join(row.path for row in absent[:SHOWN]) + ", ..." * (len(absent) > SHOWN)
    own, twice = dict[str, Row](), 0
    for path, row in found:
        earlier = own.setdefault(path, row)
        twice += earlier is not row
        if earlier[1:4] != row[1:4] and not choices.first:
            raise UserError(
                f"{row.where or root}: lists {path} as {_as_listed(row)}, and "
                f"{earlier.where or 'an earlier row'} as {_as_listed(earlier)}; correct one, or "
                "keep the first by --first"
            )
    if twice:
        notes.append(f"{twice:,} rows list a video again, and are not used")
    if not own:
        why = f"; left out: {': '.join(excluded[-1])}" if excluded else ""
        raise UserError(f"{root}: has 0 of the {count:,} listed videos: {shown}{why}")
    if absent:
        lacking = Counter(row.split for row in absent)
        order = ("train", "test", "")
        counts = " and ".join(f"{lacking[one]:,} {one}".strip() for one in order if lacking[one])
        notes.append(f"absent: {counts} of the {count:,} listed videos ({shown})")
    if not any(row.split for row in rows):
        kept = sum(path in choices.known for path in own)
        notes.insert(1, DRAWN + f"; {kept:,} known videos keep theirs" * bool(kept))
    chosen = _with_splits([row._replace(path=path) for path, row in own.items()], choices)
    _require_whole_groups(root, chosen)
    # Sort classes by name, or by value if all names are numbers.
    names = {row.label for row in rows if not unseen(row.label)}
    numbers = all(name.isdecimal() for name in names)
    classes = classes or sorted(names, key=lambda name: (int(name) if numbers else 0, name))
    label_of = {name: label for label, name in enumerate(classes)}
    if strange := next((row for row in chosen if row.label not in label_of), None):
        raise UserError(f"{strange.where or root}: {strange.label!r} is in no list of classes")
    entries = []
    for row, listed in zip(chosen, own.values()):
        # A list's absolute path is of another machine.
        name = listed.name or stem(row.path if os.path.isabs(listed.path) else listed.path)
        group = row.group or row.path
        entries.append(Entry(name, row.path, label_of[row.label], row.split, group))
    return Listing(root, tuple(classes), entries, "; ".join(filter(None, notes)), excluded)


def _as_listed(row: Row) -> str:
    return ", ".join(filter(None, row[1:4]))


def _found(
    root: Path, rows: Sequence[Row], files: Files | None
) -> tuple[list[tuple[str, Row]], list[Row], list[tuple[str, str]], int]:
    """Return (file, row) of the rows, absent rows, (file, reason), and how many were searched."""
    base = os.path.join(os.path.abspath(root), "")
    rows = [row._replace(path=os.path.normpath(row.path.removeprefix(base))) for row in rows]
    listed = files.paths if files else ()
    there = [row.path in listed or os.path.isfile(root / row.path) for row in rows]
    if not all(there):
        files = files or Files(root)
    owned = {row.path for row, has in zip(rows, there) if has}
    # A list of absolute paths that was made on another machine, in folders with other names.
    elsewhere = [row.path for row, has in zip(rows, there) if not has and os.path.isabs(row.path)]
    places = {os.path.dirname(path) for path in elsewhere}
    shared = os.path.commonpath(places) if places else ""
    if shared in places:
        # Each keeps a folder.
        shared = os.path.dirname(shared)
    found, absent, excluded, searched = list[tuple[str, Row]](), list[Row](), [], 0
    for row, has in zip(rows, there):
        path: str | None = row.path
        if files and not has:
            tail = os.path.relpath(row.path, shared) if os.path.isabs(row.path) else row.path
            path = files.find(tail, row.name or stem(tail))
            searched += bool(path) and stem(path or "") != (row.name or stem(row.path))
        if path is None or (path in owned and not has):
            absent.append(row)
        elif mark := unseen(path):
            excluded.append((ascii(path)[1:-1], f"has {mark} in its name; rename it"))
        else:
            found.append((path, row))
    return found, absent, excluded, searched


# --- Splits ---


def _used(rows: list[Row], test: str = "") -> tuple[list[Row], Counter[str]]:
    """Return the rows of train and test, and how many rows of another split there are."""
    splits = {row.split for row in rows}
    if test and test not in splits:
        raise UserError(f"--test {test}: the videos have no such split")
    if splits <= {"", "val"} and not test:
        return [row._replace(split="") for row in rows], Counter()
    tested = test or ("test" if "test" in splits else "val")
    used = [row for row in rows if row.split in ("train", tested)]
    unused = Counter(row.split for row in rows if row.split not in ("train", tested))
    return [row._replace(split="train" if row.split == "train" else "test") for row in used], unused


def _with_splits(rows: list[Row], choices: Choices = USUAL) -> list[Row]:
    """Return rows that are in train or test each."""
    rows, _ = _used(rows)
    return rows if any(row.split for row in rows) else _split_by_hash(rows, choices.known)


def _split_by_hash(rows: list[Row], known: Mapping[str, str] = {}) -> list[Row]:
    """Return rows of which a fifth of each class is in the test split, in whole groups.

    Of every five groups of a class, in the order of the rows, a hash chooses one, and the second of
    the first five. So rows that are appended move no others. A group of several classes counts for
    its first one. Then, of a class with several groups, one is moved if all are in one split,
    unless that takes another class out of a split.

    Args:
        known: splits that stay, by path.
    """
    names = [row.group or row.path for row in rows]
    of_class, of_group = dict[str, dict[str, None]](), dict[str, str]()
    kept = dict[str, set[str]]()
    for row, name in zip(rows, names):
        of_class.setdefault(row.label, {})[name] = None
        of_group.setdefault(name, row.label)
        if row.path in known:
            kept.setdefault(name, set()).add(known[row.path])
    fixed = {name: min(splits) for name, splits in kept.items() if len(splits) == 1}
    split_of, count = dict(fixed), Counter[str]()
    # Known groups come first, whatever their place among the rows.
    for name, label in sorted(of_group.items(), key=lambda item: item[0] not in fixed):
        block, place = divmod(count[label], 5)
        count[label] += 1
        digest = hashlib.sha256(os.fsencode(f"{label} {block}")).digest()
        chosen = digest[0] % 5 if block else 1
        split_of.setdefault(name, "test" if place == chosen else "train")
    several = {label: groups for label, groups in sorted(of_class.items()) if len(groups) > 1}

    def lacking() -> set[str]:
        """Return which classes are in one split alone."""
        sides = {label: {split_of[name] for name in own} for label, own in several.items()}
        return {label for label, own in sides.items() if len(own) == 1}

    for label in sorted(before := lacking()):
        for name in several[label]:
            if label not in before or name in fixed:
                continue
            split_of[name] = "train" if split_of[name] == "test" else "test"
            after = lacking()
            if after < before:
                before = after
            else:
                split_of[name] = "train" if split_of[name] == "test" else "test"
    return [row._replace(split=split_of[name]) for row, name in zip(rows, names)]


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
    table, used = source / "videos.csv", tuple[Path, ...]()
    if not source.is_dir():
        table = source
        if not source.is_file():
            raise UserError(f"{source}: no such file or folder")
    if table.is_file():
        rows = read_table(table) if table != source else read_list(source)
        note = "split as listed" if any(row.split for row in rows) else ""
        used = (table,)
        made = listing(table.parent, rows, note, choices=choices)
    elif lists := split_lists(source):
        used = (*lists.used,)
        made = listing(source, lists.rows, lists.note, choices=choices)
        made.excluded += lists.excluded
    else:
        files = Files(source)
        rows, note = _rows_of(source, list(files.paths))
        if count := files.skipped.total():
            names = ", ".join(sorted(+files.skipped)[:SHOWN])
            note = "; ".join(
                filter(None, (note, f"{count:,} hidden videos are not used ({names})"))
            )
        made = listing(source, rows, note, files=files, choices=choices)
        if made.classes != (UNLABELLED,):
            loose = [path for path in files.paths if "/" not in path]
            why = "is not in a class folder, so it has no label"
            made.excluded += [(path, why) for path in loose]
    if source.is_dir():
        others = [path for path in _texts(source) if path not in used and is_list(path)]
        named = {name for name, _ in made.excluded}
        made.excluded += [(path.name, NOT_USED) for path in others if path.name not in named]
    return made


def _split_of(folder: str) -> str:
    """Return the split that a name means, also as train_set or trainlist01; "" if none."""
    return SPLIT_OF.get(re.sub(r"[ _-]?(set|split|list)$", "", folder.casefold()), "")


def _rows_of(source: Path, paths: Sequence[str]) -> tuple[list[Row], str]:
    """Return the rows of the videos in a folder, and where their split comes from, if given."""
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
    return rows, "split as the folders say" if given else ""


def _texts(source: Path) -> list[Path]:
    """Return the files of a folder that may be lists."""
    return [path for path in sorted(source.iterdir()) if path.suffix.lower() in LISTS]


@dataclass(frozen=True)
class Lists:
    """The lists of a folder: their rows, the files that were used, and those that were not."""

    rows: list[Row]
    note: str
    used: tuple[Path, ...]
    excluded: list[tuple[str, str]]


def split_lists(source: Path, number: int = 1) -> Lists | None:
    """Read the lists in a folder that have a split in their names; None if there are none.

    Args:
        number: the split. Lists named split_N or trainlistN of other splits are not used.
    """
    per_list, others = dict[Path, list[Row]](), list[tuple[str, str]]()
    for path in _texts(source):
        splits = {*map(_split_of, re.findall("[a-z]+", path.stem.lower()))} - {""}
        if len(splits) != 1 or not _seems_list(path):
            continue
        of = re.search(r"(?:split|list)_?0*([1-9])(?![0-9])", path.stem.lower())
        if of and int(of[1]) != number:
            others.append((path.name, f"is of split {of[1]}, and not used"))
            continue
        (split,) = splits
        rows = read_list(path)
        if listed := next((row for row in rows if row.split not in ("", split)), None):
            raise UserError(
                f"{listed.where} is of {listed.split}, and the file's name says {split}"
            )
        per_list[path] = [row._replace(split=split) for row in rows]
    if not per_list:
        return None
    splits = {row.split for rows in per_list.values() for row in rows}
    if "train" not in splits:
        shown = ", ".join(path.name for path in per_list)
        raise UserError(f"{source}: has lists ({shown}), and none of train; add one, or move them")
    names, note = _class_names(source, per_list)
    rows = _labelled(per_list, names)
    if splits == {"train"}:
        rows = [row._replace(split="") for row in rows]
    return Lists(rows, note, (*per_list,), others)


def _seems_list(path: Path) -> bool:
    """Return whether a file whose name has a split is a list: it names a video, or paths."""
    if is_list(path):
        return True
    try:
        return bool(read_list(path))
    except UserError:
        return False


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
        if names:
            note += f" ({path.name} has other numbers, and is not used)"
    return {}, note


def _labelled(per_list: Mapping[Path, list[Row]], names: Mapping[str, str]) -> list[Row]:
    """Return the rows of some lists, with class names.

    Rows of a list without labels, as UCF101's of a test split, have the label that rows of the same
    folder have in another list.
    """
    known, rows = {*names.values()}, list[Row]()
    for row in (row for own in per_list.values() for row in own):
        label, folder = names.get(row.label, row.label), os.path.basename(os.path.dirname(row.path))
        if folder in known and label not in (folder, UNLABELLED):
            raise UserError(f"{row.where}: label {row.label} is class {label}, in folder {folder}")
        rows.append(row._replace(label=label))
    lacking = [row for row in rows if row.label == UNLABELLED]
    if len(lacking) in (0, len(rows)):
        return rows
    labels = dict[str, set[str]]()
    for row in rows:
        if row.label != UNLABELLED:
            labels.setdefault(os.path.dirname(row.path), set()).add(row.label)
    for number, row in enumerate(rows):
        if row.label == UNLABELLED:
            found = labels.get(os.path.dirname(row.path), set())
            if len(found) != 1:
                raise UserError(f"{row.where} has no label, and others have one")
            rows[number] = row._replace(label=min(found))
    return rows
