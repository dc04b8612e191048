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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mgm.data.index import SPLITS, Index, listed_counts, new_index, write_index
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
        frames, seconds: its length; 0 if the lists do not have it.
    """

    name: str
    label: int
    split: str
    group: str
    frames: int = 0
    seconds: int = 0


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
) -> Index:
    """Index the listed videos that were found, and write the index to folder `out`.

    Every file is opened. OUT/checked.jsonl keeps the properties of each, for a later call.
    OUT/missing.txt lists the videos that the source lacks, one path per line. The index's note
    counts them.

    Args:
        files: the result of `find_videos`.
        official: the numbers of train and test videos in the official lists. The note mentions it
            if the source's lists differ.
    """
    entries, name_of = lists.entries, files.name_of
    entry_of = {name_of[key]: entry for key, entry in entries.items() if key in name_of}
    strangers = sorted(name_of[key] for key in name_of.keys() - entries.keys() - lists.unused)
    if not entry_of:
        like = next((entry.name for entry in entries.values()), "those in the lists")
        raise UserError(
            f"{files.root}: has 0 of the {len(entries):,} videos of {dataset}, such as {like}, and "
            f"{len(strangers) + len(files.unusable):,} others"
        )
    opened, unreadable = open_all(files.root, list(entry_of), out / "checked.jsonl")
    videos = [
        replace(video, label=entry.label, split=entry.split, group=entry.group)
        for name, video in opened.items()
        for entry in [entry_of[name]]
    ]
    listed = Counter(entry.split for entry in entries.values())
    notes = [
        f"{dataset}: " + listed_counts(listed, Counter(entry.split for entry in entry_of.values()))
    ]
    if official and (listed["train"], listed["test"]) != official:
        notes.append(
            f"the lists in the source differ from the official {official[0]:,} train and "
            f"{official[1]:,} test videos"
        )
    if idle := len(name_of.keys() & lists.unused):
        notes.append(f"{idle:,} others are in neither split, as the lists say")
    train, test = ({video.group for video in videos if video.split == split} for split in SPLITS)
    if both := train & test:
        notes.append(
            f"{len(both):,} source videos have clips on both sides of the split, as the lists say"
        )
    if files.spare:
        notes.append(
            f"{len(files.spare):,} further files of the same videos are not used, such as "
            f"{files.spare[0]}"
        )
    if shorter := [
        f"{name} has {video.frames} of {entry.frames} frames"
        if video.frames < entry.frames
        else f"{name} lasts {video.frames / video.fps:.1f} of {entry.seconds} s"
        for name, video in opened.items()
        for entry in [entry_of[name]]
        if video.frames < entry.frames or video.frames < video.fps * (entry.seconds - 1)
    ]:
        notes.append(f"{len(shorter):,} videos are shorter than the lists say ({shorter[0]})")
    excluded = [
        *unreadable,
        *files.unusable,
        *((name, f"is not in the lists of {dataset}") for name in strangers),
    ]
    index = new_index(files.root, lists.classes, videos, excluded, "; ".join(notes))
    missing = (entry.name for key, entry in entries.items() if key not in name_of)
    return write_index(index, out, missing)


def find_videos(root: Path, key: Callable[[str, str], str | None]) -> VideoFiles:
    """Find all video files below a root, except hidden ones. Links are followed.

    Args:
        key: returns a file's key from its folder's name and its own name without suffix. A file
            with key None is unusable.
    """
    root = Path(os.path.abspath(root))
    below, unusable = files_below(root)
    videos = [name for name in below if name.lower().endswith(SUFFIXES)]
    if not videos:
        state = f"holds no video ({', '.join(SUFFIXES)})" if root.is_dir() else "no such folder"
        raise UserError(f"{root}: {state}")
    name_of: dict[str, str] = {}
    spare = []
    for name in sorted(videos, key=_preference):
        folder, file = os.path.split(name)
        # No list can contain a name with a line break, for example.
        if not name.isprintable():
            unusable.append((ascii(name)[1:-1], "has a name that cannot be printed; rename it"))
        elif (identity := key(os.path.basename(folder), os.path.splitext(file)[0])) is None:
            unusable.append((name, "is not named as this dataset's videos are"))
        elif name_of.setdefault(identity, name) != name:
            spare.append(name)
    return VideoFiles(root, name_of, spare, sorted(unusable))


def _preference(name: str) -> tuple[bool, int, str]:
    """Return a sort key that puts preferred files first.

    K400 comes with a folder of replacements for corrupted files, which are preferred.
    """
    return "replacement" not in name, SUFFIXES.index(os.path.splitext(name)[1].lower()), name


def add(entries: dict[str, Entry], key: str, entry: Entry, where: str) -> None:
    """Add an entry of a list."""
    parts = entry.name.split("/")
    if not entry.name.isprintable() or "\\" in entry.name or {"", ".", ".."} & {*parts}:
        raise UserError(f"{where}: {entry.name!r} is not the name of a video")
    if key in entries:
        raise UserError(f"{where}: names {entry.name} a second time")
    entries[key] = entry


def require_class(name: Any, classes: Collection[Any], where: str) -> None:
    """Raise a UserError if the class of an entry is not one of `classes`."""
    if name not in classes:
        raise UserError(f"{where}: class {name!r} is not one of the {len(classes)} classes")


def numbered(path: Path, number_of: Mapping[str, str], first: int) -> tuple[str, ...]:
    """Return class names in the order of their numbers in a list."""
    classes = sorted(number_of, key=lambda name: (len(number_of[name]), number_of[name]))
    if any(number_of[name] != str(number) for number, name in enumerate(classes, first)):
        raise UserError(
            f"{path}: its {len(classes)} classes are not numbered from {first} to "
            f"{first + len(classes) - 1}"
        )
    return tuple(classes)


def carried(name: str) -> str:
    """Return the text of a list in this package."""
    data = (LISTS / name).read_bytes()
    return (lzma.decompress(data) if name.endswith(".xz") else data).decode()
