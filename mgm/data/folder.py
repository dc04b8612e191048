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
splits, a hash of each group's name puts about a fifth of each class into the test split. Groups are
never divided. They are the table's column `group`, or else the files.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unicodedata import category, normalize

from mgm.data.index import LOCK, is_prepared
from mgm.data.lists import (
    SPLIT_OF,
    UNLABELLED,
    Row,
    is_list,
    is_video,
    read_list,
    read_names,
    require_said,
    unseen,
)
from mgm.errors import UserError, as_user_error

DRAWN = "no split given: about a fifth of each class, in whole groups, is the test split"
FIFTH = (2**256 // 5).to_bytes(32)  # SHA-256s below it are a fifth of all
SHOWN = 10  # absent videos that are named
MANY = 100  # texts of a folder below which each may be a list. Captions are more
METADATA = ("metadata.csv", "metadata.jsonl")
LISTS = (".csv", ".txt", ".tsv", ".lst")
TEXTS = (*LISTS, ".json", ".jsonl")  # that may list videos
# Folders of systems, in small letters. Hidden folders are like them.
SYSTEM = (
    *("@eadir", "#recycle", "#snapshot", "lost+found", "__macosx", "$recycle.bin"),
    "system volume information",
)
NOT_USED = (
    "lists videos, and is not used; pass it as --source, or put it into the folder of the videos, "
    "named videos.csv (with a header) or by its split, as train.txt"
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
    """

    root: Path
    classes: tuple[str, ...]
    entries: list[Entry]
    note: str
    excluded: list[tuple[str, str]] = field(default_factory=list)
    lists: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Choices:
    """What the user decides about a listing.

    Attributes:
        test: the split to test on, "test" or "val". Empty: test if there is one, or else val.
        first: whether the first row counts of a video that is listed twice.
    """

    test: str = ""
    first: bool = False


USUAL = Choices()


def alike(name: str) -> str:
    """Return what names share that differ in case, spaces, unseen letters or leading zeros."""
    seen = "".join(letter for letter in normalize("NFKC", name) if category(letter) != "Cf")
    return re.sub(r"(?<!\d)0+(?=\d)", "", "".join(key(seen).split()))


def key(path: str) -> str:
    """Return what two names share that differ in case or in their form of Unicode alone."""
    return normalize("NFC", normalize("NFC", path).casefold())


def _raise(error: OSError) -> None:
    raise error


class Files:
    """The video files below a folder, without hidden ones. Links are followed.

    Attributes:
        texts: the files of text that may list videos.
        others: other files, by suffix and folder.
        skipped: the number of video files in each hidden folder or folder of a system.
        again: links to folders that were read already, such as their own parent.
    """

    def __init__(self, root: Path):
        self.paths, self._named = dict[str, None](), defaultdict[str, list[str]](list)
        self.skipped, self.again, seen = Counter[str](), list[str](), set[str]()
        self.texts, self.others = list[Path](), defaultdict[str, Counter[str]](Counter)
        for at, folders, files in os.walk(root, onerror=_raise, followlinks=True):
            if (place := os.path.realpath(at)) in seen:
                self.again.append(os.path.relpath(at, root))
                folders.clear()
                continue
            seen.add(place)
            # What `mgm prepare` wrote is made from other files.
            if is_prepared(files):
                if at == str(root):
                    raise UserError(f"{root}: is what `mgm prepare` wrote; pass its own source")
                folders.clear()
                continue
            hidden = [name for name in folders if name[0] == "." or name.casefold() in SYSTEM]
            folders[:] = sorted({*folders} - {*hidden})
            for name in hidden:
                below = os.walk(os.path.join(at, name))
                self.skipped[name] += sum(is_video(file) for _, _, own in below for file in own)
            many = at != str(root) and sum(name.lower().endswith(TEXTS) for name in files) > MANY
            for name in sorted(files):
                if name.startswith(".") or not is_video(name):
                    self._add_other(Path(at, name), os.path.relpath(at, root), many)
                    continue
                path = os.path.relpath(os.path.join(at, name), root)
                self.paths[path] = None
                # Without its suffix, since lists may have another.
                self._named[key(stem(name))].append(path)

    def _add_other(self, path: Path, folder: str, many: bool) -> None:
        """Add a file that is no video, or is hidden, of a folder with few or many texts."""
        suffix = path.suffix.lower()
        if path.name.startswith("."):
            self.skipped[path.name] += is_video(path.name)
        # A broken link may be a list, and a pipe is none.
        elif suffix in TEXTS and not many and (path.is_file() or not path.exists()):
            self.texts.append(path)
        else:
            self.others[suffix or "none"][folder] += 1

    def notes(self) -> Iterator[str]:
        """Yield what a user may miss."""
        if self.skipped.total():
            shown = ", ".join(sorted(+self.skipped)[:SHOWN])
            yield f"{self.skipped.total():,} hidden videos are not used ({shown})"
        if self.again:
            shown = ", ".join(self.again[:SHOWN])
            yield f"{len(self.again):,} links to folders that are read already ({shown})"
        if self.others:
            shown = ", ".join(
                f"{count.total():,} with suffix {suffix} ({', '.join([*count][:3])})"
                for suffix, count in sorted(self.others.items())[:SHOWN]
            )
            yield f"other files: {shown}"

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
    official: bool = False,
) -> Listing:
    """Return the listing of some rows, whose files are looked up below `root`.

    A row's path is below `root`. If there is no such file, it is the end of the path of one file,
    which no other row lists. So a list without folders finds its files in any folder.

    Args:
        classes: names by label. Empty: those in the rows, sorted.
        files: the files below `root`, where they are known already.
        official: the rows are those of a published set.
    """
    listed = [row._replace(where=row.where or str(root)) for row in rows]
    if not listed:
        raise UserError(f"{root}: has no videos")
    count_of = Counter(row.split for row in listed)
    sides = _sides({*count_of}, choices.test)
    base = os.path.join(os.path.abspath(root), "")
    rows = [
        row._replace(path=os.path.normpath(row.path.removeprefix(base)), split=sides[row.split])
        for row in listed
        if row.split in sides
    ]
    found, absent, excluded, moved = list[Row](), list[Row](), list[tuple[str, str]](), list[str]()
    for row, path in _located(root, rows, files):
        name = row.name or stem(row.path)
        if path not in ("", row.path) and stem(path) != name:
            moved.append(path)
        if not path:
            absent.append(row)
        elif store := _store_of(os.path.dirname(root / path)):
            excluded.append((path, f"is in {store}, which `mgm prepare` wrote; list its source"))
        elif mark := unseen(path):
            excluded.append((ascii(path)[1:-1], f"has {mark} in its name; rename it"))
        else:
            # A list's absolute path is of another machine.
            found.append(row._replace(path=path, name=stem(path) if os.path.isabs(name) else name))
    shown = ", ".join(row.path for row in absent[:SHOWN]) + ", ..." * (len(absent) > SHOWN)
    if not found:
        why = f"; left out: {': '.join(excluded[-1])}" if excluded else ""
        raise UserError(f"{root}: has 0 of the {len(listed):,} listed videos: {shown}{why}")
    chosen, notes = _once(found, choices.first, official), [note]
    twice = len(found) - len(chosen)
    if not any(sides.values()):
        notes.append(DRAWN)
        chosen = split_by_hash(chosen)
    for split, number in count_of.items():
        if split not in sides:
            notes.append(f"{split}: {number:,} videos are not used")
    if moved:
        shown_moved = ", ".join(moved[:SHOWN]) + ", ..." * (len(moved) > SHOWN)
        notes.append(
            f"{len(moved):,} videos were found in other folders than listed ({shown_moved})"
        )
    if twice:
        notes.append(f"{twice:,} rows list a video again, or a group in both splits: not used")
    if absent:
        lacking = Counter(row.split for row in absent)
        order = ("train", "test", "")
        counts = " and ".join(f"{lacking[one]:,} {one}".strip() for one in order if lacking[one])
        notes.append(f"absent: {counts} of the {len(listed):,} listed videos ({shown})")
    # Sort classes by name, or by value if all names are numbers.
    names = {row.label for row in rows if not unseen(row.label)}
    numbers = all(name.isdecimal() for name in names)
    classes = classes or sorted(names, key=lambda name: (int(name) if numbers else 0, name))
    label_of, entries = {name: label for label, name in enumerate(classes)}, list[Entry]()
    count = Counter(row.name for row in chosen)
    for row in chosen:
        if row.label not in label_of:
            raise UserError(f"{row.where}: {row.label!r} is in no list of classes")
        # Two files may differ in their suffix alone.
        own = (row.name if count[row.name] == 1 else row.path), row.path, label_of[row.label]
        entries.append(Entry(*own, row.split, row.group or row.path))
    note = "; ".join(filter(None, notes))
    return Listing(root, tuple(classes), entries, note, excluded)


@cache
def _store_of(folder: str) -> str:
    """Return the store that a folder is part of; empty if of none."""
    above, name = os.path.split(folder)
    marks = (LOCK, "index.csv", "index.json") if name == "videos" else ()
    if is_prepared([mark for mark in marks if os.path.exists(os.path.join(above, mark))]):
        return above
    return _store_of(above) if above not in ("", folder) else ""


def _located(root: Path, rows: Sequence[Row], files: Files | None) -> Iterator[tuple[Row, str]]:
    """Yield each row and the path of its file below `root`; "" if that is absent."""
    listed = files.paths if files else ()
    there = {row.path for row in rows if row.path in listed or os.path.isfile(root / row.path)}
    lost = [row.path for row in rows if row.path not in there]
    if lost and not files:
        files = Files(root)
    # A list of absolute paths that was made on another machine, in folders with other names. What
    # all paths share is dropped, and each keeps a folder.
    above = {os.path.dirname(os.path.dirname(path)) for path in lost if os.path.isabs(path)}
    shared = os.path.commonpath(above) if above else ""
    for row in rows:
        if not files or row.path in there:
            yield row, row.path
            continue
        tail = os.path.relpath(row.path, shared) if os.path.isabs(row.path) else row.path
        path = files.find(tail, row.name or stem(tail)) or ""
        # One that another row lists is that row's, and a folder of the other split is no place.
        sides = {"test" if side == "val" else side for side in map(_split_of, path.split("/")[:-1])}
        other = row.split and {"train": "test", "test": "train"}[row.split] in sides
        yield row, "" if path in there or other else path


def group_of(row: Row) -> str:
    """Return what the rows of a group share: those of groups that look alike, or the file."""
    return alike(row.group) if row.group else row.path


def _once(rows: Iterable[Row], keep_first: bool, official: bool) -> list[Row]:
    """Return each video's first row, and check that no other differs and no group is divided.

    Args:
        official: groups are as their names say, and never the same because they look alike.
    """
    row_of, row_of_group = dict[str, Row](), dict[str, Row]()
    for row in rows:
        first = row_of.setdefault(row.path, row)
        if first[1:4] != row[1:4] and not keep_first:
            here, there = (", ".join(filter(None, one[1:4])) for one in (row, first))
            raise UserError(
                f"{row.where}: lists {row.path} as {here}, and {first.where} as {there}; correct "
                "one, or keep the first by --first"
            )
        if first is row:
            other = row_of_group.setdefault(
                row.group or row.path if official else group_of(row), row
            )
            if other.split == row.split:
                continue
            if keep_first:
                del row_of[row.path]
                continue
            like = f", or {other.group!r}, which looks like it," * (row.group != other.group)
            raise UserError(
                f"{row.where}: group {row.group}{like} is in {other.split} ({other.path}) and in "
                f"{row.split} ({row.path}); correct one, or keep the first by --first"
            )
    return [*row_of.values()]


# --- Splits ---


def _sides(splits: set[str], test: str) -> dict[str, str]:
    """Return {split: train or test} of the splits that are used. {split: ""}: none is given.

    Rows without splits, or of val alone, have none.
    """
    if test and test not in splits:
        raise UserError(f"--test {test}: the videos have no such split")
    if splits <= {"", "val"} and not test:
        return dict.fromkeys(splits, "")
    return {"train": "train", test or ("test" if "test" in splits else "val"): "test"}


def split_by_hash(rows: Sequence[Row]) -> list[Row]:
    """Return rows of which about a fifth is in the test split, in whole groups.

    A hash of the group's name decides, so neither order nor other groups matter. But of a class of
    several groups, that with the smallest hash is tested on, and that with the largest is not.
    """
    groups_of = defaultdict[str, set[str]](set)
    for row in rows:
        groups_of[row.label].add(group_of(row))
    place = cache(lambda name: hashlib.sha256(os.fsencode(name)).digest())
    tested = {name for own in groups_of.values() for name in own if place(name) < FIFTH}
    several = [sorted(own, key=place) for own in groups_of.values() if len(own) > 1]
    tested = tested - {own[-1] for own in several} | {own[0] for own in several}
    side = {True: "test", False: "train"}
    return [row._replace(split=side[group_of(row) in tested]) for row in rows]


# --- Sources ---


def list_folder(source: Path, choices: Choices = USUAL) -> Listing:
    """List the videos of a folder, a table or a list."""
    if source.is_file():
        return _of_table(source, False, choices)
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    table, files = source / "videos.csv", Files(source)
    if table.is_file():
        made = _of_table(table, True, choices, files)
    else:
        made = (
            split_lists(source, files, choices)
            or _of_metadata(source, files, choices)
            or _of_folders(source, files, choices)
        )
    known = {*made.lists, *(source / name for name, _ in made.excluded)}
    for path in files.texts:
        if path not in known and (reason := _unused(path)):
            made.excluded.append((os.path.relpath(path, source), reason))
    made.note = "; ".join(filter(None, (made.note, *files.notes())))
    return made


def _of_metadata(source: Path, files: Files, choices: Choices) -> Listing | None:
    """List the videos by Hugging Face's metadata files, which lie beside them; None without any."""
    rows, used = list[Row](), list[Path]()
    for path in files.texts:
        if path.name.lower() in METADATA:
            folder = os.path.relpath(path.parent, source)
            side = next(filter(None, map(split_word, folder.split("/"))), "")
            used.append(path)
            rows += [
                row._replace(path=os.path.join(folder, row.path), split=row.split or side)
                for row in read_list(path)
            ]
    if not rows:
        return None
    require_said(rows)
    splits = {row.split for row in rows}
    if splits == {"train"} or "" in splits:
        rows = [row._replace(split="") for row in rows]
    shown = ", ".join(os.path.relpath(path, source) for path in used)
    made = listing(source, rows, f"as listed in {shown}", files=files, choices=choices)
    made.lists = (*used,)
    return made


def _unused(path: Path) -> str:
    """Return why a file of text is not used as a list; empty if it says nothing of videos."""
    try:
        if is_list(path):
            return NOT_USED
        # It may have been meant as a list.
        if _split_in(path) and not read_list(path):
            return "lists no video"
    except (UserError, OSError) as error:
        return str(as_user_error(error)).removeprefix(f"{path}: ")
    return ""


def _of_table(table: Path, headed: bool, choices: Choices, files: Files | None = None) -> Listing:
    rows = read_list(table, headed)
    texts = (path for path in table.parent.iterdir() if path.suffix in LISTS and path != table)
    found = _files_of_names(path for path in texts if path.is_file())
    require_said(rows, {name for _, names in found for name in names.values()})
    note = "split as listed" if any(row.split for row in rows) else ""
    made = listing(table.parent, rows, note, files=files, choices=choices)
    made.lists = (table,)
    return made


def _split_of(folder: str) -> str:
    """Return the split that a name means, also as train_set or trainlist01; "" if none."""
    return SPLIT_OF.get(re.sub(r"[ _-]?(set|split|list)$", "", folder.casefold()), "")


def split_word(name: str) -> str:
    """Return the one split that a name has a word of, as videos_train; "" if none or several."""
    splits = {*map(_split_of, re.findall("[a-z]+", name.casefold()))} - {""}
    return splits.pop() if len(splits) == 1 else ""


def _split_in(path: Path) -> str:
    """Return the split that a list's name says."""
    return split_word(path.stem) if path.suffix.lower() in LISTS else ""


def _of_folders(source: Path, files: Files, choices: Choices) -> Listing:
    """List the videos in a folder without lists."""
    folders = {path: path.split("/")[:-1] for path in files.paths}
    tops = dict.fromkeys(names[0] for names in folders.values() if names)
    sides, words = {top: _split_of(top) for top in tops}, {top: split_word(top) for top in tops}
    if all(words.values()) and {"train"} < {*words.values()}:
        sides = words
    # Below folders of splits, classes are one level deeper.
    level = int(bool(sides) and all(sides.values()))
    within = {_split_of(name) for names in folders.values() for name in names} - {""}
    within |= {*words.values()} - {""}
    if not level and {"train"} < within:
        raise UserError(
            f"{source}: has folders of splits, such as train, next to others or below them; pass "
            "the folder that has the splits alone, or list the videos in a videos.csv"
        )
    # A lone folder "train" is no split.
    given = bool(level) and {"train"} < {*sides.values()}
    flat = all(len(names) <= level for names in folders.values())
    rows, loose = list[Row](), list[tuple[str, str]]()
    for path, names in folders.items():
        if flat or len(names) > level:
            label = UNLABELLED if flat else names[level]
            rows.append(Row(path, label, sides[names[0]] if given and names else ""))
        else:
            loose.append((path, "is not in a class folder, so it has no label"))
    note = "split as the folders say" * given
    below = defaultdict[str, set[str]](set)
    for names in folders.values():
        below[names[0] if names else ""].update(names[1:2])
    first, *others = below.values() or [set()]
    if not level and others and len(first) > 1 and all(own == first for own in others):
        note = (
            f"all class folders have the same folders below ({', '.join(sorted(first)[:3])}): if "
            "those are the classes, give the upper ones the names train and test"
        )
    made = listing(source, rows, note, files=files, choices=choices)
    made.excluded += loose
    return made


def split_lists(
    source: Path, files: Files, choices: Choices, number: int = 1, title: str = ""
) -> Listing | None:
    """List the videos by lists in a folder that have a split in their names; None without any.

    Args:
        number: the split. Lists named split_N or trainlistN of other splits are not used.
        title: what the note begins with.
    """
    rows, lists, others = list[Row](), list[Path](), list[tuple[str, str]]()
    texts = [path for path in files.texts if path.parent == source]
    for path in texts:
        if not (split := _split_in(path)):
            continue
        try:
            found = read_list(path)
        except UserError:
            # Else it is a text on something else.
            if is_list(path):
                raise
            continue
        of = re.search(r"(?:split|list)_?0*([1-9])(?![0-9])", path.stem.lower())
        if of and int(of[1]) != number:
            others.append((path.name, f"is of split {of[1]}, and not used"))
        elif found:
            lists.append(path)
            for row in found:
                if row.split not in ("", split):
                    raise UserError(
                        f"{row.where} is of {row.split}, and the file's name says {split}"
                    )
                rows.append(row._replace(split=split))
    if not lists:
        return None
    shown = ", ".join(path.name for path in lists)
    splits = {row.split for row in rows}
    if "train" not in splits:
        raise UserError(f"{source}: has lists ({shown}), and none of train; add one, or move them")
    own = [path for path in texts if path not in lists]
    names, note = _class_names(own, {row.label for row in rows} - {UNLABELLED})
    rows = _labelled(rows, names)
    require_said(rows, {*names.values()})
    if splits == {"train"}:
        rows = [row._replace(split="") for row in rows]
    note = f"{title}split and labels as listed in {shown}{note}"
    made = listing(source, rows, note, files=files, choices=choices)
    made.excluded += others
    made.lists = (*lists,)
    return made


def _files_of_names(texts: Iterable[Path]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield files that may number classes, and {number: name}."""
    for path in texts:
        if re.search("class|categor|label", path.stem.lower()):
            yield path, read_names(path)


def _class_names(texts: Iterable[Path], labels: set[str]) -> tuple[dict[str, str], str]:
    """Return {number: name} of a file of class names that fits the labels, and a note."""
    note = ""
    for path, names in _files_of_names(texts):
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
    labels_of = defaultdict[str, set[str]](set)
    for row in listed:
        if row.label != UNLABELLED:
            labels_of[os.path.dirname(row.path)].add(names.get(row.label, row.label))
    known, rows = {*names.values()}, list[Row]()
    for row in listed:
        labels = {names.get(row.label, row.label)}
        if row.label == UNLABELLED and labels_of:
            labels = labels_of.get(os.path.dirname(row.path), set())
            if len(labels) != 1:
                raise UserError(f"{row.where} has no label, and others have one")
        (label,) = labels
        folder = os.path.basename(os.path.dirname(row.path))
        if folder in known and label not in (folder, UNLABELLED):
            raise UserError(f"{row.where}: label {row.label} is class {label}, in folder {folder}")
        rows.append(row._replace(label=label))
    return rows
