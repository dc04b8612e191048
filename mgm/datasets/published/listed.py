"""Videos that a dataset's published lists name: those that are there become an index, the others are listed.

A dataset's module reads its lists into `Entry`s by key, where a key is what identifies a video whatever its folder and its container: a
class and a name, an id. Nothing of a list is ever joined to a path; keys are looked up among the files found below the root, so that
no entry reaches outside it.
"""

import json
import lzma
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mgm.datasets.files import files_below, open_all, video_of
from mgm.datasets.index import SPLITS, Index, listed_counts, new_index, require_splits, write_index
from mgm.errors import UserError

LISTS = Path(__file__).parent / "lists"
SUFFIXES = (".mp4", ".mkv", ".avi", ".webm")  # of several files of one video the first of these is used: .webm rarely has vectors


@dataclass(frozen=True)
class Entry:
    """A video as the lists give it. `name`: its file as published, for missing.txt. Videos of one `group` come from one source."""

    name: str
    label: int
    split: str
    group: str
    frames: int = 0  # 0: the lists do not say


@dataclass(frozen=True)
class Lists:
    """What a dataset's lists say: class names by label, entries by key, and the keys of what they name for neither of the two splits."""

    classes: tuple[str, ...]
    entries: dict[str, Entry]
    unused: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Found:
    """The video files below a root: {key: path below it}; the paths of further files of the same videos; (path, reason) of the unusable."""

    name_of: dict[str, str]
    spare: list[str]
    unusable: list[tuple[str, str]]


def index_listed(
    source: Path, out: Path, dataset: str, key: Callable[[str, str], str | None], read: Callable[[Path], Lists],
    official: tuple[int, int] | None = None, remark: Callable[[Index, Lists], str] = lambda index, lists: "", below: str = "",
    keep: Callable[[Found, Lists], Found] = lambda found, lists: found,
) -> Index:  # fmt: skip
    """The index of the listed videos that are in `source`, written to folder `out`; every file is opened.

    What the lists name and the source lacks goes to OUT/missing.txt, a path a line, and is counted in the index's note. OUT/checked.jsonl
    keeps what opening each file showed, which a later call need not find out again.

    Args:
        key: see `find_videos`; read: the lists of a source.
        official: how many train and test videos the published lists name; where these differ, the note says so.
        remark: of the index and the lists, what its note ends with.
        below: a folder of the source that holds the videos, if it is there.
        keep: without the files that lie where the lists say they cannot.

    Raises:
        UserError: no source, lists that cannot be followed, or no readable video of train or of test.
    """
    source, out = Path(os.path.abspath(source)), Path(os.path.abspath(out))
    root = source / below if (source / below).is_dir() else source
    found, lists = find_videos(root, key), read(source)
    found, entries, unused = keep(found, lists), lists.entries, lists.unused
    here = [key for key in entries if key in found.name_of]
    strangers = [name for key, name in found.name_of.items() if key not in entries and key not in unused]
    if not here:
        like = next(iter(entries.values())).name
        raise UserError(
            f"{root}: 0 of the {len(entries):,} videos of {dataset} are here ({len(strangers) + len(found.unusable):,} others); "
            f"give --source the folder that holds files such as {like}"
        )
    key_of = {found.name_of[key]: key for key in here}
    infos, unreadable = open_all(root, list(key_of), out / "checked.jsonl")
    videos = [video_of(root, name, (entry := entries[key_of[name]]).label, entry.split, entry.group, info) for name, info in infos.items()]
    require_splits(root, videos, unreadable)
    listed, there = Counter(entry.split for entry in entries.values()), Counter(entries[key].split for key in here)
    note = f"{dataset}: {listed_counts(listed, there)}"
    if official and tuple(listed[split] for split in SPLITS) != official:
        note += f"; the lists in the source differ from the official {official[0]:,} train and {official[1]:,} test videos"
    if idle := sum(key in found.name_of for key in unused):
        note += f"; {idle:,} others are in neither split, as the lists say"
    groups = [{video.group for video in videos if video.split == split} for split in SPLITS]
    if leaks := groups[0] & groups[1]:
        note += f"; {len(leaks):,} source videos have clips on both sides of the split, as the lists say"
    if found.spare:
        note += f"; {len(found.spare):,} further files of the same videos are not used, such as {found.spare[0]}"
    excluded = [*unreadable, *found.unusable, *((name, f"is not in the lists of {dataset}") for name in sorted(strangers))]
    index = new_index(root, lists.classes, videos, excluded, note)
    missing = [entry.name for key, entry in entries.items() if key not in found.name_of]
    return write_found(replace(index, note=note + remark(index, lists)), missing, out)


def find_videos(root: Path, key: Callable[[str, str], str | None]) -> Found:
    """All video files below a root, hidden ones aside; links are followed.

    `key`: of a file, given its folder's name and its own without the suffix. One without (None) is unusable.

    Raises:
        UserError: the root is no folder, or holds no video.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give --source the folder that holds the videos and their lists")
    below, unusable = files_below(root)
    videos = [name for name in below if name.lower().endswith(SUFFIXES)]
    # such as one with a line break: no list can name it
    unusable += [(ascii(name)[1:-1], "has a name that cannot be printed; rename it") for name in videos if not name.isprintable()]
    if not (names := sorted(filter(str.isprintable, videos), key=_preference)):
        raise UserError(f"{root}: holds no video ({', '.join(SUFFIXES)}); give --source the folder that holds the videos and their lists")
    name_of: dict[str, str] = {}
    spare = []
    for name in names:
        stem = os.path.splitext(os.path.basename(name))[0]
        if (identity := key(os.path.basename(os.path.dirname(name)), stem)) is None:
            unusable.append((name, "is not named as this dataset's videos are"))
        elif identity in name_of:
            spare.append(name)
        else:
            name_of[identity] = name
    return Found(name_of, spare, sorted(unusable))


def _preference(name: str) -> tuple[bool, int, str]:
    """K400 is shipped with a folder of replacements for its corrupted files: those come first."""
    return "replacement" not in name, SUFFIXES.index(os.path.splitext(name)[1].lower()), name


def write_found(index: Index, missing: Iterable[str], out: Path) -> Index:
    """Write an index, and beside it missing.txt: a path a line of what the lists name and the source lacks."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "missing.txt").write_text("".join(f"{name}\n" for name in missing), encoding="utf-8")
    write_index(index, out)
    return index


def add(entries: dict[str, Entry], key: str, entry: Entry, where: str) -> None:
    """Add a list's entry.

    Raises:
        UserError: the lists have it already.
    """
    if key in entries:
        raise UserError(f"{where}: names {entry.name} a second time; remove one of the two")
    entries[key] = entry


def carried(name: str) -> str:
    """The text of a list that mgm carries."""
    data = (LISTS / name).read_bytes()
    return (lzma.decompress(data) if name.endswith(".xz") else data).decode()


def read_text(path: Path, instead: str) -> str:
    """A list's text. Raises UserError, with what to do instead, when there is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {instead}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8; download it again") from None


def read_json(path: Path, kind: type, instead: str) -> Any:
    """What a JSON file holds, if it is of a type (list or dict).

    Raises:
        UserError: no such file, not JSON, or of another type.
    """
    try:
        value = json.loads(read_text(path, instead))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is not JSON ({error}), perhaps cut short; download it again") from None
    if not isinstance(value, kind):
        raise UserError(f"{path}: is a {type(value).__name__} where a {kind.__name__} should be; download it again")
    return value


def rows_of(path: Path, values: Sequence[Any], fields: dict[str, type]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it is, its fields) of every object of an array that the file at `path` holds.

    Raises:
        UserError: one is no object, or lacks a field or has it of another type.
    """
    for number, row in enumerate(values, start=1):
        where = f"{path}: entry {number}"
        for field, kind in fields.items():
            if not isinstance(row, dict) or field not in row:
                raise UserError(f"{where}: has no {field}; correct it")
            if type(row[field]) is not kind:
                raise UserError(f"{where}: {field} is {row[field]!r}, not of type {kind.__name__}; correct it")
        yield where, row


def plain_name(where: str, name: object) -> str:
    """A name that a list gives, if it is one of a file and not a path.

    Raises:
        UserError: it is empty, leads elsewhere or is not text; `where` is the place in the list.
    """
    if not isinstance(name, str) or not name.isprintable() or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise UserError(f"{where}: {name!r} is not the plain name of a video; correct it")
    return name
