"""Match a dataset's published lists with the files that are there.

Videos that are there become an index; the others are listed.

A dataset's module reads its lists into `Entry`s by key, where a key is what identifies a video
whatever its folder and its container: a class and a name, an id. Nothing of a list is ever joined
to a path; keys are looked up among the files found below the root, so that no entry reaches outside
it.
"""

import lzma
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mgm import reading
from mgm.data.index import SPLITS, Index, listed_counts, new_index, require_splits, write_index
from mgm.data.opening import files_below, open_all
from mgm.errors import UserError, valid

LISTS = Path(__file__).parent / "lists"
# Of several files of one video the first of these is used: .webm rarely has vectors.
SUFFIXES = (
    ".mp4",
    ".mkv",
    ".avi",
    ".webm",
)


@dataclass(frozen=True)
class Entry:
    """A video as the lists give it.

    `name`: its file as published, for missing.txt. Videos of one `group` come from one source.
    """

    name: str
    label: int
    split: str
    group: str
    frames: int = 0  # 0: the lists do not say


@dataclass(frozen=True)
class Lists:
    """A dataset's lists: class names by label, entries by key, and the keys in neither split."""

    classes: tuple[str, ...]
    entries: dict[str, Entry]
    unused: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Found:
    """The video files below a root.

    Attributes:
        name_of: {key: path below the root}.
        spare: paths of further files of the same videos.
        unusable: (path, reason).
    """

    root: Path
    name_of: dict[str, str]
    spare: list[str]
    unusable: list[tuple[str, str]]


def index_listed(
    found: Found,
    lists: Lists,
    out: Path,
    dataset: str,
    official: tuple[int, int] | None = None,
    remark: Callable[[Index], str] = lambda index: "",
) -> Index:
    """Index the listed videos that were found, and write the index to folder `out`.

    Every file is opened. What the lists name and the source lacks goes to OUT/missing.txt, a path
    per line, and is counted in the index's note. OUT/checked.jsonl keeps what opening each file
    showed, for a later call.

    Args:
        found: by `find_videos`.
        official: numbers of train and test videos that the published lists name. The note says
            where these differ.
        remark: what the index's note ends with.

    Raises:
        UserError: no readable video of train or of test.
    """
    entries, unused = lists.entries, lists.unused
    here = {found.name_of[key]: entry for key, entry in entries.items() if key in found.name_of}
    strangers = [
        name for key, name in found.name_of.items() if key not in entries and key not in unused
    ]
    if not here:
        like = next(iter(entries.values())).name
        raise UserError(
            f"{found.root}: 0 of the {len(entries):,} videos of {dataset} are here "
            f"({len(strangers) + len(found.unusable):,} others); "
            f"give --source the folder that holds files such as {like}"
        )
    opened, unreadable = open_all(found.root, list(here), out / "checked.jsonl")
    videos = [
        replace(video, label=here[name].label, split=here[name].split, group=here[name].group)
        for name, video in opened.items()
    ]
    require_splits(found.root, videos, unreadable)
    listed, there = (Counter(entry.split for entry in some.values()) for some in (entries, here))
    note = f"{dataset}: {listed_counts(listed, there)}"
    if official and tuple(listed[split] for split in SPLITS) != official:
        note += (
            f"; the lists in the source differ from the official {official[0]:,} train and "
            f"{official[1]:,} test videos"
        )
    if idle := sum(key in found.name_of for key in unused):
        note += f"; {idle:,} others are in neither split, as the lists say"
    groups = [{video.group for video in videos if video.split == split} for split in SPLITS]
    if leaks := groups[0] & groups[1]:
        note += (
            f"; {len(leaks):,} source videos have clips on both sides of the split, as the lists "
            "say"
        )
    if found.spare:
        note += (
            f"; {len(found.spare):,} further files of the same videos are not used, such as "
            f"{found.spare[0]}"
        )
    excluded = [
        *unreadable,
        *found.unusable,
        *((name, f"is not in the lists of {dataset}") for name in sorted(strangers)),
    ]
    index = new_index(found.root, lists.classes, videos, excluded, note)
    missing = [entry.name for key, entry in entries.items() if key not in found.name_of]
    return write_found(replace(index, note=note + remark(index)), missing, out)


def find_videos(root: Path, key: Callable[[str, str], str | None]) -> Found:
    """All video files below a root, hidden ones aside; links are followed.

    `key`: of a file, given its folder's name and its own without the suffix. One without (None) is
    unusable.

    Raises:
        UserError: the root is no folder, or holds no video.
    """
    root = Path(os.path.abspath(root))
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; give --source the folder that holds the videos and their "
            "lists"
        )
    below, unusable = files_below(root)
    videos = [name for name in below if name.lower().endswith(SUFFIXES)]
    # such as one with a line break: no list can name it
    unusable += [
        (ascii(name)[1:-1], "has a name that cannot be printed; rename it")
        for name in videos
        if not name.isprintable()
    ]
    if not (names := sorted(filter(str.isprintable, videos), key=_preference)):
        raise UserError(
            f"{root}: holds no video ({', '.join(SUFFIXES)}); give --source the folder that holds "
            "the videos and their lists"
        )
    name_of: dict[str, str] = {}
    spare = []
    for name in names:
        folder, file = os.path.split(name)
        identity = key(os.path.basename(folder), os.path.splitext(file)[0])
        if identity is None:
            unusable.append((name, "is not named as this dataset's videos are"))
        elif name_of.setdefault(identity, name) != name:
            spare.append(name)
    return Found(root, name_of, spare, sorted(unusable))


def _preference(name: str) -> tuple[bool, int, str]:
    """K400 is shipped with a folder of replacements for its corrupted files: those come first."""
    return "replacement" not in name, SUFFIXES.index(os.path.splitext(name)[1].lower()), name


def write_found(index: Index, missing: Iterable[str], out: Path) -> Index:
    """Write an index, and missing.txt with a path per line of what the source lacks."""
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
        return reading.read_text(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {instead}") from None


def read_json(path: Path, kind: Any, instead: str) -> Any:
    """What a JSON file holds, if it is of a type; entries count from 0.

    Raises:
        UserError: no such file, not JSON, or of another type.
    """
    try:
        found = reading.read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {instead}") from None
    except UserError as error:
        raise UserError(f"{error}, perhaps cut short; download it again") from None
    with valid(f"{path}: ", "correct it, or download it again"):
        return TypeAdapter(kind).validate_python(found, strict=True)


def plain_name(where: str, name: str) -> str:
    """A name that a list gives, if it is one of a file and not a path.

    Raises:
        UserError: it is empty or leads elsewhere; `where` is the place in the list.
    """
    if not name.isprintable() or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise UserError(f"{where}: {name!r} is not the plain name of a video; correct it")
    return name
