"""Write a dataset's store: decode each source once, and index what was written.

    OUT/videos/FI/FILE.mp4      every frame as a JPEG (`mgm.video.store`)
    OUT/tracks/FI/FILE.npz      the motion of every frame (`mgm.video.track`)
    OUT/index.csv, index.json   a row per video, and the rest

FILE is a hash of the source's content and of how it is written (`mgm.data.index.file_of`). So a
file that is there is the right one, whatever was prepared before. Equal content is decoded once, no
file is replaced, and the same call continues one that was stopped.
"""

import errno
import hashlib
import json
import os
import random
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from mgm.console import progress, show
from mgm.data.folder import alike
from mgm.data.index import (
    AGAIN,
    DEFAULTS,
    DERIVED,
    LOCK,
    SPLITS,
    Index,
    Video,
    file_of,
    is_prepared,
    read_index,
    read_rows,
    require_splits,
    write_index,
)
from mgm.errors import UserError
from mgm.files import locked, write_text
from mgm.processes import as_done, cores
from mgm.spec import FLOWS, GENERATED, Flow
from mgm.version import VECTORS

if TYPE_CHECKING:
    from mgm.drawn.params import Synthetic
    from mgm.video.track import Facts

PART = 1_000  # videos that a thread looks at, at a time
THREADS = 32  # that look at files. A shared file system answers many requests at a time
# Errors of disks and memory, also from FFmpeg.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOMEM, errno.EIO)
TRIED = 20  # videos that the estimate of the disk's space is from
FEW = 25  # test videos per class, below which a top-1 accuracy says little
SHOWN = 20  # files left out that are shown. A set of 240,000 videos may lack thousands
# What a row has of the facts that a track has.
FACTS = ("frames", "fps", "width", "height", "codec", "vectors", "bytes", "interlaced")


def prepare(
    listing: Index,
    out: Path,
    short_side: int = DEFAULTS["short_side"],
    quality: int = DEFAULTS["quality"],
    processes: int | None = None,
    drawn: "Synthetic | None" = None,
    check: bool = False,
    prune: bool = False,
) -> Index:
    """Write the store of the listed videos to folder `out`, and return its index.

    Videos that cannot be read are left out, and listed in the index with the reason. The next call
    tries them again.

    Args:
        short_side, quality: see `mgm.video.store.write_video`. A generated set is as it is drawn.
        processes: default: one per core.
        drawn: the parameters of a generated set.
        check: read all of the videos' files, and write anew what is damaged.
        prune: remove the files that no index refers to.
    """
    out, processes = Path(os.path.abspath(out)), processes or cores()
    # Now, not after hours of decoding.
    require_splits(listing.root, listing.videos)
    names = os.listdir(out) if out.is_dir() else []
    if {"videos", "index.csv"} & {*names} and not is_prepared(names.__contains__):
        raise UserError(f"{out}: is not from `mgm prepare`; choose another --out")
    settings = {"short_side": short_side, "quality": quality, "vectors": VECTORS}
    if drawn:
        settings = DEFAULTS | {"short_side": max(DEFAULTS["short_side"], drawn.size)}
    writer = Writer(out, listing.root, settings, drawn, check)
    with locked(out / LOCK, f"mgm prepare {out}"):
        _remove_parts(out)
        earlier = _earlier(out)
        known = dict[tuple[str, str], Video]()
        if earlier and earlier.settings != settings:
            show(f"{out}: had settings {earlier.settings}, and has {settings} now: other files")
        if earlier and not check:
            # The rows of an index are all written alike.
            first = earlier.videos[0]
            if first.file == file_of(first.source_sha256, settings):
                known = {(video.source, video.seen): video for video in earlier.videos}
        parts = [listing.videos[at : at + PART] for at in range(0, len(listing.videos), PART)]
        with ThreadPoolExecutor(THREADS) as pool:
            found = chain.from_iterable(pool.map(partial(writer.kept, known), parts))
            rows = {video.name: video for video in found}
        todo = [video for video in listing.videos if video.name not in rows]
        failed, damaged = list[tuple[str, str]](), False
        for video, done, why in _written(writer, listing.videos, todo, processes):
            if not done:
                failed.append((video.source, why))
                continue
            rows[video.name] = done
            if why:
                show(why)
                damaged = True
        if drawn and failed:
            raise UserError(f"a generated video cannot be read: {failed[0][1]}")
        # In the order of the list.
        videos = tuple(rows[video.name] for video in listing.videos if video.name in rows)
        labels = [listing.classes[video.label] for video in videos]
        if len({*labels}) > 1 and labels == [str(video.frames) for video in videos]:
            raise UserError(
                f"{listing.root}: the labels are the videos' numbers of frames; name the column "
                "frames, or write PATH FRAMES LABEL"
            )
        index = replace(
            listing,
            root=out,
            videos=videos,
            excluded=tuple(
                (_readable(name), _readable(reason))
                for name, reason in (*listing.excluded, *sorted(failed))
            ),
            note=_readable(listing.note),
            named=drawn.digest if drawn else "",
            drawn=drawn.model_dump(mode="json") if drawn else None,
            settings=settings,
        )
        now = {video.name for video in videos}
        if gone := [v.name for v in (earlier.videos if earlier else ()) if v.name not in now]:
            show(f"{len(gone):,} videos leave the set, such as {gone[0]}")
        if damaged or index != earlier:
            # Flow may be missing.
            for method in FLOWS:
                (out / f"tracks-{method}.json").unlink(missing_ok=True)
        # An equal index is not written again, since other processes may be reading it.
        if index != earlier:
            write_index(index)
        if prune:
            for path in unreferred(index):
                path.unlink()
        shutil.rmtree(out / ".drawn", ignore_errors=True)
    return index


def _earlier(out: Path) -> Index | None:
    """Return the index of the last call. None: there is none that can be read."""
    if not (out / "index.json").exists():
        return None
    try:
        return read_rows(out)
    except UserError as error:
        show(f"{str(error).removesuffix(f'; {AGAIN}')}. All sources are read again")
        return None


def _remove_parts(out: Path) -> None:
    """Remove what killed processes left under hidden names."""
    shutil.rmtree(out / ".drawn", ignore_errors=True)
    for path in chain(out.glob(".*"), out.glob("videos/??/.*"), out.glob("tracks/??/.*")):
        if re.match(r"\.\d+-", path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


def unreferred(index: Index) -> list[Path]:
    """Return the files of videos in a set's folder that neither it nor a derived set refers to.

    Raises:
        UserError: an index cannot be read.
    """
    store, sets = index.root, [index]
    for note in (store / DERIVED).glob("[!.]*"):
        folder = store / note.read_text(encoding="utf-8")
        sets += [read_rows(folder)] if (folder / "index.json").exists() else []
    used = {video.file for one in sets for video in one.videos}
    return [Path(at, name) for at, name in _files(store) if name.partition(".")[0] not in used]


def _files(store: Path) -> Iterator[tuple[str, str]]:
    """Yield the folder and the name of each file of a video in a store."""
    for kind, end in (("videos", ".mp4"), ("tracks", ".npz")):
        for at, _, names in os.walk(store / kind):
            yield from ((at, name) for name in names if name.endswith(end) and name[0] != ".")


def _readable(text: str) -> str:
    """Return a text that can be written: bytes of names that are not UTF-8 become \\udcNN."""
    return text.encode(errors="backslashreplace").decode()


def list_drawn(params: "Synthetic") -> Index:
    """Return the listing of a generated set."""
    from mgm.drawn.params import place

    places = [(name, *place(name)) for name in params.videos]
    videos = [Video("", "", name, n % params.classes, split, name) for name, split, n in places]
    note = (
        f"{GENERATED} (seed {params.seed}), split as drawn: {params.train_per_class} train and "
        f"{params.test_per_class} test per class"
    )
    return Index(Path(), params.names, tuple(videos), note=note)


# --- Each video ---


@dataclass(frozen=True)
class Writer:
    """What writes videos of `root` to `out`, also in worker processes. See `prepare`."""

    out: Path
    root: Path
    settings: dict[str, int]
    drawn: "Synthetic | None"
    check: bool

    def seen(self, video: Video) -> str:
        """Return what changes if the content of a source does. Empty: the source is not there."""
        if self.drawn:
            return hashlib.sha256(f"{self.drawn.digest} {video.name}".encode()).hexdigest()
        with suppress(OSError):
            stat = os.stat(os.path.join(self.root, video.source))
            return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}-{stat.st_ino}"
        return ""

    def kept(self, known: Mapping[tuple[str, str], Video], videos: Iterable[Video]) -> list[Video]:
        """Return the rows of the videos whose sources are known, and whose files are there."""
        rows = list[Video]()
        for video in videos:
            if earlier := known.get((video.source, self.seen(video))):
                own = {name: getattr(video, name) for name in ("name", "label", "split", "group")}
                row = earlier._replace(store=str(self.out), **own)
                with suppress(OSError):
                    if os.stat(row.path).st_size == row.bytes and os.stat(row.track()).st_size:
                        rows.append(row)
        return rows

    def write(self, video: Video) -> tuple[Video, Video | None, str]:
        """Write a video's files, unless they are whole.

        Returns:
            The video as it is listed, and its row or why there is none. With a row: what was
            damaged.
        """
        source, seen = self.root / video.source, self.seen(video)
        digest, size = seen, 0
        # Opening a pipe would wait for its other end.
        if not self.drawn and source.exists() and not source.is_file():
            return video, None, "is not a file"
        if not self.drawn:
            try:
                with source.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    size = os.fstat(file.fileno()).st_size
            except OSError as error:
                return video, None, f"cannot be read ({error.strerror})"
        row = video._replace(
            store=str(self.out),
            file=file_of(digest, self.settings),
            source_sha256=digest,
            source_bytes=size,
            seen=seen,
        )
        try:
            facts, damage = read_facts(row, self.check)
            facts = facts or self.decode(source, row)
        except UserError as error:
            return video, None, str(error).removeprefix(f"{source}: ")
        except Exception as error:
            if _of_machine(error):
                raise
            # What content brings about, in FFmpeg or here.
            return video, None, f"cannot be read ({type(error).__name__}: {error})"
        if self.seen(video) != seen:
            Path(row.track()).unlink(missing_ok=True)
            return video, None, "changed while it was read"
        facts_of = {name: getattr(facts, name) for name in FACTS}
        return video, row._replace(**facts_of), damage

    def decode(self, source: Path, video: Video) -> "Facts":
        """Write a video's files."""
        # Importing PyAV takes a fifth of a second, which an unchanged set does not need.
        from mgm.video.store import write_video

        mp4, options = Path(video.path), {name: self.settings[name] for name in DEFAULTS}
        mp4.parent.mkdir(parents=True, exist_ok=True)
        if not self.drawn:
            return write_video(source, mp4, Path(video.track()), **options)
        from mgm.drawn.sets import draw

        source = self.out / ".drawn" / f"{video.file}.mp4"
        source.parent.mkdir(parents=True, exist_ok=True)
        draw(self.drawn, video.name, source)
        facts = write_video(source, mp4, Path(video.track()), **options)
        source.unlink()
        return facts


def read_facts(video: Video, check: bool) -> tuple["Facts | None", str]:
    """Return the facts of a video whose files are whole, and what is damaged.

    Args:
        check: read all of them, and not only their sizes. Damaged tracks of flow are removed.
    """
    from mgm.video.track import Track

    try:
        own = Track(video.track())
        if not os.path.exists(video.path) or os.stat(video.path).st_size != own.facts.bytes:
            raise UserError(f"{video.path}: does not have the size that its track says")
        if not check:
            return own.facts, ""
        from mgm.video.store import check_track, check_video

        check_video(video.path, own)
    except UserError as error:
        return None, f"{error}; it is written anew" * os.path.exists(video.track())
    said = list[str]()
    for path in filter(os.path.exists, map(video.track, FLOWS)):
        try:
            check_track(Track(path))
        except UserError as error:
            os.unlink(path)
            said.append(f"{error}; `mgm track` writes it anew")
    return own.facts, "; ".join(said)


def _written(
    writer: Writer, videos: Sequence[Video], todo: Sequence[Video], processes: int
) -> Iterator[tuple[Video, Video | None, str]]:
    """Yield what `Writer.write` returns for each video of `todo`, as it is done."""
    made, title = list[Video](), "reading the store" if writer.check else "preparing"
    # In random order, so that the first videos are from all of the set, for the estimate.
    ordered = random.Random(0).sample(todo, len(todo))
    with closing(as_done(writer.write, ordered, processes)) as results:
        for number, done in enumerate(progress(results, title, len(todo)), start=1):
            made += filter(None, done[1:2])
            if number == TRIED < len(todo) and not writer.drawn:
                _require_space(writer, videos, made)
            yield done


def _require_space(writer: Writer, videos: Iterable[Video], made: Sequence[Video]) -> None:
    """Print how much the store will take. Stop if the disk has less."""
    written = sum(video.bytes + os.stat(video.track()).st_size for video in made)
    ratio = written / max(sum(video.source_bytes for video in made), 1)
    total = ratio * sum(int(writer.seen(video).partition("-")[0] or 0) for video in videos)
    there = sum(os.stat(os.path.join(at, name)).st_size for at, name in _files(writer.out))
    free = shutil.disk_usage(writer.out).free
    text = f"{total / 1e9:,.3f} GB, {ratio:.1f} times its sources"
    if total - there > free:
        raise UserError(
            f"{writer.out}: the store will take about {text}, and {free / 1e9:.1f} GB are free; "
            "free some or choose another --out, or a smaller --short-side (what is done is kept)"
        )
    show(f"The store will take about {text}; {free / 1e9:.1f} GB are free")


def _of_machine(error: Exception) -> bool:
    """Return whether an error is the machine's, such as a full disk: it will not end by itself."""
    of_ffmpeg = type(error).__module__.startswith("av.")
    of_disk = isinstance(error, OSError) and (not of_ffmpeg or error.errno in DISK)
    return of_disk or isinstance(error, MemoryError)


def write_tracks(
    folder: Path, method: Flow, weights: Path | None = None, processes: int | None = None
) -> None:
    """Write the optical flow of a prepared dataset's videos where it is missing.

    The marker FOLDER/tracks-METHOD.json is written last, unless a video has no flow.

    Args:
        weights: a file of RAFT-small's weights, torchvision's. None: download them.
        processes: default: one per core for DIS, and one for RAFT, which uses all cores.
    """
    index, marker = read_index(folder), folder / f"tracks-{method}.json"
    with locked(folder / LOCK, f"mgm track {folder}"):
        todo = [video for video in index.videos if not os.path.exists(video.track(method))]
        processes = processes or (cores() if method == "dis" else 1)
        with closing(as_done(partial(_write_flow, method, weights), todo, processes)) as done:
            failed = [why for why in progress(done, f"writing {method} tracks", len(todo)) if why]
    if failed:
        raise UserError(f"{failed[0]} ({len(failed)} of {len(todo)} failed; the others are done)")
    about = {"method": method, "digest": index.digest, "videos": len(index.videos)}
    write_text(marker, json.dumps(about, indent=1) + "\n")


def _write_flow(method: Flow, weights: Path | None, video: Video) -> str:
    """Write the flow of a video. Return why it has none; empty on success."""
    from mgm.video.flow import write_flow

    if method == "dis":
        import cv2

        cv2.setNumThreads(1)
    try:
        write_flow(video.path, video.read_track(), Path(video.track(method)), method, weights)
    except UserError as error:
        return str(error)
    return ""


# --- What a user is shown ---


def summary(index: Index) -> str:
    """Return a few lines about an index: counts, warnings, and which files were left out, and why.

    Of a generated set they are one line.
    """
    classes = f"{len(index.classes)} class{'es' * (len(index.classes) > 1)}"
    total = f"{len(index.videos):,} videos of {classes} in {index.root}, digest {index.digest}"
    if index.drawn:
        return "\n".join([total, *_left(index)])
    splits = f"{len(index.train):,} train and {len(index.test):,} test videos"
    lines = [total, f"{splits}; {index.note}"]
    if encoded := [video for video in index.videos if video.vectors == "h264"]:
        codecs = ", ".join(sorted({video.codec for video in encoded}))
        lines.append(
            f"{len(encoded)} videos have no motion vectors of their own ({codecs}): theirs are "
            "those of an H.264 encoding"
        )
    lines += [f"warning: {line}" for line in _warnings(index)]
    if index.excluded:
        more = f", {SHOWN} of them shown; index.json lists all" * (len(index.excluded) > SHOWN)
        lines.append(f"{len(index.excluded):,} files left out{more}:")
        lines += [f"  {name}: {reason}" for name, reason in index.excluded[:SHOWN]]
    return "\n".join([*lines, *_left(index)])


def _left(index: Index) -> Iterator[str]:
    """Yield a line about the files that no index refers to, if there are any."""
    with suppress(UserError):
        if paths := unreferred(index):
            size = sum(path.stat().st_size for path in paths) / 1e6
            yield (
                f"{len(paths):,} files of videos that left stay in {index.root} ({size:,.1f} MB), "
                f"such as {paths[0].relative_to(index.root)}; --prune removes them"
            )


def _warnings(index: Index) -> Iterator[str]:
    for names in look_alike(index.classes):
        yield f"the classes {' and '.join(map(ascii, names))} look alike"
    trained = {video.source_sha256: video.name for video in index.train}
    if same := [video for video in index.test if video.source_sha256 in trained]:
        pair = f"{trained[same[0].source_sha256]} and {same[0].name}"
        yield f"{len(same):,} test videos have the content of a training video, such as {pair}"
    if fields := [video for video in index.videos if video.interlaced]:
        yield (
            f"{len(fields):,} videos have interlaced pictures, such as {fields[0].name}: "
            f"{fields[0].interlaced:.0%}; deinterlace them first"
        )
    labels = {split: {v.label for v in index.videos if v.split == split} for split in SPLITS}
    for split, other in zip(SPLITS, SPLITS[::-1]):
        # A derived set tests on the classes that two sets share.
        if (lone := labels[split] - labels[other]) and not index.named:
            shown = ", ".join(index.classes[label] for label in sorted(lone)[:3])
            yield f"{len(lone):,} classes have videos in the {split} split alone, such as {shown}"
    counts = Counter(video.label for video in index.test)
    present = sorted({video.label for video in index.videos})
    few = [index.classes[label] for label in present if counts[label] < FEW]
    if few and len(index.classes) > 1:
        yield (
            f"{len(few)} of {len(present)} classes have fewer than {FEW} test videos, such as "
            f"{few[0]}; accuracies will be uncertain"
        )


def look_alike(classes: Iterable[str]) -> list[list[str]]:
    """Return groups of names that look alike (`mgm.data.folder.alike`)."""
    groups = defaultdict[str, list[str]](list)
    for name in classes:
        groups[alike(name)].append(name)
    return [names for names in groups.values() if len(names) > 1]
