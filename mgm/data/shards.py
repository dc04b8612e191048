"""`mgm prepare DATASET --shards`: the frames of an index's videos as JPEG, with their source's
motion vectors, in shards of about 1 GB.

    OUT/source/            the index of the sources OUT/shards/shards.json the settings and how many
    shards there are; written first. With the index come the shards' sizes OUT/shards/00000.tar   a
    shard (`mgm.video.shard_reader` says what is in it); 00000.json lists its videos, and says that it is
    whole OUT/index.csv, index.json    over the videos in the shards, with the sources' labels,
    splits and groups; index.json is written last

Which shard a video belongs to follows from its name alone, so a call after some videos changed
writes their shards alone. A shard is
written under a hidden name, synced and then renamed: a kill or a full disk leaves no half of one.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from pydantic import BaseModel

from mgm.console import show, track
from mgm.data.files import FULL, Part, in_processes
from mgm.data.index import Index, Video, fault, new_index, read_index, require_splits, write_index
from mgm.errors import UserError, valid
from mgm.reading import file_digest, read_json
from mgm.results import files
from mgm.results.lock import folder_lock

SHARD_BYTES = 1e9
MOST_SHARDS = 100_000  # of 1 GB: more than any file system here would take
VERSION = 1  # of the format, which is `mgm.video.shard_reader`'s
SAMPLE = 16  # videos, of 32 frames each, that tell how large the shards will be
_Named: TypeAlias = tuple[str, Video]  # name below the source's root


@dataclass(frozen=True)
class Settings:
    """Frames:

    every `every`-th, its short side at most `short_side` pixels, as JPEG of `quality`, chroma
    4:2:0.
    """

    short_side: int = 256
    every: int = 1
    quality: int = 90

    def __post_init__(self) -> None:
        for name, least, most in (("short_side", 64, 4096), ("every", 1, 64), ("quality", 50, 100)):
            if not least <= getattr(self, name) <= most:
                raise UserError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: choose one from {least} to {most}"
                )


def write_shards(
    source: Index,
    out: Path,
    settings: Settings,
    processes: int = 1,
    part: tuple[int, int] | None = None,
) -> Index | Part:
    """The index over the videos of `source` in shards, written to folder `out`; shards that are
    there and still right are kept.

    A video that cannot be read is listed among the excluded ones. With `part` (i, n), write every
    n-th shard from the i-th (1 to n) on, and no index: a call without does, and what is missing.

    Raises:
        UserError: `out` holds shards of other settings, the disk is full or would be, or a split
            has no video left.
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
            return Part(
                *part, sum(len(sidecar["videos"]) for sidecar in sidecars.values()), tuple(failed)
            )
        files.remove_parts(root)
        about["bytes"] = {name: sidecar["bytes"] for name, sidecar in sidecars.items()}
        files.write(root / "shards.json", json.dumps(about, indent=1) + "\n")
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
        f"{source.note}; in {len(sidecars)} shards from index {source.digest} ({kept} as JPEG, short side at most {settings.short_side}, "
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
            f"{root / name}: {found}; {len(wrong)} of {len(sizes)} shards are missing or changed: put them back, or run the same "
            "`mgm prepare` again, which writes these alone"
        )


def verify_shards(index: Index, out: Path) -> Iterator[tuple[str, str]]:
    """Read all that the shards of an index hold, and the sources where they still are: (name, what
    is not as it was written).

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
                    f"has changed since {shard} was written of it; run the same `mgm prepare` again, or put it back",
                )


def _claim(source: Index, root: Path, settings: Settings, processes: int) -> dict[str, Any]:
    """What shards.json says; made, and the disk's use computed, if there is none yet."""
    wanted = {"version": VERSION, **asdict(settings)}
    if (root / "shards.json").is_file():
        about = _about(root)
        if other := [name for name in wanted if about.get(name) != wanted[name]]:
            name = other[0]
            raise UserError(
                f"{root}: holds shards with {name} {about.get(name)}, not {wanted[name]} as now; choose another --out"
            )
        return about
    frame_bytes, frame_s = _sample(source, settings)
    frames = sum(-(-video.frames // settings.every) for video in source.videos)
    total, free = frames * frame_bytes, shutil.disk_usage(root).free
    about = {**wanted, "shards": max(1, round(total / SHARD_BYTES))}
    hours = frames * settings.every * frame_s / processes / 3600
    said = f"{len(source.videos):,} videos, {frames:,} frames of {frame_bytes / 1e3:.1f} kB: about {total / 1e9:,.1f} GB"
    if total > 0.98 * free:
        raise UserError(
            f"{root}: {said}, and {free / 1e9:,.1f} GB are free; choose another --out, or keep fewer frames (--every 4) or smaller ones "
            "(--short-side)"
        )
    show(
        f"{said} in {about['shards']:,} shards ({free / 1e9:,.1f} GB are free), about {60 * hours:,.0f} min by {processes} processes"
    )
    files.write(root / "shards.json", json.dumps(about, indent=1) + "\n")
    return about


def _sample(source: Index, settings: Settings) -> tuple[float, float]:
    """Bytes a frame that is kept, and seconds a frame of the source, by some evenly spread videos'
    first frames.
    """
    count, kept, total, started = len(source.videos), 0, 0, time.process_time()
    for video in (
        [source.videos[i * count // SAMPLE] for i in range(SAMPLE)]
        if count > SAMPLE
        else source.videos
    ):
        try:
            file = io.BytesIO()
            kept += _write_record(file, "0", source.name(video), video, settings, most=32)[2]
            total += file.tell()
        except UserError:  # it is left out later, with its reason
            continue
    if not kept:
        raise UserError(f"{source.root}: none of its first videos can be read; see `mgm inspect`")
    return total / kept, (time.process_time() - started) / kept / settings.every


def _write(
    source: Index,
    root: Path,
    about: dict[str, Any],
    settings: Settings,
    processes: int,
    numbers: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """{shard:

    what its .json says} of these shards; those that are there already and hold the same videos are
    left alone.
    """
    contents: list[list[_Named]] = [[] for _ in range(about["shards"])]
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
        (root.parent / "index.json").unlink(
            missing_ok=True
        )  # until it is written anew there is no whole index
        written = in_processes(_write_shard, tasks, min(processes, len(tasks)))
        sidecars |= track(written, "writing shards", len(tasks))
    return dict(sorted(sidecars.items()))


def _write_shard(task: tuple[Path, list[_Named], str, Settings]) -> tuple[str, dict[str, Any]]:
    """Write a shard and its .json, which is returned.

    Raises:
        UserError: the disk is full, or cannot be written.
    """
    target, videos, signature, settings = task
    rows, failed = [], []
    try:
        with files.atomic_write(target) as temporary, temporary.open("wb") as file:
            for number, (name, video) in enumerate(videos):
                start = file.tell()
                try:
                    offset, sha256, _, frames = _write_record(
                        file, f"{number:06}", name, video, settings
                    )
                    rows.append((name, offset, file.tell() - start, frames, sha256))
                except UserError as error:
                    failed.append((name, str(error).removeprefix(f"{video.path}: ")))
                    file.seek(start)
                    file.truncate()
            file.write(bytes(1024))  # the end of a tar
            size = file.tell()
        digest = file_digest(target)
        about = {
            "version": VERSION,
            "signature": signature,
            "bytes": size,
            "sha256": digest,
            "videos": rows,
            "failed": failed,
        }
        files.write(target.with_suffix(".json"), json.dumps(about) + "\n")
        return target.name, about
    except OSError as error:
        what = "no space left for" if error.errno in FULL else "cannot write"
        raise UserError(
            f"{target.parent}: {what} {target.name} ({error.strerror}); mend that and run again: what is done is kept"
        ) from None


def _write_record(
    file: BinaryIO, key: str, name: str, video: Video, settings: Settings, most: int | None = None
) -> tuple[int, str, int, int]:
    """Append a video to a shard: where its table lies, its source's SHA-256, frames kept, and
    frames to count. `most`: only so many frames.

    Raises:
        UserError: a frame of it does not decode, or its source is not the one that was indexed.
    """
    import cv2
    import numpy as np

    from mgm.video.decode import read_pictures
    from mgm.video.motion import reference_distance
    from mgm.video.shard_reader import HEADER, MAGIC, ROW, pack_motion, table_crc

    if found := fault(video):
        raise UserError(f"{video.path}: {found}; run `mgm prepare` again")
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        settings.quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    rows, packed, references, seen, shape = [], bytearray(), [], 0, (0, 0)
    for picture, frame_HWC in read_pictures(video.path, video.has_vectors, settings.every):
        if most is not None and picture.index >= most * settings.every:
            break
        seen = picture.index + 1
        if picture.is_reference:
            references.append(picture.index)
        if frame_HWC is None:
            continue
        shape = frame_HWC.shape[:2]
        if min(shape) > settings.short_side:
            scale = settings.short_side / min(shape)
            frame_HWC = cv2.resize(
                frame_HWC,
                (round(shape[1] * scale), round(shape[0] * scale)),
                interpolation=cv2.INTER_AREA,
            )
        jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR), options)[
            1
        ].tobytes()
        vectors = b"" if picture.vectors is None else pack_motion(*picture.cells())
        offset = _add(file, f"{key}.{picture.index:05}.jpg", jpeg)
        rows.append(
            (
                offset,
                len(jpeg),
                zlib.crc32(jpeg),
                len(packed),
                len(vectors),
                zlib.crc32(vectors),
                0,
                0,
                picture.kind.encode(),
            )
        )
        packed += vectors
    if most is None and seen != video.frames:
        raise UserError(
            f"{video.path}: {seen:,} of its {video.frames:,} frames decode; replace the file, or leave it out"
        )
    table = np.array(rows, ROW)
    table["past"], table["future"] = reference_distance(
        settings.every * np.arange(len(rows)), np.array(references, int)
    )
    vectors_at = _add(file, f"{key}.vectors", bytes(packed))
    codec = video.codec.encode()[:16]
    facts = (MAGIC, VERSION, settings.every, *shape, codec, video.fps, len(rows), vectors_at)
    crc = table_crc(HEADER.pack(*facts, 0), table.tobytes())
    table_at = _add(file, f"{key}.table", HEADER.pack(*facts, crc) + table.tobytes())
    sha256 = file_digest(Path(video.path))
    said = {
        "source": name,
        "sha256": sha256,
        "codec": video.codec,
        "fps": video.fps,
        "height": shape[0],
        "width": shape[1],
    }
    _add(
        file,
        f"{key}.json",
        json.dumps({**said, "every": settings.every, "split": video.split}).encode(),
    )
    _add(file, f"{key}.cls", str(video.label).encode())
    return table_at, sha256, len(rows), settings.every * (len(rows) - 1) + 1


def _add(file: BinaryIO, name: str, data: bytes) -> int:
    """Append a file to a tar; where its bytes lie."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.write(info.tobuf(tarfile.USTAR_FORMAT))
    offset = file.tell()
    file.write(data + bytes(-len(data) % 512))
    return offset


def _signature(videos: Sequence[_Named]) -> str:
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
    sha256: str = ""  # older ones lack it
    videos: list[tuple[str, int, int, int, str]]
    failed: list[tuple[str, str]]


def _sidecar(target: Path) -> dict[str, Any]:
    """What the .json of a shard says;

    nothing if there is none that can be read, or it is of another version.
    """
    with suppress(FileNotFoundError, UserError):
        fields = read_json(target.with_suffix(".json"))
        with valid(""):
            about = _Sidecar.model_validate(fields).model_dump()
        if about["version"] == VERSION:
            return about
    return {}
