"""The index of a dataset: its videos, their properties and their splits.

An index is two files. `index.csv` has one row per video, with its path relative to the root.
`index.json` has the rest. It is written last and in one step, so a folder without it holds no
complete index.

This module imports neither torch nor PyAV.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel

from mgm.errors import UserError
from mgm.reading import file_digest, read_json, read_table
from mgm.results.atomic import atomic_write, table_writer, write
from mgm.spec import Run
from mgm.video.videos import Video

T = TypeVar("T")
SPLITS = ("train", "test")
# Bytes. A file system has at most 255, and tracks, copies and temporary files add to a name.
LONGEST_NAME = 200


@dataclass(frozen=True)
class Index:
    """The videos of a dataset.

    Attributes:
        digest: 12 hex digits that identify the content, wherever it is stored.
        note: where the split comes from.
        excluded: (path below the root, reason) of every listed video that is not used.
    """

    root: Path
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    excluded: tuple[tuple[str, str], ...]
    digest: str
    note: str

    @property
    def train(self) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == "train")

    @property
    def test(self) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == "test")

    @property
    def grouped(self) -> bool:
        """Whether several training videos come from one source."""
        return len({video.group for video in self.train}) < len(self.train)

    def name(self, video: Video) -> str:
        """Return the video's path below the root. It is the same on every machine."""
        return below(video.path, self.root)


def below(path: str, root: Path) -> str:
    """Return a path relative to the root, with slashes."""
    return os.path.relpath(path, root).replace(os.sep, "/")


def new_index(
    root: Path,
    classes: tuple[str, ...],
    videos: Sequence[Video],
    excluded: Iterable[tuple[str, str]],
    note: str,
) -> Index:
    """Return an index with the digest of its content."""
    excluded = tuple(excluded)
    for split in SPLITS:
        if not any(video.split == split for video in videos):
            last = f" (the last left out: {excluded[-1][0]}: {excluded[-1][1]})" if excluded else ""
            raise UserError(
                f"{root}: 0 of the {len(videos):,} readable videos are in the {split} split{last}"
            )
    digest = content_digest(root, classes, videos)
    return Index(root, classes, tuple(videos), excluded, digest, note)


def content_digest(root: Path, classes: tuple[str, ...], videos: Iterable[Video]) -> str:
    """Return 12 hex digits that identify the classes and the videos.

    They depend on class names and on each video's relative path, size, label and split. They do not
    depend on the root or on file times.
    """
    rows = sorted(
        [below(video.path, root), video.bytes, video.label, video.split] for video in videos
    )
    return hashlib.sha256(json.dumps([classes, rows], separators=(",", ":")).encode()).hexdigest()[
        :12
    ]


def listed_counts(listed: Mapping[str, int], present: Mapping[str, int]) -> str:
    """Return in words how many of the listed videos are there.

    Args:
        listed: the number of listed videos, by split.
        present: the number of those that are there, by split.
    """
    counts = ", ".join(
        f"{present[split]:,} of {listed[split]:,} {split} videos are there" for split in SPLITS
    )
    complete = all(present[split] == listed[split] for split in SPLITS)
    return counts if complete else f"{counts}; the others are in missing.txt"


def write_index(
    index: Index, out: Path, missing: Iterable[str] | None = None, tracks: str = "tracks"
) -> Index:
    """Write `out`/index.csv and, last, `out`/index.json. Return the index.

    A root at or below `out` is stored relative to it, so that both can be moved together. Paths of
    videos outside the root begin with `../`.

    Args:
        missing: names for `out`/missing.txt. None: there is no such file.
        tracks: the folder of the videos' tracks, absolute or relative to `out`; empty: there are
            none.
    """
    out.mkdir(parents=True, exist_ok=True)
    if missing is not None:
        write(out / "missing.txt", "".join(f"{name}\n" for name in missing))
    (out / "index.json").unlink(missing_ok=True)
    with (
        atomic_write(out / "index.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = table_writer(file)
        writer.writerow(_COLUMNS)
        for video in index.videos:
            _, *values = attrgetter(*_COLUMNS)(video)
            writer.writerow([index.name(video), *values])
    root, home = Path(os.path.abspath(index.root)), Path(os.path.abspath(out))
    about = _About(
        classes=index.classes,
        root=root.relative_to(home).as_posix() if root.is_relative_to(home) else str(root),
        digest=index.digest,
        note=index.note,
        excluded=index.excluded,
        checksum=_checksum(index.classes, out / "index.csv"),
        tracks=tracks,
    )
    text = json.dumps(about.model_dump(), indent=1, ensure_ascii=False)
    write(out / "index.json", text + "\n")
    return index


def read_index(out: Path) -> Index:
    """Read the index in folder `out`."""
    about_path, rows_path = out / "index.json", out / "index.csv"
    again = "run `mgm prepare` again, which opens no video that is unchanged"
    for path in (about_path, rows_path):
        if not path.is_file():
            raise UserError(f"{path}: no such file, so the folder has no complete index; {again}")
    about: _About = read_json(about_path, _About, again)
    if about.checksum != _checksum(about.classes, rows_path):
        raise UserError(f"{rows_path}: was changed since index.json was written; {again}")
    # Rows with this checksum are as `write_index` wrote them.
    (_, header), *rows = read_table(rows_path)
    if tuple(header) != _COLUMNS:
        raise UserError(f"{rows_path}: its columns are not {','.join(_COLUMNS)}; {again}")
    root = Path(os.path.abspath(out / about.root))
    tracks = os.path.abspath(out / about.tracks) if about.tracks else ""
    # Tracks are written there. A derived set has those of the dataset that it is made of.
    of_a_dataset = Path(tracks).parent / "index.json"
    inside_it = not tracks or Path(tracks).is_relative_to(os.path.abspath(out))
    if not (inside_it or of_a_dataset.is_file()):
        raise UserError(f"{about_path}: tracks is {about.tracks}, outside of any dataset; {again}")
    videos = tuple(_video(row, root, tracks) for _, row in rows)
    return Index(root, about.classes, videos, about.excluded, about.digest, about.note)


class _About(BaseModel):
    """The fields of index.json."""

    classes: tuple[str, ...]
    root: str
    digest: str
    note: str
    excluded: tuple[tuple[str, str], ...]
    checksum: str
    # Folder of the videos' tracks; empty: there are none.
    tracks: str = "tracks"


def _checksum(classes: Sequence[str], rows: Path) -> str:
    """Return a digest of the classes and of index.csv. Of 250,000 videos it takes 16 ms."""
    return hashlib.sha256((json.dumps(classes) + file_digest(rows)).encode()).hexdigest()


_COLUMNS = tuple(field.name for field in fields(Video) if field.name != "track")
_READ: dict[type, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    bool: "True".__eq__,
}
_READERS = [_READ[get_type_hints(Video)[name]] for name in _COLUMNS]


def _video(row: list[str], root: Path, tracks: str) -> Video:
    path, *values = (read(cell) for read, cell in zip(_READERS, row, strict=True))
    track = os.path.join(tracks, inside(path)) if tracks else ""
    return Video(os.path.normpath(os.path.join(root, path)), *values, track)  # type: ignore[call-arg]


def inside(name: str) -> str:
    """Return a path below a folder for a path that may lead outside of it, or be too long.

    The name of a path that begins with `../` gets a digest, since several could become equal. So
    does a name to which no suffix could be added, and then it is short.
    """
    *folders, file = (part for part in name.split("/") if part not in ("", ".."))
    long = len(file.encode()) > LONGEST_NAME
    if ".." in name.split("/") or long:
        stem, dot, suffix = file.rpartition(".")
        stem, suffix = (stem[:32], suffix[:8]) if long else (stem, suffix)
        file = f"{stem or suffix}.{hashlib.sha256(name.encode()).hexdigest()[:8]}{dot}{suffix}"
    return "/".join([*folders, file])


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items, evenly spread."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def require_vectors(videos: Sequence[Video], mask: str) -> None:
    """Check that all videos have motion vectors, which the mask needs."""
    if without := [video for video in videos if not video.has_vectors]:
        raise UserError(
            f"{without[0].path}: codec {without[0].kind} has no motion vectors ({len(without)} "
            f"of {len(videos)} videos), and mask {mask} needs them; transcode it to H.264"
        )


def require_labels(index: Index, spec: Run) -> None:
    """Check that a run's dataset has the labels that it trains with."""
    if spec.stage in ("finetune", "probe") and len(index.classes) < 2:
        raise UserError(
            f"{index.root}: has {len(index.classes)} class, and {spec.stage} needs at least 2; "
            "pretrain on it, and test on labelled videos"
        )
    if not (per_class := spec.data.labels_per_class):
        return
    counts = Counter(video.label for video in index.train)
    for label, name in enumerate(index.classes):
        if counts[label] < per_class:
            raise UserError(
                f"data.labels_per_class is {per_class}, but class {name} has {counts[label]} "
                "training videos; lower it in the spec or in the scale's file, or add videos"
            )
