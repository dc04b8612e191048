"""List a user's own videos: one folder per class, a flat folder, a table or lists.

The source is one of these:

- A table or a list (`mgm.data.lists`), or a folder with one that is called videos.csv. Without
  labels, the videos are for pretraining.
- A folder with lists as VideoMAE, mmaction2 and UCF101 have them: .csv or .txt files with `train`,
  `val` or `test` in their names. Or with Hugging Face's metadata files, beside the videos. A file
  of class names such as classInd.txt names the labels.
- A folder of class folders. Every video below a class folder is a video of that class. If all
  folders are called train, val, test and the like, classes are the folders one level below.
- A folder of videos. They have no labels, and are for pretraining.

Splits are train and test. A validation split is the test split if there is no other. Without
splits, a hash of each group's name puts about a fifth of each class into the test split. Groups are
never divided. They are the table's column `group`, or else the files.

A listing is an index (`mgm.data.index`) whose videos have no files yet.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from unicodedata import category, normalize

from mgm.data.index import Index, Video, is_prepared
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
SHOWN = 10  # names that a note has
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
    "named videos.csv or by its split, as train.txt"
)


# --- Names ---


def key(path: str) -> str:
    """Return what two names share that differ in case or in their form of Unicode alone."""
    return normalize("NFC", normalize("NFC", path).casefold())


def alike(name: str) -> str:
    """Return what names share that differ in case, spaces, unseen letters or leading zeros."""
    seen = "".join(letter for letter in normalize("NFKC", name) if category(letter) != "Cf")
    return re.sub(r"(?<!\d)0+(?=\d)", "", "".join(key(seen).split()))


def stem(path: str) -> str:
    """Return a path without the suffix of a video."""
    return os.path.splitext(path)[0] if is_video(path) else path


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


def _some(names: Sequence[str]) -> str:
    """Return the first of some names, for a note."""
    return ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)


# --- Files ---


def _raise(error: OSError) -> None:
    raise error


def _is_pipe(path: str) -> bool:
    """Return whether a path is there and is no file. A broken link may be a list."""
    return os.path.exists(path) and not os.path.isfile(path)


class Files:
    """The video files below a folder, without hidden ones. Links are followed.

    Attributes:
        paths: those of the videos, below the folder.
        texts: the files of text that may list videos.
        others: other files, by suffix and folder.
        skipped: the number of video files in each hidden folder or folder of a system.
        again: links to folders that were read already, such as their own parent.
    """

    def __init__(self, root: Path):
        self.paths, self.texts = dict[str, None](), list[Path]()
        self.others = defaultdict[str, Counter[str]](Counter)
        self.skipped, self.again, seen = Counter[str](), list[str](), set[str]()
        for at, folders, names in os.walk(root, onerror=_raise, followlinks=True):
            folder = os.path.relpath(at, root)
            below = "" if folder == "." else f"{folder}/"
            if (place := os.path.realpath(at)) in seen:
                self.again.append(folder)
                folders.clear()
                continue
            seen.add(place)
            # What `mgm prepare` wrote is made from other files.
            if is_prepared(names.__contains__):
                if not below:
                    raise UserError(f"{root}: is what `mgm prepare` wrote; pass its own source")
                folders.clear()
                continue
            hidden = [name for name in folders if name[0] == "." or name.casefold() in SYSTEM]
            folders[:] = sorted({*folders} - {*hidden})
            for name in hidden:
                inside = os.walk(os.path.join(at, name))
                self.skipped[name] += sum(is_video(file) for _, _, own in inside for file in own)
            texts = {name for name in names if name.lower().endswith(TEXTS)}
            # The source's own may each be a list.
            may_list = not below or len(texts) <= MANY
            for name in sorted(names):
                if name[0] == ".":
                    self.skipped[name] += is_video(name)
                elif is_video(name):
                    self.paths[below + name] = None
                elif name in texts and may_list and not _is_pipe(os.path.join(at, name)):
                    self.texts.append(Path(at, name))
                else:
                    self.others[os.path.splitext(name)[1].lower() or "none"][folder] += 1

    @cached_property
    def _named(self) -> dict[str, list[str]]:
        """The videos by their names, without suffixes, since lists may have others."""
        named = defaultdict[str, list[str]](list)
        for path in self.paths:
            named[key(stem(os.path.basename(path)))].append(path)
        return named

    def notes(self) -> Iterator[str]:
        """Yield what a user may miss."""
        if self.skipped.total():
            hidden = _some(sorted(+self.skipped))
            yield f"{self.skipped.total():,} hidden videos are not used ({hidden})"
        if self.again:
            links = _some(self.again)
            yield f"{len(self.again):,} links to folders that are read already ({links})"
        if self.others:
            counts = [
                f"{count.total():,} with suffix {suffix} ({', '.join([*count][:3])})"
                for suffix, count in sorted(self.others.items())
            ]
            yield f"other files: {_some(counts)}"

    def find(self, path: str, name: str) -> str:
        """Return the one file whose path ends with a listed one, up to case and suffix.

        Of several files, the one with the path `name` counts. Empty: there is none.
        """
        wanted = f"/{key(stem(path))}"
        named = self._named.get(wanted.rpartition("/")[2], ())
        found = [one for one in named if f"/{key(stem(one))}".endswith(wanted)]
        found = [one for one in found if stem(one) == name] or found
        return found[0] if len(found) == 1 else ""


@cache
def _store_of(folder: str) -> str:
    """Return the store that a folder is part of; empty if of none."""
    above, name = os.path.split(folder)
    # It may be forbidden to list the folder above.
    if name == "videos" and is_prepared(lambda own: os.path.exists(os.path.join(above, own))):
        return above
    return _store_of(above) if above not in ("", folder) else ""


def _places(root: Path, rows: Sequence[Row], files: Files | None) -> Iterator[str]:
    """Yield the path of each row's file below `root`; "" if it is absent."""
    walked = files.paths if files else ()
    there = {row.path for row in rows if row.path in walked or os.path.isfile(root / row.path)}
    lost = [row.path for row in rows if row.path not in there]
    if lost and not files:
        files = Files(root)
    # A list of absolute paths that was made on another machine, in folders with other names. What
    # all paths share is dropped, and each keeps a folder.
    above = {os.path.dirname(os.path.dirname(path)) for path in lost if os.path.isabs(path)}
    shared = os.path.commonpath(above) if above else ""
    for row in rows:
        if not files or row.path in there:
            yield row.path
            continue
        tail = os.path.relpath(row.path, shared) if os.path.isabs(row.path) else row.path
        path = files.find(tail, row.name or stem(tail))
        # One that another row lists is that row's, and a folder of the other split is no place.
        sides = {"test" if side == "val" else side for side in map(_split_of, path.split("/")[:-1])}
        other = {"train": "test", "test": "train"}.get(row.split)
        yield "" if path in there or other in sides else path


# --- Rows ---


def listing(
    root: Path,
    rows: Iterable[Row],
    note: str,
    classes: Sequence[str] = (),
    files: Files | None = None,
    test: str = "",
    first: bool = False,
    official: bool = False,
) -> Index:
    """Return the listing of some rows, whose files are looked up below `root`.

    A row's path is below `root`. If there is no such file, it is the end of the path of one file,
    which no other row lists. So a list without folders finds its files in any folder.

    Args:
        classes: names by label. Empty: those in the rows, sorted.
        files: the files below `root`, where they are known already.
        test: the split to test on, "test" or "val". Empty: test if there is one, or else val.
        first: whether the first row counts of a video that is listed twice.
        official: the rows are those of a published set.
    """
    listed = [row._replace(where=row.where or str(root)) for row in rows]
    if not listed:
        raise UserError(f"{root}: has no videos")
    count_of = Counter(row.split for row in listed)
    sides = _sides({*count_of}, test)
    base = os.path.join(os.path.abspath(root), "")
    rows = [
        row._replace(path=os.path.normpath(row.path.removeprefix(base)), split=sides[row.split])
        for row in listed
        if row.split in sides
    ]
    found, absent, excluded, moved = list[Row](), list[Row](), list[tuple[str, str]](), list[str]()
    for row, path in zip(rows, _places(root, rows, files)):
        name = row.name or stem(row.path)
        if path not in ("", row.path) and stem(path) != name:
            moved.append(path)
        if not path:
            absent.append(row)
        elif store := _store_of(os.path.dirname(os.path.join(root, path))):
            excluded.append((path, f"is in {store}, which `mgm prepare` wrote; list its source"))
        elif mark := unseen(path):
            excluded.append((ascii(path)[1:-1], f"has {mark} in its name; rename it"))
        else:
            # A list's absolute path is of another machine.
            found.append(row._replace(path=path, name=stem(path) if os.path.isabs(name) else name))
    lacking = _some([row.path for row in absent])
    if not found:
        why = f"; left out: {': '.join(excluded[-1])}" if excluded else ""
        raise UserError(f"{root}: has 0 of the {len(listed):,} listed videos: {lacking}{why}")
    chosen, notes = _once(found, first, official), [note]
    twice = len(found) - len(chosen)
    if not any(sides.values()):
        notes.append(DRAWN)
        chosen = split_by_hash(chosen)
    for split, number in count_of.items():
        if split not in sides:
            notes.append(f"{split}: {number:,} videos are not used")
    if moved:
        notes.append(
            f"{len(moved):,} videos were found in other folders than listed ({_some(moved)})"
        )
    if twice:
        notes.append(f"{twice:,} rows list a video again, or a group in both splits: not used")
    if absent:
        number_of = Counter(row.split for row in absent)
        order = [split for split in ("train", "test", "") if number_of[split]]
        counts = " and ".join(f"{number_of[split]:,} {split}".strip() for split in order)
        notes.append(f"absent: {counts} of the {len(listed):,} listed videos ({lacking})")
    # Sort classes by name, or by value if all names are numbers.
    names = {row.label for row in rows if not unseen(row.label)}
    numbers = all(name.isdecimal() for name in names)
    classes = classes or sorted(names, key=lambda name: (int(name) if numbers else 0, name))
    label_of, videos = {name: label for label, name in enumerate(classes)}, list[Video]()
    # Files may differ in their suffix alone, and one may be called as another is with its suffix.
    own = [row.name for row in chosen]
    while len({*own}) < len(own):
        count = Counter(own)
        own = [name if count[name] == 1 else row.path for name, row in zip(own, chosen)]
    for row, name in zip(chosen, own):
        if row.label not in label_of:
            raise UserError(f"{row.where}: {row.label!r} is in no list of classes")
        label, group = label_of[row.label], row.group or row.path
        videos.append(Video("", "", name, label, row.split, group, row.path))
    note = "; ".join(filter(None, notes))
    return Index(root, tuple(classes), tuple(videos), tuple(excluded), note)


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
        if first is not row:
            if first[1:4] != row[1:4] and not keep_first:
                here, there = (", ".join(filter(None, one[1:4])) for one in (row, first))
                raise UserError(
                    f"{row.where}: lists {row.path} as {here}, and {first.where} as {there}; "
                    "correct one, or keep the first by --first"
                )
            continue
        group = (row.group or row.path) if official else group_of(row)
        other = row_of_group.setdefault(group, row)
        if other.split == row.split:
            continue
        if not keep_first:
            like = f", or {other.group!r}, which looks like it," * (row.group != other.group)
            raise UserError(
                f"{row.where}: group {row.group}{like} is in {other.split} ({other.path}) and in "
                f"{row.split} ({row.path}); correct one, or keep the first by --first"
            )
        del row_of[row.path]
    return [*row_of.values()]


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


def list_folder(source: Path, test: str = "", first: bool = False) -> Index:
    """List the videos of a folder, a table or a list. For `test` and `first` see `listing`."""
    if source.is_file():
        rows, note = of_lists(source.parent, {source: _rows(source, source.parent)})
        return listing(source.parent, rows, note, test=test, first=first)
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder")
    table, files, left = source / "videos.csv", Files(source), list[tuple[str, str]]()
    if table.is_file():
        lists = {table: _rows(table, source)}
    else:
        lists, left = split_lists(source, files)
        lists = lists or _metadata(source, files)
    known = {*lists, *(source / name for name, _ in left)}
    if lists:
        rows, note = of_lists(source, lists, by_name=table not in lists)
    else:
        rows, loose, note = _of_folders(source, files)
        left = loose + left
    made = listing(source, rows, note, (), files, test, first)
    for path in files.texts:
        if path not in known and (reason := _unused(path)):
            left.append((os.path.relpath(path, source), reason))
    note = "; ".join(filter(None, (made.note, *files.notes())))
    return replace(made, excluded=(*made.excluded, *left), note=note)


def _rows(path: Path, root: Path, split: str = "") -> list[Row]:
    """Return the rows of a list, below `root`, in the split that its name or its folder says."""
    folder, rows = os.path.relpath(path.parent, root), read_list(path)
    for row in rows:
        if split and row.split not in ("", split):
            raise UserError(
                f"{row.where} is of {row.split}, and the name of its file or folder says {split}"
            )
    return [
        row._replace(path=os.path.join(folder, row.path), split=row.split or split) for row in rows
    ]


def split_lists(
    source: Path, files: Files, number: int = 1
) -> tuple[dict[Path, list[Row]], list[tuple[str, str]]]:
    """Return the lists in a folder that have a split in their names, and why others are not used.

    Args:
        number: the split. Lists named split_N or trainlistN of other splits are not used.
    """
    lists, others = dict[Path, list[Row]](), list[tuple[str, str]]()
    for path in files.texts:
        if path.parent != source or not (split := _split_in(path)):
            continue
        try:
            rows = _rows(path, source, split)
        except UserError:
            # Else it is a text on something else.
            if is_list(path):
                raise
            continue
        of = re.search(r"(?:split|list)_?0*([1-9])(?![0-9])", path.stem.lower())
        if of and int(of[1]) != number:
            others.append((path.name, f"is of split {of[1]}, and not used"))
        elif rows:
            lists[path] = rows
    return lists, others


def _metadata(source: Path, files: Files) -> dict[Path, list[Row]]:
    """Return Hugging Face's metadata files, which lie beside the videos."""
    lists = dict[Path, list[Row]]()
    for path in files.texts:
        if path.name.lower() in METADATA:
            folders = path.parent.relative_to(source).parts
            side = next(filter(None, map(split_word, folders)), "")
            if rows := _rows(path, source, side):
                lists[path] = rows
    return lists


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


def of_lists(
    root: Path, lists: Mapping[Path, list[Row]], by_name: bool = False
) -> tuple[list[Row], str]:
    """Return the rows of some lists, with class names, and what they are from.

    Args:
        by_name: the lists' names or folders say the splits, and a file may name the labels.
    """
    rows = [row for own in lists.values() for row in own]
    shown = ", ".join(os.path.relpath(path, root) for path in lists)
    note = f"as listed in {shown}"
    if by_name:
        splits = {row.split for row in rows}
        # Rows of val alone have no split, as in `_sides`.
        if not splits & {"train", ""} and splits != {"val"}:
            raise UserError(
                f"{root}: has lists ({shown}), and none of train; add one, or move them"
            )
        if splits == {"train"} or "" in splits:
            rows = [row._replace(split="") for row in rows]
    labels, said, names = {row.label for row in rows} - {UNLABELLED}, set[str](), dict[str, str]()
    for path in _class_files(root, lists):
        own = read_names(path)
        said |= {*own.values()}
        if by_name and own and labels <= {*own} and len({*own.values()}) == len(own):
            names, note = own, f"{note}, classes in {path.name}"
            break
        if by_name and not is_list(path):
            note += f" ({path.name} does not number these classes, and is not used)"
    if by_name:
        rows = labelled(rows, names)
    require_said(rows, said)
    return rows, note


def _class_files(root: Path, lists: Iterable[Path]) -> Iterator[Path]:
    """Yield the files in a folder that may number classes."""
    for path in sorted({*root.iterdir()} - {*lists}):
        named = re.match(r"(?!\.).*(class|categor|label)", path.stem.lower())
        if named and path.suffix.lower() in LISTS and path.is_file():
            yield path


def labelled(listed: list[Row], names: Mapping[str, str]) -> list[Row]:
    """Return the rows of some lists, with class names.

    Rows of a list without labels, as UCF101's of a test split, have the label that rows of the same
    folder have in another list, or the folder's name if it is a class.
    """
    labels_of, known = defaultdict[str, set[str]](set), {*names.values()}
    for row in listed:
        if row.label != UNLABELLED:
            labels_of[os.path.dirname(row.path)].add(names.get(row.label, row.label))
    rows = list[Row]()
    for row in listed:
        folder, label = os.path.dirname(row.path), names.get(row.label, row.label)
        own = {os.path.basename(folder)} & known
        if label == UNLABELLED and labels_of:
            labels = labels_of.get(folder, own)
            if len(labels) != 1:
                raise UserError(f"{row.where} has no label, and others have one")
            (label,) = labels
        if label != UNLABELLED and own - {label}:
            raise UserError(
                f"{row.where}: label {row.label} is class {label}, in folder {min(own)}"
            )
        rows.append(row._replace(label=label))
    return rows


def _of_folders(source: Path, files: Files) -> tuple[list[Row], list[tuple[str, str]], str]:
    """Return the rows of a folder without lists, the files without a label, and a note."""
    folders = {path: path.split("/")[:-1] for path in files.paths}
    tops = {names[0] for names in folders.values() if names}
    sides, words = {top: _split_of(top) for top in tops}, {top: split_word(top) for top in tops}
    if all(words.values()) and {"train"} < {*words.values()}:
        sides = words
    # Below folders of splits, classes are one level deeper.
    level = int(bool(sides) and all(sides.values()))
    within = {*map(_split_of, {name for names in folders.values() for name in names})}
    if not level and {"train"} < {*within, *words.values()} - {""}:
        raise UserError(
            f"{source}: has folders of splits, such as train, next to others or below them; pass "
            "the folder that has the splits alone, or list the videos in a videos.csv"
        )
    # A lone folder "train" is no split.
    given = bool(level) and {"train"} < {*sides.values()}
    flat = all(len(names) <= level for names in folders.values())
    rows, loose = list[Row](), list[tuple[str, str]]()
    below = defaultdict[str, set[str]](set)
    for path, names in folders.items():
        below[names[0] if names else ""].update(names[1:2])
        if flat or len(names) > level:
            label = UNLABELLED if flat else names[level]
            rows.append(Row(path, label, sides[names[0]] if given and names else ""))
        else:
            loose.append((path, "is not in a class folder, so it has no label"))
    note = "split as the folders say" * given
    first, *others = below.values() or [set[str]()]
    if not level and others and len(first) > 1 and all(own == first for own in others):
        note = (
            f"all class folders have the same folders below ({', '.join(sorted(first)[:3])}): if "
            "those are the classes, give the upper ones the names train and test"
        )
    return rows, loose, note
