"""`mgm prepare DATASET --shards`: frames as JPEG with their motion vectors, in shards.

    OUT/source/                 the index of the sources
    OUT/shards/shards.json      the settings and the number of shards; written first. With the index
                                come the shards' sizes
    OUT/shards/00000.tar        a shard of about 1 GB (`mgm.video.shard_reader` says what is in it)
    OUT/shards/00000.json       lists its videos, and says that it is whole
    OUT/index.csv, index.json   over the videos in the shards, with the sources' labels, splits and
                                groups; index.json is written last

Which shard a video belongs to follows from its name alone, so a call after some videos changed
writes their shards alone. A shard is written under a hidden name, synced and then renamed: a kill
or a full disk leaves no half of one.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mgm.console import show, track
from mgm.data.index import Index, new_index, read_index, require_splits, write_index
from mgm.data.opening import PreparedPart, in_processes
from mgm.data.shard_writer import (
    VERSION,
    NamedVideo,
    Settings,
    measure_sample,
    seal,
    write_shard,
)
from mgm.errors import UserError, valid
from mgm.reading import file_digest, read_json
from mgm.results import atomic
from mgm.results.lock import folder_lock

SHARD_BYTES = 1e9
MOST_SHARDS = 100_000  # of 1 GB: more than any file system here would take


def write_shards(
    source: Index,
    out: Path,
    settings: Settings,
    processes: int = 1,
    part: tuple[int, int] | None = None,
) -> Index | PreparedPart:
    """Write the videos of `source` in shards, and return the index over them in folder `out`.

    Shards that are there and still right are kept. A video that cannot be read is listed among the
    excluded ones. With `part` (i, n), write every n-th shard from the i-th (1 to n) on, and no
    index: a call without does, and writes what is missing.

    Raises:
        UserError: `out` holds shards of other settings, the disk is full or would be, or a split
        has
            no video left.
    """
    from mgm.video.shard_reader import below

    root = Path(os.path.abspath(out)) / "shards"
    own = root / "part-{}-of-{}".format(*part) if part else root
    own.mkdir(parents=True, exist_ok=True)
    with folder_lock(own):
        about = _claim(source, root, settings, processes)
        numbers = range(about["shards"])[slice(part[0] - 1, None, part[1]) if part else slice(None)]
        sidecars = _write(source, root, about, settings, processes, numbers)
        failed = sorted(
            (name, reason) for sidecar in sidecars.values() for name, reason in sidecar["failed"]
        )
        if part:
            return PreparedPart(
                *part, sum(len(sidecar["videos"]) for sidecar in sidecars.values()), tuple(failed)
            )
        atomic.remove_parts(root)
        about["bytes"] = {name: sidecar["bytes"] for name, sidecar in sidecars.items()}
        atomic.write(root / "shards.json", json.dumps(about, indent=1) + "\n")
    place_of = {
        row[0]: (shard, row) for shard, sidecar in sidecars.items() for row in sidecar["videos"]
    }
    videos = []  # in the sources' order, so that a run draws the same clips
    for video in source.videos:
        if (name := source.name(video)) in place_of:
            shard, (_, offset, size, frames, _) = place_of[name]
            videos.append(
                replace(
                    video,
                    path=str(root / f"{shard}#{offset}" / below(name)),
                    bytes=size,
                    frames=frames,
                    content="",
                )
            )
    require_splits(root, videos, failed)
    kept = "every frame" if settings.every == 1 else f"every {settings.every}th frame"
    note = (
        f"{source.note}; in {len(sidecars)} shards from index {source.digest} ({kept} as JPEG, "
        f"short side at most {settings.short_side}, "
        f"quality {settings.quality}; motion vectors of the source)"
    )
    index = new_index(root, source.classes, videos, [*source.excluded, *failed], note)
    write_index(index, out)
    return index


def check_shards(root: Path) -> None:
    """See that every shard is there and as long as it was.

    Raises:
        UserError: names the first that is not, and counts them.
    """
    sizes = _about(root).get("bytes", {})
    wrong = [
        (name, size, there) for name, size in sizes.items() if (there := _size(root / name)) != size
    ]
    if wrong or not sizes:
        name, size, there = wrong[0] if wrong else ("shards.json", 0, None)
        found = "is not there" if there is None else f"has {there:,} bytes, and had {size:,}"
        raise UserError(
            f"{root / name}: {found}; {len(wrong)} of {len(sizes)} shards are missing or changed: "
            "put them back, or run the same "
            "`mgm prepare` again, which writes these alone"
        )


def verify_shards(index: Index, out: Path) -> Iterator[tuple[str, str]]:
    """Read all that the shards of an index hold, and the sources where they still are.

    Yields:
        (name, what is not as it was written).

    Raises:
        UserError: a shard is not there, or not as long as it was.
    """
    from mgm.video.shard_reader import open_record

    check_shards(index.root)
    for video in index.videos:
        try:
            open_record(video.path).check()
        except UserError as error:
            yield video.path, str(error).removeprefix(f"{video.path}: ")
    source = out / "source"
    root = read_index(source).root if (source / "index.json").is_file() else None
    for shard in _about(index.root)["bytes"] if root else ():
        sidecar = _sidecar(index.root / shard)
        if not sidecar:
            yield (
                str((index.root / shard).with_suffix(".json")),
                "is missing or damaged; run the same `mgm prepare` again, which writes it anew",
            )
        for name, _, _, _, sha256 in sidecar.get("videos", ()):
            path = Path(os.path.join(root or "", name))
            if path.is_file() and file_digest(path) != sha256:
                yield (
                    str(path),
                    f"has changed since {shard} was written of it; run the same `mgm prepare` "
                    "again, or put it back",
                )


def _claim(source: Index, root: Path, settings: Settings, processes: int) -> dict[str, Any]:
    """What shards.json says; made, and the disk's use computed, if there is none yet."""
    wanted = {"version": VERSION, **asdict(settings)}
    if (root / "shards.json").is_file():
        about = _about(root)
        if other := [name for name in wanted if about.get(name) != wanted[name]]:
            name = other[0]
            raise UserError(
                f"{root}: holds shards with {name} {about.get(name)}, not {wanted[name]} as now; "
                "choose another --out"
            )
        return about
    frame_bytes, frame_s = measure_sample(source, settings)
    frames = sum(-(-video.frames // settings.every) for video in source.videos)
    total, free = frames * frame_bytes, shutil.disk_usage(root).free
    about = {**wanted, "shards": max(1, round(total / SHARD_BYTES))}
    hours = frames * settings.every * frame_s / processes / 3600
    said = (
        f"{len(source.videos):,} videos, {frames:,} frames of {frame_bytes / 1e3:.1f} kB: about "
        f"{total / 1e9:,.1f} GB"
    )
    if total > 0.98 * free:
        raise UserError(
            f"{root}: {said}, and {free / 1e9:,.1f} GB are free; choose another --out, or keep "
            "fewer frames (--every 4) or smaller ones "
            "(--short-side)"
        )
    show(
        f"{said} in {about['shards']:,} shards ({free / 1e9:,.1f} GB are free), about "
        f"{60 * hours:,.0f} min by {processes} processes"
    )
    atomic.write(root / "shards.json", json.dumps(about, indent=1) + "\n")
    return about


def _write(
    source: Index,
    root: Path,
    about: dict[str, Any],
    settings: Settings,
    processes: int,
    numbers: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Write these shards, and return {shard: what its .json says}.

    Those that are there and hold the same videos are left alone.
    """
    contents: list[list[NamedVideo]] = [[] for _ in range(about["shards"])]
    for video in source.videos:
        name = source.name(video)
        contents[int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % about["shards"]].append(
            (name, video)
        )
    sidecars: dict[str, dict[str, Any]] = {}
    tasks = []
    for number in numbers:
        target, videos = root / f"{number:05}.tar", sorted(contents[number])
        signature = _signature(videos)
        sidecar = _sidecar(target)
        if sidecar.get("signature") == signature and _size(target) == sidecar["bytes"]:
            sidecars[target.name] = sidecar
        else:
            tasks.append((target, videos, signature, settings))
    if tasks:
        # Until it is written anew there is no whole index.
        (root.parent / "index.json").unlink(missing_ok=True)
        written = in_processes(write_shard, tasks, min(processes, len(tasks)))
        sidecars |= track(written, "writing shards", len(tasks))
    return dict(sorted(sidecars.items()))


def _signature(videos: Sequence[NamedVideo]) -> str:
    rows = [
        [name, video.bytes, video.content, video.label, video.split, video.frames]
        for name, video in videos
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _about(root: Path) -> dict[str, Any]:
    """What shards.json says.

    Raises:
        UserError: it is broken, or of another version.
    """
    path = root / "shards.json"
    about = read_json(path)
    if not isinstance(about, dict) or about.get("version") != VERSION:
        version = about.get("version") if isinstance(about, dict) else None
        raise UserError(
            f"{root}: holds shards of format {version}, this mgm reads and writes {VERSION}; "
            "prepare into another --out"
        )
    count, sizes = about.get("shards"), about.get("bytes", {})
    if type(count) is not int or not 1 <= count <= MOST_SHARDS:
        raise UserError(
            f"{path}: shards is {count!r}, not a number from 1 to {MOST_SHARDS:,}; "
            "prepare into another --out"
        )
    if not isinstance(sizes, dict) or not all(type(size) is int for size in sizes.values()):
        raise UserError(
            f"{path}: bytes is no list of shards and their sizes; delete the file, and run the "
            "same `mgm prepare` again"
        )
    return about


def _size(path: Path) -> int | None:
    """Bytes of a file; None if it is not there."""
    return path.stat().st_size if path.is_file() else None


class _Sidecar(BaseModel):
    """What the .json of a shard says: `videos` has (name, offset, bytes, frames, SHA-256)."""

    version: int
    signature: str
    bytes: int
    sha256: str
    videos: list[tuple[str, int, int, int, str]]
    failed: list[tuple[str, str]]
    seal: str


def _sidecar(target: Path) -> dict[str, Any]:
    """Return what the .json of a shard says.

    It is empty if none can be read, if it is of another version, or if it was changed.
    """
    with suppress(FileNotFoundError, UserError):
        fields = read_json(target.with_suffix(".json"))
        with valid(""):
            about = _Sidecar.model_validate(fields).model_dump()
        if about["version"] == VERSION and about["seal"] == seal(about):
            return about
    return {}
