"""The index of a prepared dataset: its videos, their properties and their splits.

An index is two files. `index.csv` has one row per video. `index.json` has the rest. It is written
last and in one step, so a folder without it holds no complete index.

This module imports neither torch nor PyAV.
"""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from mgm.errors import UserError
from mgm.files import read_json, write_text
from mgm.spec import Run

T = TypeVar("T")
SPLITS = ("train", "test")
THREADS = 32  # that look at files. A shared file system answers many requests at a time
AGAIN = "run `mgm prepare` again"


@dataclass(frozen=True, slots=True)
class Video:
    """A prepared video.

    Attributes:
        store: the prepared folder that has its files.
        name: its path below STORE/videos, with slashes and without suffix. No two are equal.
        frames, fps, width, height, bytes: of its motion JPEG.
        group: videos of a group are all in the same split.
        codec: of the source.
        vectors: where the motion vectors are from: "source", or "h264" if the source has none.
        interlaced: the share of the source's pictures that are interlaced.
        source: its path below `--source`. source_bytes to source_inode are from `os.stat`.
    """

    store: str
    name: str
    label: int
    split: str
    group: str
    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    vectors: str = ""
    bytes: int = 0
    interlaced: float = 0.0
    track_bytes: int = 0
    source: str = ""
    source_bytes: int = 0
    source_mtime: int = 0
    source_ctime: int = 0
    source_inode: int = 0
    source_sha256: str = ""

    @property
    def path(self) -> str:
        """The path of its motion JPEG."""
        return os.path.join(self.store, "videos", f"{self.name}.mp4")

    def track(self, method: str = "codec") -> str:
        """Return the path of its motion: of the codec's vectors, or of an optical flow."""
        end = ".npz" if method == "codec" else f".{method}.npz"
        return os.path.join(self.store, "tracks", self.name + end)


@dataclass(frozen=True)
class Index:
    """The videos of a prepared dataset.

    Attributes:
        digest: 12 hex digits that identify the content, wherever it is stored.
        note: where the split comes from.
        excluded: (path, reason) of every listed video that is not used.
        drawn: the parameters of a generated set.
    """

    root: Path
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    excluded: tuple[tuple[str, str], ...]
    digest: str
    note: str
    drawn: dict[str, Any] | None = None

    @property
    def train(self) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == "train")

    @property
    def test(self) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == "test")


def content_digest(
    classes: Sequence[str], videos: Iterable[Video], settings: dict[str, int] | None = None
) -> str:
    """Return 12 hex digits that identify the classes and the videos.

    They depend on class names and on each video's name, label, split and source. They do not depend
    on the folder or on file times.

    Args:
        settings: how the videos were written, if not as by default.
    """
    rows = sorted([video.name, video.source_sha256, video.label, video.split] for video in videos)
    content = [list(classes), rows, *([settings] if settings else [])]
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# The fields of index.json.
_ABOUT = ("classes", "digest", "note", "excluded", "drawn")


def require_splits(
    root: Path, videos: Iterable[Any], excluded: Sequence[tuple[str, str]] = ()
) -> None:
    """Check that videos or entries are in both splits."""
    last = f" (left out: {': '.join(excluded[-1])})" if excluded else ""
    count = Counter(video.split for video in videos)
    for split in SPLITS:
        if not count[split]:
            total = count.total()
            raise UserError(f"{root}: 0 of the {total:,} videos are in the {split} split{last}")


def write_index(index: Index) -> None:
    """Write index.csv and, last, index.json to the index's root."""
    require_splits(index.root, index.videos, index.excluded)
    (index.root / "index.json").unlink(missing_ok=True)
    write_rows(index.root / "index.csv", index.videos)
    about = {name: getattr(index, name) for name in _ABOUT}
    text = json.dumps(about, indent=1, ensure_ascii=False)
    write_text(index.root / "index.json", text + "\n")


def read_index(folder: Path) -> Index:
    """Read the index in a folder, and check that all of its files are there.

    Raises:
        UserError: there is no complete index, or a video's file is missing or has another size.
    """
    folder = Path(os.path.abspath(folder))
    if not (folder / "index.json").is_file():
        raise UserError(f"{folder}: has no complete index; `mgm prepare` writes one")
    about = read_json(folder / "index.json")
    about["classes"] = tuple(about["classes"])
    about["excluded"] = tuple(map(tuple, about["excluded"]))
    index = Index(folder, videos=tuple(read_rows(folder / "index.csv")), **about)
    with ThreadPoolExecutor(THREADS) as pool:
        wrong = [path for paths in pool.map(wrong_files, index.videos) for path in paths]
    if wrong:
        raise UserError(
            f"{wrong[0]}: is missing or has another size than when it was prepared, as "
            f"{len(wrong):,} of {2 * len(index.videos):,} files; {AGAIN}"
        )
    return index


# Columns of index.csv, where `store` is relative to the index.
_COLUMNS = tuple(field.name for field in fields(Video))
_TYPES = [get_type_hints(Video)[name] for name in _COLUMNS]


def row(video: Video, out: Path) -> list[Any]:
    """Return a video's row of OUT/index.csv."""
    store, *values = astuple(video)
    return [os.path.relpath(store, out).replace(os.sep, "/"), *values]


def write_rows(path: Path, videos: Iterable[Video]) -> None:
    """Write a table of videos to `path` in one step."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [_COLUMNS, *(row(video, path.parent) for video in videos)]
    )
    write_text(path, text.getvalue())


def read_rows(path: Path) -> list[Video]:
    """Return the videos of a table. A last line that was cut short is left out."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(line for line in file if line.endswith("\n"))
        if tuple(next(rows, ())) != _COLUMNS:
            raise UserError(f"{path}: its columns are not {','.join(_COLUMNS)}; {AGAIN}")
        videos = []
        for cells in rows:
            store, *values = (kind(cell) for kind, cell in zip(_TYPES, cells, strict=True))
            videos.append(Video(os.path.normpath(path.parent / store), *values))
        return videos


def files_of(video: Video) -> list[tuple[str, int]]:
    """Return (path, size) of a video's two files."""
    return [(video.path, video.bytes), (video.track(), video.track_bytes)]


def wrong_files(video: Video) -> list[str]:
    """Return which of a video's files are missing or have another size than the index says."""
    return [
        path
        for path, size in files_of(video)
        if not os.path.isfile(path) or os.path.getsize(path) != size
    ]


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items, evenly spread."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def require_labels(index: Index, spec: Run) -> None:
    """Check that a run's dataset has the labels that it trains with."""
    if spec.stage in ("finetune", "probe") and len(index.classes) < 2:
        raise UserError(
            f"{index.root}: has {len(index.classes)} class, and {spec.stage} needs at least 2; "
            "pretrain on it, and test on labelled videos"
        )
    counts, per_class = Counter(video.label for video in index.train), spec.data.labels_per_class
    if spec.stage in ("finetune", "probe") and len(counts) < 2:
        raise UserError(f"{index.root}: has training videos of {len(counts)} class; add others")
    for label, name in enumerate(index.classes):
        if per_class and counts[label] < per_class:
            raise UserError(
                f"data.labels_per_class is {per_class}, but class {name} has {counts[label]} "
                "training videos; lower it in the spec or in the scale's file, or add videos"
            )
