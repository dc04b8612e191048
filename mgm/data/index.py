"""The index of a prepared dataset: its videos, their properties and their splits.

`index.csv` has a row per video, and `index.json` the rest. A video's two files are named by what
they are made from (`file_of`), and are never changed. So an index is right as long as its files are
there, whatever else is prepared in its folder.

This module imports neither torch nor PyAV.
"""

import csv
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from io import TextIOWrapper
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mgm.errors import UserError, valid
from mgm.files import read_json, write_csv, write_text
from mgm.spec import FrozenModel, Run
from mgm.version import STORE

if TYPE_CHECKING:
    from mgm.video.track import Track

T = TypeVar("T")
S = TypeVar("S", bound=Run)
FORMAT = 3  # of index.csv and index.json. Sets of other formats are prepared again
SPLITS = ("train", "test")
DEFAULTS = {"short_side": 256, "quality": 4}  # how videos are written
AGAIN = "run the same `mgm prepare` again"
# Fields of an index that index.json has as they are.
TOLD = ("classes", "excluded", "note", "named", "drawn", "settings")
PART = 10_000  # rows of a digest that are a text at a time
LOCK = "prepare.lock"  # in each folder that `mgm prepare` writes videos to
DERIVED = "derived"  # a store's folder of notes: which other folders' indices refer to its files


def file_of(source_sha256: str, settings: Mapping[str, int]) -> str:
    """Return the name of a video's files: a hash of all that determines their content."""
    text = json.dumps([STORE, source_sha256, sorted(settings.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Video(NamedTuple):
    """A prepared video. A set may have hundreds of thousands, so it is light.

    Attributes:
        store: the prepared folder that has its files.
        file: their name (`file_of`).
        name: the source's path below `--source`, with slashes and without suffix.
        group: videos of a group are all in the same split.
        source: the source's path. Empty: the video is drawn.
        frames, fps, width, height, bytes: of its motion JPEG.
        codec: of the source.
        vectors: where the motion vectors are from: "source", or "h264" if the source has none.
        interlaced: the share of the source's pictures that are interlaced.
        seen: size, times and inode of the source. While they stay, its content is not read again.
    """

    store: str
    file: str
    name: str
    label: int
    split: str
    group: str
    source: str = ""
    source_sha256: str = ""
    source_bytes: int = 0
    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    vectors: str = ""
    bytes: int = 0
    interlaced: float = 0.0
    seen: str = ""

    @property
    def path(self) -> str:
        """The path of its motion JPEG."""
        return os.path.join(self.store, "videos", self.file[:2], f"{self.file}.mp4")

    def track(self, method: str = "codec") -> str:
        """Return the path of its motion: of the codec's vectors, or of an optical flow."""
        end = ".npz" if method == "codec" else f".{method}.npz"
        return os.path.join(self.store, "tracks", self.file[:2], self.file + end)

    def read_track(self, method: str = "codec") -> "Track":
        """Read its motion."""
        # NumPy takes a tenth of a second to import.
        from mgm.video.track import read_track

        with self.named():
            return read_track(self.track(method))

    @contextmanager
    def named(self) -> Iterator[None]:
        """Name the video in errors of the block. Its files have names that say nothing."""
        try:
            yield
        except UserError as error:
            raise type(error)(f"{self.name}: {error}") from error


@dataclass(frozen=True)
class Index:
    """The videos of a prepared dataset.

    Attributes:
        excluded: (path, reason) of every listed video that is not used.
        note: where the split comes from.
        named: the digest of a set that has one before it is made, as drawn ones have.
        drawn: the parameters of a generated set.
        settings: how the videos were written.
    """

    root: Path
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    excluded: tuple[tuple[str, str], ...] = ()
    note: str = ""
    named: str = ""
    drawn: dict[str, Any] | None = None
    settings: dict[str, int] = field(default_factory=DEFAULTS.copy)

    @cached_property
    def content(self) -> str:
        """The digest of its classes and videos (`content_digest`)."""
        return content_digest(self.classes, self.videos, self.settings)

    @property
    def digest(self) -> str:
        """12 hex digits that identify the set, wherever it is stored."""
        return self.named or self.content

    @property
    def train(self) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == "train")

    @property
    def test(self) -> tuple[Video, ...]:
        return tuple(video for video in self.videos if video.split == "test")


def content_digest(
    classes: Sequence[str], videos: Collection[Video], settings: Mapping[str, int] = DEFAULTS
) -> str:
    """Return 12 hex digits that identify the classes and the videos.

    They depend on class names, on each video's name, label, split and source, and on how vectors of
    H.264 were read. They do not depend on the folder or on file times.

    Args:
        settings: how the videos were written. The defaults change nothing.
    """
    if not any(video.codec == "h264" and video.vectors == "source" for video in videos):
        settings = {name: value for name, value in settings.items() if name != "vectors"}
    rows = sorted(map(attrgetter("name", "source_sha256", "label", "split"), videos))
    text = partial(json.dumps, separators=(",", ":"))
    digest = hashlib.sha256(f"[{text(classes)},[".encode())
    # By parts: the text of 240,000 rows would take 100 MB.
    for start in range(0, len(rows), PART):
        digest.update(("," * (start > 0) + text(rows[start : start + PART])[1:-1]).encode())
    end = f",{text(settings)}" if settings != DEFAULTS else ""
    digest.update(f"]{end}]".encode())
    return digest.hexdigest()[:12]


class About(FrozenModel):
    """What index.json says.

    Attributes:
        content: that of the index.
        table: the SHA-256 of index.csv.
    """

    format: int
    content: str
    table: str
    classes: tuple[str, ...]
    excluded: tuple[tuple[str, str], ...]
    note: str
    named: str
    drawn: dict[str, Any] | None
    settings: dict[str, int]

    @property
    def digest(self) -> str:
        """That of the index."""
        return self.named or self.content


def read_about(folder: Path) -> About:
    """Read index.json alone."""
    path = folder / "index.json"
    if not path.is_file():
        raise UserError(f"{folder}: has no complete index; `mgm prepare` writes one")
    told = read_json(path)
    if isinstance(told, dict) and (number := told.get("format", 1)) != FORMAT:
        raise UserError(f"{path}: is of format {number}, and this mgm reads {FORMAT}; {AGAIN}")
    with valid(f"{path}: ", AGAIN):
        return About.model_validate(told)


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


# Columns of index.csv. The first is the path of the motion JPEG, for other programs.
COLUMNS = ("path", *Video._fields[2:])
# Few values fill these, and are kept once.
FEW = ("label", "split", "frames", "fps", "width", "height", "codec", "vectors", "interlaced")


def write_index(index: Index) -> None:
    """Write index.csv and, last, index.json to the index's root."""
    require_splits(index.root, index.videos, index.excluded)
    table = index.root / "index.csv"
    relative = cache(lambda path: os.path.relpath(path, index.root).replace(os.sep, "/"))
    folder = cache(lambda store, part: relative(os.path.join(store, "videos", part)))
    rows = ([f"{folder(v.store, v.file[:2])}/{v.file}.mp4", *v[2:]] for v in index.videos)
    write_csv(table, [COLUMNS, *rows])
    about = About(
        format=FORMAT,
        content=index.content,
        table=hashlib.sha256(table.read_bytes()).hexdigest(),
        **{name: getattr(index, name) for name in TOLD},
    )
    text = json.dumps(about.model_dump(), indent=1, ensure_ascii=False)
    write_text(index.root / "index.json", text + "\n")
    for store in {video.store for video in index.videos} - {str(index.root)}:
        # Who cannot write to a store cannot remove its files either.
        with suppress(OSError):
            place = os.path.relpath(index.root, store)
            name = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
            write_text(Path(store, DERIVED, name), place)


def is_prepared(has: Callable[[str], bool]) -> bool:
    """Return whether a folder that has some names is what `mgm prepare` writes, or a copy."""
    return has(LOCK) or (has("index.csv") and has("index.json"))


def read_index(folder: Path) -> Index:
    """Read the index in a folder. All of its files are there."""
    index = read_rows(folder)
    if absent := missing_files(index.videos):
        raise UserError(
            f"{absent[0]}: is missing, as {len(absent):,} of {2 * len(index.videos):,} files; "
            f"{AGAIN}"
        )
    return index


def read_rows(folder: Path) -> Index:
    """Read the index in a folder. It is what was written, but files may be missing."""
    root = Path(os.path.abspath(folder))
    about, path = read_about(root), root / "index.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {AGAIN}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != about.table:
            raise UserError(f"{path}: was changed after it was written; {AGAIN}")
        file.seek(0)
        rows = csv.reader(TextIOWrapper(file, "utf-8", newline=""))
        next(rows)
        videos = tuple(_videos(root, rows))
    index = Index(root, videos=videos, **{name: getattr(about, name) for name in TOLD})
    if index.content != about.content:
        raise UserError(f"{root / 'index.json'}: was changed after it was written; {AGAIN}")
    return index


def _videos(root: Path, rows: Iterable[list[str]]) -> Iterator[Video]:
    """Yield the videos of the rows of index.csv."""
    store_of = cache(lambda folder: os.path.normpath(root / folder / "../.."))
    kind_of = Video.__annotations__
    kinds = [cache(kind_of[name]) if name in FEW else kind_of[name] for name in COLUMNS[1:]]
    for path, *cells in rows:
        folder, _, file = path.rpartition("/")
        own = [kind(cell) for kind, cell in zip(kinds, cells)]
        yield Video._make([store_of(folder), file[:-4], *own])


def missing_files(videos: Iterable[Video]) -> list[str]:
    """Return which files are not there. Folders are listed, which is faster than a look at each."""
    missing, of_folder = list[str](), defaultdict[tuple[str, str], list[Video]](list)
    for video in videos:
        of_folder[video.store, video.file[:2]].append(video)
    for (store, part), own in of_folder.items():
        for kind, end in (("videos", ".mp4"), ("tracks", ".npz")):
            folder = os.path.join(store, kind, part)
            there = {*os.listdir(folder)} if os.path.isdir(folder) else set[str]()
            names = (video.file + end for video in own)
            missing += [os.path.join(folder, name) for name in names if name not in there]
    return missing


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
