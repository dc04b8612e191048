"""Write a dataset's store: decode each source once, and index what was written.

    OUT/videos/NAME.mp4         every frame as a JPEG (`mgm.video.store`)
    OUT/tracks/NAME.npz         the motion of every frame (`mgm.video.track`)
    OUT/index.csv, index.json   a row per finished video, and the rest, which is written last
    OUT/prepare.json            how the videos are written

A file is written under a hidden name and then renamed, so a file that exists is whole. A later call
prepares what is missing or has changed. The index has each source's size, times and inode. Where
these differ, the hash of the content decides.
"""

import csv
import errno
import hashlib
import json
import math
import os
import random
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import category, normalize

from mgm.console import show, track
from mgm.data.folder import Entry, Listing, balanced, key
from mgm.data.index import (
    DEFAULTS,
    Index,
    Video,
    content_digest,
    files_of,
    read_index,
    require_splits,
    row,
    whole_rows,
    write_index,
    write_rows,
)
from mgm.errors import UserError
from mgm.files import locked, naming, read_json, write_text
from mgm.processes import as_done, cores
from mgm.spec import FLOWS, GENERATED, Flow
from mgm.version import STORE

if TYPE_CHECKING:
    from mgm.drawn.params import Synthetic

THREADS = 32  # that look at files. A shared file system answers many requests at a time
LONGEST = 150  # bytes of a file's name. A file system has at most 255, and suffixes are added
# Errors of disks and memory, also from FFmpeg.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOMEM, errno.EIO)
TRIED = 20  # videos that the estimate of the disk's space is from
FEW = 25  # test videos per class, below which a top-1 accuracy says little
SHOWN = 20  # files left out that are shown. A set of 240,000 videos may lack thousands
# What a row has of its source without reading it, and its name in `os.stat`.
STAT = {
    **{"source_bytes": "st_size", "source_mtime": "st_mtime_ns"},
    **{"source_ctime": "st_ctime_ns", "source_inode": "st_ino"},
}
# What a row has of the facts that `write_video` returns.
FACTS = ("frames", "fps", "width", "height", "codec", "vectors", "bytes", "interlaced")
# A row, and that of the last call.
Task = tuple[Video, Video | None]


def prepare(
    listing: Listing,
    out: Path,
    short_side: int = DEFAULTS["short_side"],
    quality: int = DEFAULTS["quality"],
    processes: int | None = None,
    force: bool = False,
    drawn: "Synthetic | None" = None,
    check: bool = False,
) -> Index:
    """Write the store of the listed videos to folder `out`, and return its index.

    Videos that cannot be read are left out, and listed in the index with the reason. The next call
    tries them again.

    Args:
        short_side, quality: see `mgm.video.store.write_video`.
        processes: default: one per core.
        force: begin anew.
        drawn: the parameters of a generated set.
        check: read all of the store, and prepare anew what is damaged. Without it, only files that
            are newer than the index are read.
    """
    out = Path(os.path.abspath(out))
    settings = {"short_side": short_side, "quality": quality}
    # Now, not after hours of decoding.
    require_splits(listing.root, listing.entries)
    names = store_names(listing.entries)
    processes = processes or cores()
    with locked(out / "prepare.lock", f"mgm prepare {out}"):
        _claim(out, settings, force)
        _remove_parts(out)
        known, why = known_videos(out)
        if why:
            show(f"{why}. All videos are prepared anew")
        _say_gone(listing.root, out, known, names)
        root = out / ".drawn" if drawn else listing.root
        about = out / "index.json"
        # Without an index, all files were written whole.
        written_ns = about.stat().st_mtime_ns if about.is_file() else math.inf
        look = partial(_look, out, root, drawn, known)
        with ThreadPoolExecutor(THREADS) as pool:
            found = [*pool.map(look, listing.entries, names)]
        kept = [(video, changed) for video, changed in found if changed is not None]
        rows = {video.name: video for video, _ in kept}
        suspects = [video for video, changed in kept if check or changed > written_ns]
        damaged = _damaged(suspects, processes)
        for name, reason in damaged.items():
            show(f"{reason}: prepared anew")
            del rows[name]
        todo = [
            (video, None if video.name in damaged else known.get(video.name))
            for video, _ in found
            if video.name not in rows
        ]
        write = partial(_write, root, settings, drawn)
        failed = _write_all(write, out, todo, rows, processes) if todo else []
        if drawn and failed:
            raise UserError(f"a generated video cannot be read: {failed[0][1]}")
        classes, videos = listing.classes, tuple(rows[name] for name in names if name in rows)
        if listing.drawn:
            videos = _rebalanced(videos)
        left_out = (*listing.excluded, *sorted(failed))
        excluded = tuple((_readable(name), _readable(reason)) for name, reason in left_out)
        if drawn:
            digest, params = drawn_digest(drawn, settings), drawn.model_dump(mode="json")
        else:
            digest, params = content_digest(classes, videos, settings), None
        note = _readable(listing.note)
        index = Index(out, classes, videos, excluded, digest, note, params, settings)
        earlier = None
        with suppress(UserError):
            earlier = read_index(out)
        # An equal index is not written again, since other processes may be reading it.
        if earlier != index:
            write_index(index)
        elif suspects:
            # They were read, and need not be read again.
            os.utime(about)
        shutil.rmtree(out / ".drawn", ignore_errors=True)
    return index


def _say_gone(source: Path, out: Path, known: Collection[str], names: Collection[str]) -> None:
    """Say which videos of the last call are not listed any more. If none is, refuse the source."""
    gone = sorted({*known} - {*names})
    if gone and len(gone) == len(known):
        raise UserError(
            f"{out}: has {len(known):,} videos, such as {gone[0]}, and {source} lists none of "
            "them; choose another --out, or begin anew by --force"
        )
    if gone:
        show(f"{len(gone):,} videos leave the set, such as {gone[0]}: {source} does not list them")


def _readable(text: str) -> str:
    """Return a text that can be written: bytes of names that are not UTF-8 become \\udcNN."""
    return text.encode(errors="backslashreplace").decode()


def _rebalanced(videos: Sequence[Video]) -> tuple[Video, ...]:
    """Return videos with a drawn split, in which each class of several groups has both splits.

    Those that cannot be read may have been all of a class's test videos.
    """
    groups_of = defaultdict[int, dict[str, None]](dict)
    for video in videos:
        groups_of[video.label][video.group] = None
    split_of = balanced(groups_of, {video.group: video.split for video in videos})
    moved = [video.name for video in videos if split_of[video.group] != video.split]
    if moved:
        show(f"the split of {', '.join(moved)} is changed, since others of the class are left out")
    return tuple(replace(video, split=split_of[video.group]) for video in videos)


def list_drawn(params: "Synthetic") -> Listing:
    """Return the listing of a generated set."""
    from mgm.drawn.params import place

    places = [(name, *place(name)) for name in params.videos]
    entries = [Entry(name, "", n % params.classes, split, name) for name, split, n in places]
    note = (
        f"{GENERATED} (seed {params.seed}), split as drawn: {params.train_per_class} train and "
        f"{params.test_per_class} test per class"
    )
    return Listing(Path(), params.names, entries, note)


def drawn_digest(params: "Synthetic", settings: dict[str, int]) -> str:
    """Return the digest of a generated set: its parameters', unless it is written otherwise."""
    if settings["short_side"] >= params.size and settings["quality"] == DEFAULTS["quality"]:
        return params.digest
    return hashlib.sha256(json.dumps([params.digest, settings]).encode()).hexdigest()[:12]


def _claim(out: Path, settings: dict[str, int], force: bool) -> None:
    """Write OUT/prepare.json, or check that the folder was prepared with the same settings."""
    mark, index = out / "prepare.json", [out / "index.json", out / "index.csv"]
    if not mark.is_file():
        if (out / "videos").exists() or index[1].exists():
            raise UserError(f"{out}: is not from `mgm prepare`; choose another --out")
    elif not force:
        earlier = read_json(mark)
        written = {**earlier} if isinstance(earlier, dict) else {}
        number = written.pop("format", 1)
        if written != settings:
            raise UserError(
                f"{out}: was prepared with {written or earlier}, not {settings}; choose another "
                "--out, or begin anew by --force"
            )
        if number != STORE:
            show(f"{out}: is of format {number}. All videos are prepared anew")
            force = True
    if force:
        for path in index:
            path.unlink(missing_ok=True)
    write_text(mark, json.dumps({"format": STORE, **settings}, indent=1) + "\n")


def known_videos(out: Path) -> tuple[dict[str, Video], str]:
    """Return the videos of the last call by name, and why there are none if its index is broken."""
    try:
        return {video.name: video for video in whole_rows(out)}, ""
    except UserError as error:
        return {}, str(error)


def _remove_parts(out: Path) -> None:
    """Remove what killed processes left under hidden names."""
    shutil.rmtree(out / ".drawn", ignore_errors=True)
    for path in chain(out.glob(".*"), *((out / name).rglob(".*") for name in ("videos", "tracks"))):
        if re.match(r"\.\d+\.", path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


def store_names(entries: Sequence[Entry]) -> list[str]:
    """Return each entry's name in the store.

    A name gets a digest if another differs from it in case or form of Unicode alone, if it leads
    outside of the store, or if a part of it is hidden, too long, or could be another file's.
    """
    names, taken = dict[Entry, str](), set[str]()
    for entry in sorted(entries, key=lambda entry: (entry.name, entry.source)):
        given = entry.name.split("/")
        *parts, file = [_visible(part) for part in given if part not in ("", ".", "..")]
        # A folder may not have the name of a video's file or of a track.
        folders = [
            _marked(part, part) if part.lower().endswith((".mp4", ".npz")) else part
            for part in parts
        ]
        long, outside = len(os.fsencode(file)) > LONGEST, len(parts) + 1 < len(given)
        name = "/".join([*folders, file])
        if outside or long or name.endswith((*FLOWS,)) or key(name) in taken:
            name = "/".join([*folders, _marked(file[:32] if long else file, entry.source)])
        taken.add(key(name))
        names[entry] = name
    return [names[entry] for entry in entries]


def _marked(name: str, source: str) -> str:
    return f"{_short(name)}.{hashlib.sha256(os.fsencode(source)).hexdigest()[:8]}"


def _short(name: str) -> str:
    """Return a name that has room for a digest, of the 255 bytes of a file system."""
    return name if len(os.fsencode(name)) <= 255 - len(".12345678") else name[:32]


def _visible(part: str) -> str:
    """Return a part of a name that is not hidden. Hidden files are those that are being written."""
    return f"{_marked('', part)[1:]}{_short(part)}" if part.startswith(".") else part


def _look(
    out: Path,
    root: Path,
    drawn: "Synthetic | None",
    known: Mapping[str, Video],
    entry: Entry,
    name: str,
) -> tuple[Video, int | None]:
    """Return the row of a video that is not read, and when its files were last changed.

    None: they are not whole, or their source has changed.
    """
    video = Video(str(out), name, entry.label, entry.split, entry.group, source=entry.source)
    if drawn:
        digest = hashlib.sha256(f"{drawn.digest} {name}".encode()).hexdigest()
        video = replace(video, source_sha256=digest)
    else:
        # A source that is not there is left out when it is read.
        with suppress(OSError):
            stat = os.stat(root / entry.source)
            video = replace(video, **{name: getattr(stat, own) for name, own in STAT.items()})
    earlier = known.get(name)
    if (
        not earlier
        or any(getattr(video, field) != getattr(earlier, field) for field in ("source", *STAT))
        or video.source_sha256 not in ("", earlier.source_sha256)
    ):
        return video, None
    return _moved(earlier, video), _changed_ns(earlier)


def _changed_ns(video: Video) -> int | None:
    """Return when a video's files were last changed. None: one does not have its size."""
    with suppress(OSError):
        stats = [(os.stat(path), size) for path, size in files_of(video)]
        if all(stat.st_size == size for stat, size in stats):
            return max(stat.st_mtime_ns for stat, _ in stats)
    return None


def _moved(earlier: Video, video: Video) -> Video:
    """Return the row of a video whose files are those of an earlier row."""
    place: dict[str, Any] = {
        name: getattr(video, name) for name in ("store", "label", "split", "group", "source", *STAT)
    }
    return replace(earlier, **place)


def _damaged(videos: Sequence[Video], processes: int) -> dict[str, str]:
    """Return {name: reason} of the videos whose files are not what was written."""
    with closing(as_done(_damage, videos, processes)) as done:
        found = track(done, "reading the store", len(videos))
        return {name: reason for name, reason in found if reason}


def _damage(video: Video) -> tuple[str, str]:
    from mgm.video.store import check_video
    from mgm.video.track import Track

    try:
        check_video(video.path, Track(video.track()))
    except UserError as error:
        return video.name, str(error)
    return video.name, ""


def _write_all(
    write: Callable[[Task], tuple[Video, str]],
    out: Path,
    tasks: Sequence[Task],
    rows: dict[str, Video],
    processes: int,
) -> list[tuple[str, str]]:
    """Prepare videos. Add their rows to `rows`, and return (source, reason) of those left out."""
    if any(known for _, known in tasks):
        # The index does not match what is written now.
        (out / "index.json").unlink(missing_ok=True)
    for method in FLOWS:
        (out / f"tracks-{method}.json").unlink(missing_ok=True)
    failed, made = list[tuple[str, str]](), list[Video]()
    # Drawn sets have no sources.
    source_bytes = sum(video.source_bytes for video, _ in tasks)
    # In random order, so that the first videos are from all of the set, for the estimate.
    ordered = random.Random(0).sample(tasks, len(tasks))
    with closing(as_done(write, ordered, processes)) as results:
        for number, (video, reason) in enumerate(track(results, "preparing", len(tasks)), start=1):
            if reason:
                failed.append((video.source, reason))
            else:
                if not made:
                    (out / "index.json").unlink(missing_ok=True)
                    write_rows(out / "index.csv", rows.values())
                rows[video.name] = video
                made.append(video)
                table = out / "index.csv"
                with naming(table), table.open("a", newline="", encoding="utf-8") as file:
                    csv.writer(file, lineterminator="\n").writerow(row(video, out))
            if source_bytes and number == TRIED < len(tasks):
                _require_space(out, made, source_bytes)
    return failed


def _require_space(out: Path, made: Sequence[Video], source_bytes: int) -> None:
    """Print how much the store will take. Stop if the disk has less."""
    written = sum(video.bytes + video.track_bytes for video in made)
    ratio = written / max(sum(video.source_bytes for video in made), 1)
    total, free = ratio * source_bytes, shutil.disk_usage(out).free
    text = f"{total / 1e9:,.3f} GB, {ratio:.1f} times its sources"
    if total - written > free:
        raise UserError(
            f"{out}: the store will take about {text}, and {free / 1e9:.1f} GB are free; free some "
            "or choose another --out, or a smaller --short-side (what is done is kept)"
        )
    show(f"The store will take about {text}; {free / 1e9:.1f} GB are free")


def _write(
    root: Path, settings: dict[str, int], drawn: "Synthetic | None", task: Task
) -> tuple[Video, str]:
    """Write a video's files. Return its row, and why it cannot be read; empty on success."""
    # Importing PyAV takes a fifth of a second, which an unchanged set does not need.
    from mgm.video.store import write_video

    video, known = task
    mp4, npz = Path(video.path), Path(video.track())
    source = root / (video.source or f"{video.name}.mp4")
    try:
        if drawn:
            from mgm.drawn.sets import draw

            source.parent.mkdir(parents=True, exist_ok=True)
            draw(drawn, video.name, source)
        else:
            # Opening a pipe would wait for its other end.
            if source.exists() and not source.is_file():
                return video, "is not a file"
            try:
                with source.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                return video, f"cannot be read ({error.strerror})"
            video = replace(video, source_sha256=digest)
            if known and known.source_sha256 == digest and _changed_ns(known) is not None:
                return _moved(known, video), ""
        for method in FLOWS:
            Path(video.track(method)).unlink(missing_ok=True)
        mp4.parent.mkdir(parents=True, exist_ok=True)
        facts = write_video(source, mp4, npz, **settings)
        if drawn:
            source.unlink()
    except UserError as error:
        return video, str(error).removeprefix(f"{source}: ")
    except Exception as error:
        if _of_machine(error):
            raise
        # What content brings about, in FFmpeg or here.
        return video, f"cannot be read ({type(error).__name__}: {error})"
    read = {name: getattr(facts, name) for name in FACTS}
    return replace(video, **read, track_bytes=npz.stat().st_size), ""


def _of_machine(error: Exception) -> bool:
    """Return whether an error is the machine's, such as a full disk: it will not end by itself."""
    of_ffmpeg = type(error).__module__.startswith("av.")
    of_disk = isinstance(error, OSError) and (not of_ffmpeg or error.errno in DISK)
    return of_disk or isinstance(error, MemoryError)


def write_tracks(
    folder: Path,
    method: Flow,
    weights: Path | None = None,
    processes: int | None = None,
    force: bool = False,
) -> None:
    """Write the optical flow of a prepared dataset's videos where it is missing.

    The marker FOLDER/tracks-METHOD.json is written last, unless a video has no flow.

    Args:
        weights: RAFT-small's weights. None: torchvision's own.
        processes: default: one per core for DIS, and one for RAFT, which uses all cores.
        force: begin anew.
    """
    digest = hashlib.sha256(weights.read_bytes()).hexdigest() if weights else ""
    index, marker = read_index(folder), folder / f"tracks-{method}.json"
    with locked(folder / "prepare.lock", f"mgm track {folder}"):
        paths = {v: Path(v.track(method)) for v in index.videos}
        # Tracks lie with their videos, which may be those of other sets.
        stores = sorted({Path(video.store) for video in index.videos})
        used = [store / f"tracks-{method}.weights" for store in stores]
        if force:
            markers = [store / marker.name for store in stores]
            for path in (marker, *markers, *used, *paths.values()):
                path.unlink(missing_ok=True)
        for path in used:
            if path.is_file() and path.read_text() != digest:
                raise UserError(
                    f"{path.parent}: has tracks of other weights; begin anew by --force"
                )
        for path in used:
            write_text(path, digest)
        todo = [(video, path) for video, path in paths.items() if not path.exists()]
        processes = processes or (cores() if method == "dis" else 1)
        with closing(as_done(partial(_write_flow, method, weights), todo, processes)) as done:
            reasons = [*track(done, f"writing {method} tracks", len(todo))]
        failed = [reason for reason in reasons if reason]
    if failed:
        raise UserError(f"{failed[0]} ({len(failed)} of {len(todo)} failed; the others are done)")
    # The weights are said beside the tracks, once for all sets that have them.
    about = {"method": method, "digest": index.digest, "videos": len(index.videos)}
    write_text(marker, json.dumps(about, indent=1) + "\n")


def _write_flow(method: Flow, weights: Path | None, task: tuple[Video, Path]) -> str:
    """Write the flow of a video. Return why it has none; empty on success."""
    from mgm.video.flow import write_flow

    video, path = task
    if method == "dis":
        import cv2

        cv2.setNumThreads(1)
    try:
        write_flow(video.path, video.read_track(), path, method, weights)
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
        return total
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
    return "\n".join(lines)


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
    counts = Counter(video.label for video in index.test)
    present = sorted({video.label for video in index.videos})
    few = [index.classes[label] for label in present if counts[label] < FEW]
    if few and len(index.classes) > 1:
        yield (
            f"{len(few)} of {len(present)} classes have fewer than {FEW} test videos, such as "
            f"{few[0]}; accuracies will be uncertain"
        )


def look_alike(classes: Iterable[str]) -> list[list[str]]:
    """Return groups of names that differ in case, spaces or unseen letters alone."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        seen = "".join(letter for letter in normalize("NFKC", name) if category(letter) != "Cf")
        groups.setdefault(" ".join(key(seen).split()), []).append(name)
    return [names for names in groups.values() if len(names) > 1]
