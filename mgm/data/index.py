"""The index of a prepared dataset: its videos, their properties and their splits.

An index is two files. `index.csv` has one row per video. `index.json` has the rest, with the
SHA-256 of index.csv and its own. It is written last and in one step, so a folder without it holds
no complete index.

This module imports neither torch nor PyAV.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs

from mgm.errors import UserError, valid
from mgm.files import read_json, write_csv, write_text
from mgm.spec import FrozenModel, Run
from mgm.version import STORE

if TYPE_CHECKING:
    from mgm.video.track import Track

T = TypeVar("T")
S = TypeVar("S", bound=Run)
# Fields of an index that index.json has as they are.
TOLD = ("classes", "excluded", "digest", "note", "drawn", "settings")
SPLITS = ("train", "test")
DEFAULTS = {"short_side": 256, "quality": 4}  # how videos are written
AGAIN = "run the same `mgm prepare` again"
Count = Annotated[int, Field(ge=0)]


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
    name: Annotated[str, Field(min_length=1)]
    label: Count
    split: Annotated[str, Field(pattern=f"^({'|'.join(SPLITS)})$")]
    group: str
    frames: Count = 0
    fps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    width: Count = 0
    height: Count = 0
    codec: str = ""
    vectors: str = ""
    bytes: Count = 0
    interlaced: Annotated[float, Field(ge=0, le=1)] = 0.0
    track_bytes: Count = 0
    source: str = ""
    source_bytes: Count = 0
    source_mtime: int = 0
    source_ctime: int = 0
    source_inode: Count = 0
    source_sha256: str = ""

    @property
    def path(self) -> str:
        """The path of its motion JPEG."""
        return os.path.join(self.store, "videos", f"{self.name}.mp4")

    def track(self, method: str = "codec") -> str:
        """Return the path of its motion: of the codec's vectors, or of an optical flow."""
        end = ".npz" if method == "codec" else f".{method}.npz"
        return os.path.join(self.store, "tracks", self.name + end)

    def read_track(self, method: str = "codec") -> "Track":
        """Read its motion. It must be that of this row: another index may have its videos."""
        # NumPy takes a tenth of a second to import.
        from mgm.video.track import read_track

        track = read_track(self.track(method))
        if track.facts.bytes != self.bytes:
            raise UserError(f"{track.path}: was written after the index of its set; {AGAIN}")
        return track


@dataclass(frozen=True)
class Index:
    """The videos of a prepared dataset.

    Attributes:
        digest: 12 hex digits that identify the content, wherever it is stored.
        note: where the split comes from.
        excluded: (path, reason) of every listed video that is not used.
        drawn: the parameters of a generated set.
        settings: how the videos were written.
    """

    root: Path
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    excluded: tuple[tuple[str, str], ...]
    digest: str
    note: str
    drawn: dict[str, Any] | None = None
    settings: dict[str, int] = field(default_factory=DEFAULTS.copy)

    @property
    def train(self) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == "train")

    @property
    def test(self) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == "test")


def content_digest(
    classes: Sequence[str], videos: Iterable[Video], settings: dict[str, int] = DEFAULTS
) -> str:
    """Return 12 hex digits that identify the classes and the videos.

    They depend on class names and on each video's name, label, split and source. They do not depend
    on the folder or on file times.

    Args:
        settings: how the videos were written. The defaults change nothing.
    """
    rows = sorted([video.name, video.source_sha256, video.label, video.split] for video in videos)
    content = [list(classes), rows, *([settings] if settings != DEFAULTS else [])]
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class About(FrozenModel):
    """What index.json says.

    Attributes:
        rows, sha256: of index.csv.
        seal: the SHA-256 of the other fields.
    """

    format: int
    settings: dict[str, int]
    rows: Count
    sha256: str
    classes: tuple[str, ...]
    digest: str
    note: str
    excluded: tuple[tuple[str, str], ...]
    drawn: dict[str, Any] | None
    seal: str

    def computed(self) -> str:
        """Return the seal that the fields should have."""
        text = json.dumps(self.model_dump(exclude={"seal"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def read_about(folder: Path) -> About:
    """Read index.json alone."""
    path = folder / "index.json"
    if not path.is_file():
        raise UserError(f"{folder}: has no complete index; `mgm prepare` writes one")
    fields = read_json(path)
    if isinstance(fields, dict) and fields.get("format", 1) != STORE:
        raise UserError(
            f"{path}: is of format {fields.get('format', 1)}, and this mgm reads {STORE}; {AGAIN}"
        )
    with valid(f"{path}: ", AGAIN):
        about = About.model_validate(fields)
    if about.computed() != about.seal:
        raise UserError(f"{path}: was changed after it was written; {AGAIN}")
    return about


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
    write_rows(table := index.root / "index.csv", index.videos)
    about = About(
        format=STORE,
        rows=len(index.videos),
        sha256=hashlib.sha256(table.read_bytes()).hexdigest(),
        seal="",
        **{name: getattr(index, name) for name in TOLD},
    )
    about = about.model_copy(update={"seal": about.computed()})
    text = json.dumps(about.model_dump(), indent=1, ensure_ascii=False)
    write_text(index.root / "index.json", text + "\n")


def read_index(folder: Path) -> Index:
    """Read the index in a folder, and check that it is whole and that all of its files are there.

    Sizes are checked when a video is opened (`mgm.video.store`).
    """
    folder = Path(os.path.abspath(folder))
    about = read_about(folder)
    videos = tuple(_checked_rows(folder / "index.csv", about))
    strange = next((video for video in videos if video.label >= len(about.classes)), None)
    if strange:
        raise UserError(f"{folder}: {strange.name} has label {strange.label} of no class; {AGAIN}")
    if absent := missing_files(videos):
        raise UserError(
            f"{absent[0]}: is missing, as {len(absent):,} of {2 * len(videos):,} files; {AGAIN}"
        )
    return Index(folder, videos=videos, **{name: getattr(about, name) for name in TOLD})


def _checked_rows(path: Path, about: About) -> list[Video]:
    """Return the rows of index.csv. They must be those that were written."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; {AGAIN}")
    # This names a bad cell.
    videos = read_rows(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != about.sha256:
        raise UserError(f"{path}: was changed after it was written; {AGAIN}")
    return videos


def whole_rows(folder: Path) -> list[Video]:
    """Return the rows of a folder's index, also of one that is being written."""
    table = folder / "index.csv"
    if (folder / "index.json").exists():
        return _checked_rows(table, read_about(folder))
    return read_rows(table) if table.is_file() else []


def missing_files(videos: Iterable[Video]) -> list[str]:
    """Return which files are not there. Folders are listed, which is faster than a look at each."""

    @cache
    def there(folder: str) -> set[str]:
        return {*os.listdir(folder)} if os.path.isdir(folder) else set()

    paths = (path for video in videos for path in (video.path, video.track()))
    return [path for path in paths if os.path.basename(path) not in there(os.path.dirname(path))]


# Columns of index.csv, where `store` is relative to the index.
_COLUMNS = tuple(field.name for field in fields(Video))
_ROW = TypeAdapter(Video)


def row(video: Video, out: Path) -> list[Any]:
    """Return a video's row of OUT/index.csv."""
    store, *values = [getattr(video, name) for name in _COLUMNS]
    return [os.path.relpath(store, out).replace(os.sep, "/"), *values]


def write_rows(path: Path, videos: Iterable[Video]) -> None:
    """Write a table of videos to `path` in one step."""
    write_csv(path, [_COLUMNS, *(row(video, path.parent) for video in videos)])


def read_rows(path: Path) -> list[Video]:
    """Return the videos of a table. A last line that was cut short is left out."""

    @cache
    def absolute(store: str) -> str:
        return os.path.normpath(path.parent / store)

    videos, number = list[Video](), 1
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.reader(line for line in file if line.endswith("\n"))
            if tuple(next(table, ())) != _COLUMNS:
                raise UserError(f"{path}: its columns are not {','.join(_COLUMNS)}; {AGAIN}")
            for number, cells in enumerate(table, start=2):
                if len(cells) != len(_COLUMNS):
                    raise UserError(
                        f"{path}: line {number} has {len(cells)} cells, not {len(_COLUMNS)}; "
                        f"{AGAIN}"
                    )
                values = ArgsKwargs((absolute(cells[0]), *cells[1:]))
                videos.append(_ROW.validate_python(values))
    except ValidationError as error:
        first = error.errors()[0]
        (place,) = first["loc"] or (0,)
        column = _COLUMNS[place] if isinstance(place, int) else place
        raise UserError(
            f"{path}: line {number}: {column}: {first['msg']} (got {first['input']!r}); {AGAIN}"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: line {number + 1}: {error}; {AGAIN}") from None
    return videos


def files_of(video: Video) -> list[tuple[str, int]]:
    """Return (path, size) of a video's two files."""
    return [(video.path, video.bytes), (video.track(), video.track_bytes)]


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items, evenly spread."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def with_digest(spec: S, data: Mapping[str, Sequence[Path]]) -> S:
    """Return a spec that names the videos it sees, by the digest of its dataset's folder.

    So its run id does too. Two preparations of a dataset are two runs.
    """
    if spec.data.digest:
        return spec
    name = spec.data.dataset
    digest_of = {str(folder): read_about(folder).digest for folder in data.get(name, ())}
    if not digest_of:
        raise UserError(f"dataset {name} has no folder; pass --data {name}=FOLDER")
    digest, *others = {*digest_of.values()}
    if others:
        have = ", ".join(f"{folder} has {digest}" for folder, digest in digest_of.items())
        raise UserError(f"dataset {name} has several folders ({have}); name one by data.digest")
    own = spec.data.model_copy(update={"digest": digest})
    return spec.model_copy(update={"data": own})


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
