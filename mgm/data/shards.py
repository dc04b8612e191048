"""`mgm prepare DATASET --shards`: frames as JPEG with their motion vectors, in shards.

    OUT/source/                 the index of the sources
    OUT/shards/shards.json      the settings and the number of shards. Written first. The shards'
                                sizes are added when the index is written
    OUT/shards/00000.tar        a shard of about 1 GB, in the format of `mgm.video.shard_reader`
    OUT/shards/00000.json       the videos of the shard. Written when the shard is complete
    OUT/index.csv, index.json   the index of the videos in the shards, with the sources' labels,
                                splits and groups. index.json is written last

A video's name decides its shard. So if some videos changed, the next call writes only their shards.
A shard is written under a hidden name, synced and then renamed, so a killed process or a full disk
leaves no incomplete shard.
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

from pydantic import BaseModel, Field

from mgm.console import show, track
from mgm.data.index import Index, new_index, read_index, write_index
from mgm.data.opening import PreparedPart, in_processes, require_same
from mgm.data.shard_writer import (
    NamedVideo,
    Settings,
    Sidecar,
    measure_sample,
    seal,
    write_shard,
)
from mgm.errors import UserError
from mgm.reading import file_digest, read_json
from mgm.results import atomic
from mgm.results.lock import folder_lock
from mgm.video.shard_reader import VERSION, inside, open_record

SHARD_BYTES = 1e9
MOST_SHARDS = 100_000  # 100 TB, to refuse a damaged shards.json


def write_shards(
    source: Index,
    out: Path,
    settings: Settings,
    processes: int = 1,
    part: tuple[int, int] | None = None,
) -> Index | PreparedPart:
    """Write the videos of `source` in shards, and their index to folder `out`.

    Shards that exist and are up to date are kept. A video that cannot be read is listed among the
    excluded ones.

    Args:
        part: (i, n) writes every n-th shard, starting at the i-th (1 to n), and no index. A call
            without `part` writes the missing shards and the index.

    Returns:
        The index of the videos in the shards, or what one part did.

    Raises:
        UserError: `out` holds shards of other settings, the disk is or would be full, or a split
            has no video left.
    """
    root = Path(os.path.abspath(out)) / "shards"
    own = root / "part-{}-of-{}".format(*part) if part else root
    own.mkdir(parents=True, exist_ok=True)
    with folder_lock(own):
        stored = _claim(source, root, settings, processes)
        numbers = range(stored["shards"])[
            slice(part[0] - 1, None, part[1]) if part else slice(None)
        ]
        sidecars = _write(source, root, stored, settings, processes, numbers)
        failed = sorted(fault for sidecar in sidecars.values() for fault in sidecar.failed)
        if part:
            count = sum(len(sidecar.videos) for sidecar in sidecars.values())
            return PreparedPart(*part, count, tuple(failed))
        atomic.remove_parts(root)
        stored["bytes"] = {name: sidecar.bytes for name, sidecar in sidecars.items()}
        atomic.write(root / "shards.json", json.dumps(stored, indent=1) + "\n")
    place_of = {row[0]: (shard, row) for shard, each in sidecars.items() for row in each.videos}
    # The videos keep the sources' order, so that a run draws the same clips.
    videos = []
    for video in source.videos:
        if (name := source.name(video)) in place_of:
            shard, (_, offset, size, frames, _) = place_of[name]
            path = str(root / f"{shard}#{offset}" / inside(name))
            videos.append(replace(video, path=path, bytes=size, frames=frames, content=""))
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
    """Check that every shard is there, with its size.

    Raises:
        UserError: a shard is missing or has another size. The message names the first, and counts
            them.
    """
    sizes = _about(root)["bytes"]
    wrong = [name for name, size in sizes.items() if _size(root / name) != size]
    if wrong or not sizes:
        name = wrong[0] if wrong else "shards.json"
        now = _size(root / name) if wrong else None
        state = "is not there" if now is None else f"has {now:,} bytes, and had {sizes[name]:,}"
        raise UserError(
            f"{root / name}: {state}; {len(wrong)} of {len(sizes)} shards are missing or changed: "
            "put them back, or run the same `mgm prepare` again, which writes only these"
        )


def verify_shards(index: Index, out: Path) -> Iterator[tuple[str, str]]:
    """Compare the shards of an index, and the sources that still exist, with their checksums.

    Yields:
        (name, what differs).

    Raises:
        UserError: a shard is missing or has another size.
    """
    check_shards(index.root)
    for video in index.videos:
        try:
            open_record(video.path).check()
        except UserError as error:
            yield video.path, str(error).removeprefix(f"{video.path}: ")
    if not (out / "source" / "index.json").is_file():
        return
    root = read_index(out / "source").root
    for shard in _about(index.root)["bytes"]:
        path = index.root / shard
        if not (sidecar := _sidecar(path)):
            yield (
                str(path.with_suffix(".json")),
                "is missing or damaged; run the same `mgm prepare` again, which writes it again",
            )
            continue
        for name, *_, sha256 in sidecar.videos:
            source = root / name
            if source.is_file() and file_digest(source) != sha256:
                yield (
                    str(source),
                    f"has changed since it was copied to {shard}; run the same `mgm prepare` "
                    "again, or put it back",
                )


def _claim(source: Index, root: Path, settings: Settings, processes: int) -> dict[str, Any]:
    """Return the fields of shards.json. Write it first if it does not exist.

    Raises:
        UserError: the shards there have other settings, or the disk has too little space.
    """
    wanted = {"version": VERSION, **asdict(settings)}
    if (root / "shards.json").is_file():
        stored = _about(root)
        require_same(root, stored, wanted)
        return stored
    frame_bytes, frame_s = measure_sample(source, settings)
    frames = sum(-(-video.frames // settings.every) for video in source.videos)
    total, free = frames * frame_bytes, shutil.disk_usage(root).free
    stored = {**wanted, "shards": max(1, round(total / SHARD_BYTES))}
    hours = frames * settings.every * frame_s / processes / 3600
    estimate = (
        f"{len(source.videos):,} videos, {frames:,} frames of {frame_bytes / 1e3:.1f} kB: about "
        f"{total / 1e9:,.1f} GB"
    )
    if total > 0.98 * free:
        raise UserError(
            f"{root}: {estimate}, and {free / 1e9:,.1f} GB are free; choose another --out, or keep "
            "fewer frames (--every 4) or smaller ones (--short-side)"
        )
    show(
        f"{estimate} in {stored['shards']:,} shards ({free / 1e9:,.1f} GB are free), about "
        f"{60 * hours:,.0f} min with {processes} processes"
    )
    atomic.write(root / "shards.json", json.dumps(stored, indent=1) + "\n")
    return stored


def _write(
    source: Index,
    root: Path,
    stored: dict[str, Any],
    settings: Settings,
    processes: int,
    numbers: Sequence[int],
) -> dict[str, Sidecar]:
    """Write the shards with these numbers, except those that hold the same videos already.

    Returns:
        {shard: its .json}.
    """
    contents: list[list[NamedVideo]] = [[] for _ in range(stored["shards"])]
    for video in source.videos:
        name = source.name(video)
        number = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % stored["shards"]
        contents[number].append((name, video))
    sidecars: dict[str, Sidecar] = {}
    tasks = []
    for number in numbers:
        target, videos = root / f"{number:05}.tar", sorted(contents[number])
        signature, sidecar = _signature(videos), _sidecar(target)
        if sidecar and sidecar.signature == signature and _size(target) == sidecar.bytes:
            sidecars[target.name] = sidecar
        else:
            tasks.append((target, videos, signature, settings))
    if tasks:
        # The old index does not match the new shards.
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


class _About(BaseModel, extra="allow"):
    """The fields of shards.json, and those of the settings. `bytes` has the size of each shard."""

    version: int = Field(ge=VERSION, le=VERSION)
    shards: int = Field(ge=1, le=MOST_SHARDS)
    bytes: dict[str, int] = {}


def _about(root: Path) -> dict[str, Any]:
    """Read shards.json.

    Raises:
        UserError: it is damaged, or of another version.
    """
    stored: _About = read_json(root / "shards.json", _About, "prepare into another --out")
    return stored.model_dump()


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes, None if it does not exist."""
    return path.stat().st_size if path.is_file() else None


def _sidecar(target: Path) -> Sidecar | None:
    """Read the .json of a shard. None if it cannot be read, has another version or was changed."""
    with suppress(FileNotFoundError, UserError):
        sidecar: Sidecar = read_json(target.with_suffix(".json"), Sidecar)
        if sidecar.version == VERSION and sidecar.seal == seal(sidecar.model_dump()):
            return sidecar
    return None
