"""The index of a dataset: its videos, what they are, and their splits.

On disk it is two files. `index.csv` has one row per video, with its path relative to the root;
`index.json` has the rest. `croissant.json` beside them tells other people's tools the same
(`mgm.data.croissant`); nothing here reads it. `index.json` is written last and in one step: a
folder without it holds no whole index. This module imports neither torch nor PyAV.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, field_validator

from mgm.console import show
from mgm.errors import UserError, valid
from mgm.masking import MASKS
from mgm.reading import file_digest, read_json, read_table
from mgm.results.atomic import atomic_write, table_writer, write

SPLITS = ("train", "test")
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Video:
    """One video. `path` can be opened as it stands; `Index.name` gives the part below the root."""

    path: str
    label: int
    split: str  # "train" or "test"
    group: str  # videos of one group are never on both sides of a split
    frames: int
    fps: float
    width: int  # pixels, as stored
    height: int
    codec: str
    has_vectors: bool
    bytes: int
    content: str = ""  # `content_hash`; empty for a video in a shard, which has checksums
    # All labels, where videos may have several; `label` is the first of them. Empty: one label.
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Index:
    """Which videos a dataset has.

    Attributes:
        digest: 12 hex digits that identify the content wherever it lies.
        note: how the split came about.
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
    def several_labels(self) -> bool:
        """Whether videos may have several labels each."""
        return any(video.labels for video in self.videos)

    def class_names(self, video: Video) -> str:
        """Return the names of a video's classes, separated by semicolons."""
        return ";".join(self.classes[label] for label in video.labels or (video.label,))

    def name(self, video: Video) -> str:
        """The video's path below the root, with forward slashes: the same on every machine."""
        return _below(video.path, self.root)


def new_index(
    root: Path,
    classes: tuple[str, ...],
    videos: Sequence[Video],
    excluded: Iterable[tuple[str, str]],
    note: str,
) -> Index:
    """An index whose digest is its content's."""
    return Index(
        root, classes, tuple(videos), tuple(excluded), content_digest(root, classes, videos), note
    )


def content_digest(root: Path, classes: tuple[str, ...], videos: Iterable[Video]) -> str:
    """Return 12 hex digits of class names and of each video's relative path, size, label and split.

    The root and file times do not count.
    """
    rows = sorted(
        [_below(video.path, root), video.bytes, video.labels or video.label, video.split]
        for video in videos
    )
    return hashlib.sha256(json.dumps([classes, rows], separators=(",", ":")).encode()).hexdigest()[
        :12
    ]


def content_hash(path: str | Path) -> str:
    """Hash a file's size and three blocks of 4 KiB: the first, the middle and the last.

    It costs one opening per file, whatever its length.
    """
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        blocks = [
            os.pread(file.fileno(), _BLOCK, max(at, 0))
            for at in (0, (size - _BLOCK) // 2, size - _BLOCK)
        ]
    return hashlib.blake2b(b"".join([str(size).encode(), *blocks]), digest_size=8).hexdigest()


def listed_counts(listed: Mapping[str, int], here: Mapping[str, int]) -> str:
    """Return in words how many of the listed videos are there, from both counts of each split."""
    counts = ", ".join(
        f"{here[split]:,} of {listed[split]:,} {split} videos are there" for split in SPLITS
    )
    return counts + (
        "; the others are in missing.txt"
        if any(here[split] != listed[split] for split in SPLITS)
        else ""
    )


def write_index(index: Index, out: Path) -> None:
    """Write `out`/index.csv, `out`/croissant.json and, last, `out`/index.json.

    A root at or below `out` is stored relative to it, so that both move together.
    Videos may lie elsewhere: their paths then begin with `../`.
    """
    from mgm.data.croissant import write_croissant  # which describes what this module defines

    out.mkdir(parents=True, exist_ok=True)
    (out / "index.json").unlink(missing_ok=True)
    with (
        atomic_write(out / "index.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = table_writer(file)
        writer.writerow(_COLUMNS)
        for video in index.videos:
            values = {name: getattr(video, name) for name in _COLUMNS}
            writer.writerow(
                {
                    **values,
                    "path": index.name(video),
                    "label": "".join(f"{label};" for label in video.labels) or video.label,
                    "has_vectors": int(video.has_vectors),
                }.values()
            )
    write_croissant(index, out)
    root, home = Path(os.path.abspath(index.root)), Path(os.path.abspath(out))
    about = {
        "classes": index.classes,
        "root": root.relative_to(home).as_posix() if root.is_relative_to(home) else str(root),
        "digest": index.digest,
        "videos": len(index.videos),
        "note": index.note,
        "excluded": index.excluded,
    }
    about["seal"] = _seal(about, out / "index.csv")
    write(out / "index.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def require_vectors(videos: Sequence[Video], mask: str) -> None:
    """Refuse videos whose codec gives no motion vectors where a mask follows them.

    Raises:
        UserError: it names the first such video, and what to do.
    """
    if without := [video for video in videos if not video.has_vectors]:
        unguided = ", ".join(name for name, info in MASKS.items() if not info.guided)
        raise UserError(
            f"{without[0].path}: codec {without[0].codec} gives no motion vectors ({len(without)} "
            f"of {len(videos)} videos), which mask "
            f"{mask} needs; re-encode to H.264 (ffmpeg -i IN -c:v libx264 OUT.mp4), guide it by "
            "optical flow (`mgm flow`), "
            f"or choose one of {unguided}"
        )


def require_splits(
    place: Path, videos: Sequence[Video], left_out: Sequence[tuple[str, str]]
) -> None:
    """Refuse a split without a video.

    Raises:
        UserError: it says how many can be read, and why the first other was left out.
    """
    for split in SPLITS:
        if not any(video.split == split for video in videos):
            first = f" (the first left out: {left_out[0][0]}: {left_out[0][1]})" if left_out else ""
            raise UserError(
                f"{place}: 0 of the {len(videos):,} readable videos are in the {split} split; add "
                f"some{first}"
            )


def read_index(out: Path) -> Index:
    """The index that `write_index` left in folder `out`.

    Raises:
        UserError: there is none, or it is broken.
    """
    about_path, rows_path = out / "index.json", out / "index.csv"
    again = "run `mgm prepare` to make it"
    for path in (about_path, rows_path):
        if not path.is_file():
            raise UserError(f"{path}: no such file, so this folder holds no whole index; {again}")
    try:
        found = read_json(about_path)
    except UserError as error:
        raise UserError(f"{error}; {again}") from None
    with valid(f"{about_path}: not an index: ", again):
        about = _About.model_validate(found, strict=True)
    root, classes = Path(os.path.abspath(out / about.root)), tuple(about.classes)
    excluded = tuple((name, reason) for name, reason in about.excluded)
    digest, note, count = about.digest, about.note, about.videos
    rows = read_table(rows_path)
    if tuple(next(rows, (0, []))[1]) != _COLUMNS:
        raise UserError(f"{rows_path}: its first line is not {','.join(_COLUMNS)}; {again}")
    videos = []
    for line, row in rows:
        try:
            videos.append(_video(row, root, len(classes)))
        except ValueError as error:
            raise UserError(f"{rows_path}: line {line}: {error}; {again}") from None
    if len(videos) != count:
        raise UserError(f"{rows_path}: {len(videos)} videos where index.json says {count}; {again}")
    index = Index(root, classes, tuple(videos), excluded, digest, note)
    _check_seal(index, found, out)
    return index


def _seal(about: Mapping[str, Any], rows: Path) -> str:
    """Return the SHA-256 of index.csv and of all that index.json says, save where the root is.

    Of 250,000 videos it takes 16 ms; reading their rows takes 2 s.
    """
    said = {name: value for name, value in about.items() if name not in ("root", "seal")}
    return hashlib.sha256(
        (json.dumps(said, sort_keys=True) + file_digest(rows)).encode()
    ).hexdigest()


def _check_seal(index: Index, about: Mapping[str, Any], out: Path) -> None:
    """Compare an index with its seal, or one from before there were seals with its digest.

    Raises:
        UserError: something was changed since it was written.
    """
    again = "run `mgm prepare` again, which opens no video that is unchanged"
    if seal := about.get("seal"):
        if seal != _seal(about, out / "index.csv"):
            raise UserError(
                f"{out}: index.csv or index.json was changed since it was written (digest "
                f"{index.digest}, seal {str(seal)[:12]}); put it back, or {again}"
            )
        return
    found = content_digest(index.root, index.classes, index.videos)
    if found == index.digest:
        return
    # Of generated videos the digest is that of their parameters. Of a set made of two others it is
    # made of theirs.
    if not index.note.startswith(("generated videos", "published lists of")):
        raise UserError(
            f"{out / 'index.csv'}: its rows have digest {found}, index.json says {index.digest} "
            f"and has no seal; put them back, or {again}"
        )
    show(f"{out / 'index.json'}: has no seal, so its rows cannot be checked; {again}")


_COLUMNS = tuple(field.name for field in fields(Video) if field.name != "labels")


class _About(BaseModel):
    """What index.json says."""

    classes: list[str]
    root: str
    digest: str
    note: str
    videos: int
    excluded: list[list[str]]
    seal: str = ""

    @field_validator("root")
    @classmethod
    def _is_a_path(cls, root: str) -> str:
        if "\0" in root:
            raise ValueError("no path holds a NUL character")
        return root

    @field_validator("classes")
    @classmethod
    def _differ(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("two classes have one name")
        return names

    @field_validator("excluded")
    @classmethod
    def _pairs(cls, pairs: list[list[str]]) -> list[list[str]]:
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError("an entry is not a path and a reason")
        return pairs


def _video(row: list[str], root: Path, classes: int) -> Video:
    if len(row) != len(_COLUMNS):
        raise ValueError(f"{len(row)} values where there are {len(_COLUMNS)} columns")
    path, label, split, group, frames, fps, width, height, codec, has_vectors, size, content = row
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is neither train nor test")
    # One number, or several with a semicolon behind each.
    labels = tuple(_whole("label", one) for one in label.split(";")[:-1]) if ";" in label else ()
    if len(set(labels)) < len(labels) or (";" in label and not label.endswith(";")):
        raise ValueError(f"label {label[:40]!r} is no list of different numbers")
    label = str(labels[0]) if labels else label
    numbers = {"label": label, "frames": frames, "width": width, "height": height, "bytes": size}
    whole = {name: _whole(name, text) for name, text in numbers.items()}
    if (largest := max(whole["label"], *labels, 0)) >= classes:
        raise ValueError(f"label {largest} is outside the {classes} classes")
    if not 0 <= float(fps) < math.inf:
        raise ValueError(f"fps {fps} is no rate")
    return Video(
        os.path.normpath(os.path.join(root, path)),
        split=split,
        group=group,
        fps=float(fps),
        codec=codec,
        has_vectors=has_vectors == "1",
        content=content,
        labels=labels,
        **whole,
    )


def _whole(name: str, text: str) -> int:
    """Return the whole number that a cell holds."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError(f"{name} {text[:40]!r} is no whole number from 0 to 10^18")
    return int(text)


def _below(path: str, root: Path) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")
