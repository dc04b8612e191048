"""Match a dataset's published lists with the files that exist.

The listed videos that exist are indexed. The missing ones are written to missing.txt.

A dataset's module reads its lists into `Entry`s by key. A key identifies a video whatever its
folder and container are, for example an id, or a class and a name. Keys are looked up among the
files found below the root. No text of a list is joined to a path, so no entry can refer to a file
outside the root.
"""

import lzma
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mgm import reading
from mgm.data.index import SPLITS, Index, listed_counts, new_index, require_splits, write_index
from mgm.data.opening import files_below, open_all
from mgm.errors import UserError

LISTS = Path(__file__).parent / "lists"
# If a video has several files, the first suffix is used. Files in .webm rarely have vectors.
SUFFIXES = (".mp4", ".mkv", ".avi", ".webm")


@dataclass(frozen=True)
class Entry:
    """A video of the lists.

    Attributes:
        name: the published name of its file, for missing.txt.
        group: videos of a group come from the same source.
        frames: their number in the lists; 0 if the lists do not have it.
    """

    name: str
    label: int
    split: str
    group: str
    frames: int = 0


@dataclass(frozen=True)
class Lists:
    """A dataset's lists: class names by label, entries by key, and the keys in neither split."""

    classes: tuple[str, ...]
    entries: dict[str, Entry]
    unused: frozenset[str] = frozenset()


@dataclass(frozen=True)
class VideoFiles:
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
    files: VideoFiles,
    lists: Lists,
    out: Path,
    dataset: str,
    official: tuple[int, int] | None = None,
    remark: Callable[[Index], str] = lambda index: "",
) -> Index:
    """Index the listed videos that were found, and write the index to folder `out`.

    Every file is opened. OUT/checked.jsonl keeps the properties of each, for a later call.
    OUT/missing.txt lists the videos that the source lacks, one path per line. The index's note
    counts them.

    Args:
        files: the result of `find_videos`.
        official: the numbers of train and test videos in the official lists. The note mentions it
            if the source's lists differ.
        remark: returns the end of the index's note.

    Raises:
        UserError: a split has no readable video.
    """
    entries, unused = lists.entries, lists.unused
    here = {files.name_of[key]: entry for key, entry in entries.items() if key in files.name_of}
    strangers = [
        name for key, name in files.name_of.items() if key not in entries and key not in unused
    ]
    if not here:
        like = next(iter(entries.values())).name
        raise UserError(
            f"{files.root}: 0 of the {len(entries):,} videos of {dataset} are here "
            f"({len(strangers) + len(files.unusable):,} others); pass as --source the "
            f"folder that holds files such as {like}"
        )
    opened, unreadable = open_all(files.root, list(here), out / "checked.jsonl")
    videos = [
        replace(video, label=here[name].label, split=here[name].split, group=here[name].group)
        for name, video in opened.items()
    ]
    require_splits(files.root, videos, unreadable)
    listed, there = (Counter(entry.split for entry in some.values()) for some in (entries, here))
    note = f"{dataset}: {listed_counts(listed, there)}"
    if official and tuple(listed[split] for split in SPLITS) != official:
        note += (
            f"; the lists in the source differ from the official {official[0]:,} train and "
            f"{official[1]:,} test videos"
        )
    if idle := sum(key in files.name_of for key in unused):
        note += f"; {idle:,} others are in neither split, as the lists say"
    groups = [{video.group for video in videos if video.split == split} for split in SPLITS]
    if leaks := groups[0] & groups[1]:
        note += (
            f"; {len(leaks):,} source videos have clips on both sides of the split, as the lists "
            "say"
        )
    if files.spare:
        note += (
            f"; {len(files.spare):,} further files of the same videos are not used, such as "
            f"{files.spare[0]}"
        )
    excluded = [
        *unreadable,
        *files.unusable,
        *((name, f"is not in the lists of {dataset}") for name in sorted(strangers)),
    ]
    index = new_index(files.root, lists.classes, videos, excluded, note)
    missing = [entry.name for key, entry in entries.items() if key not in files.name_of]
    return write_listed(replace(index, note=note + remark(index)), missing, out)


def find_videos(root: Path, key: Callable[[str, str], str | None]) -> VideoFiles:
    """Find all video files below a root, except hidden ones. Links are followed.

    Args:
        key: returns a file's key from its folder's name and its own name without suffix. A file
            with key None is unusable.

    Raises:
        UserError: the root is not a folder, or holds no video.
    """
    root = Path(os.path.abspath(root))
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; pass as --source the folder that holds the videos and their "
            "lists"
        )
    below, unusable = files_below(root)
    videos = [name for name in below if name.lower().endswith(SUFFIXES)]
    # No list can contain a name with a line break, for example.
    unusable += [
        (ascii(name)[1:-1], "has a name that cannot be printed; rename it")
        for name in videos
        if not name.isprintable()
    ]
    if not (names := sorted(filter(str.isprintable, videos), key=_preference)):
        raise UserError(
            f"{root}: holds no video ({', '.join(SUFFIXES)}); pass as --source the folder that "
            "holds the videos and their lists"
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
    return VideoFiles(root, name_of, spare, sorted(unusable))


def _preference(name: str) -> tuple[bool, int, str]:
    """Return a sort key that puts preferred files first.

    K400 comes with a folder of replacements for corrupted files, which are preferred.
    """
    return "replacement" not in name, SUFFIXES.index(os.path.splitext(name)[1].lower()), name


def write_listed(index: Index, missing: Iterable[str], out: Path) -> Index:
    """Write an index, and missing.txt with the paths of the missing videos."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "missing.txt").write_text("".join(f"{name}\n" for name in missing), encoding="utf-8")
    write_index(index, out)
    return index


def add(entries: dict[str, Entry], key: str, entry: Entry, where: str) -> None:
    """Add an entry of a list.

    Raises:
        UserError: the lists have its key already.
    """
    if key in entries:
        raise UserError(f"{where}: names {entry.name} a second time; remove one of the two")
    entries[key] = entry


def carried(name: str) -> str:
    """Return the text of a list in this package."""
    data = (LISTS / name).read_bytes()
    return (lzma.decompress(data) if name.endswith(".xz") else data).decode()


def read_text(path: Path, instead: str) -> str:
    """Read the text of a list.

    Raises:
        UserError: there is no such file. The message ends with `instead`.
    """
    try:
        return reading.read_text(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {instead}") from None


def read_json(path: Path, kind: Any, instead: str) -> Any:
    """Read a JSON file of type `kind`.

    Raises:
        UserError: there is no such file (then the message ends with `instead`), it is not JSON, or
            it has another type. Messages count entries from 0.
    """
    try:
        return reading.read_json(path, kind, "correct it, or download it again")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {instead}") from None


def plain_name(where: str, name: str) -> str:
    """Return a name of a list, after checking that it is a file's name and not a path.

    Raises:
        UserError: it is empty, or a path. The message begins with `where`, the place in the list.
    """
    if not name.isprintable() or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise UserError(f"{where}: {name!r} is not the plain name of a video; correct it")
    return name
