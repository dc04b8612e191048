"""Write one shard: a tar of JPEG frames, packed motion vectors and tables.

`mgm.video.shard_reader` describes the format, and reads it.
"""

import hashlib
import io
import json
import tarfile
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from pydantic import BaseModel

from mgm.data.index import Index, Video
from mgm.data.opening import FULL, fault
from mgm.errors import UserError
from mgm.reading import file_digest
from mgm.results import atomic
from mgm.video.decode import read_pictures
from mgm.video.motion import reference_distance
from mgm.video.shard_reader import HEADER, MAGIC, ROW, VERSION, pack_motion, table_crc

END_BYTES = 1024  # zeros at the end of a tar
SAMPLE = 16  # videos, of 32 frames each, that are measured to estimate the shards' size
NamedVideo: TypeAlias = tuple[str, Video]  # name below the source's root


@dataclass(frozen=True)
class Settings:
    """The frames that shards keep, and how they are stored.

    Shards keep every `every`-th frame, scaled to a short side of at most `short_side` pixels.
    Frames are JPEG of `quality`, with 4:2:0 chroma.
    """

    short_side: int = 256
    every: int = 1
    quality: int = 90

    def __post_init__(self) -> None:
        for name, least, most in (("short_side", 64, 4096), ("every", 1, 64), ("quality", 50, 100)):
            if not least <= getattr(self, name) <= most:
                raise UserError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: is outside {least} to "
                    f"{most}; choose a number from there"
                )


class Sidecar(BaseModel):
    """The fields of a shard's .json. `videos` has (name, offset, bytes, frames, SHA-256)."""

    version: int = VERSION
    signature: str
    bytes: int
    sha256: str
    videos: list[tuple[str, int, int, int, str]]
    failed: list[tuple[str, str]]
    seal: str = ""


def measure_sample(source: Index, settings: Settings) -> tuple[float, float]:
    """Measure bytes per kept frame, and seconds per frame of the source.

    The sample is the first frames of some evenly spread videos.
    """
    count, kept, total, started = len(source.videos), 0, 0, time.process_time()
    for number in sorted({i * count // SAMPLE for i in range(SAMPLE)}):
        video = source.videos[number]
        # A video that cannot be read is left out later, with its reason.
        with suppress(UserError):
            file = io.BytesIO()
            kept += _write_record(file, "0", source.name(video), video, settings, most=32)[2]
            total += file.tell()
    if not kept:
        raise UserError(f"{source.root}: none of its first videos can be read; see `mgm inspect`")
    return total / kept, (time.process_time() - started) / kept / settings.every


def write_shard(task: tuple[Path, list[NamedVideo], str, Settings]) -> tuple[str, Sidecar]:
    """Write a shard and its .json.

    Returns:
        The shard's name, and the fields of its .json.

    Raises:
        UserError: the disk is full, or cannot be written.
    """
    target, videos, signature, settings = task
    rows, failed = [], []
    try:
        with atomic.atomic_write(target) as temporary, temporary.open("wb") as file:
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
            file.write(bytes(END_BYTES))
            size = file.tell()
        sidecar = Sidecar(
            signature=signature,
            bytes=size,
            sha256=file_digest(target),
            videos=rows,
            failed=failed,
        )
        sidecar.seal = seal(sidecar.model_dump())
        atomic.write(target.with_suffix(".json"), json.dumps(sidecar.model_dump()) + "\n")
        return target.name, sidecar
    except OSError as error:
        what = "no space left for" if error.errno in FULL else "cannot write"
        raise UserError(
            f"{target.parent}: {what} {target.name} ({error.strerror}); correct that and run "
            "again (what is done is kept)"
        ) from None


def seal(fields: dict[str, Any]) -> str:
    """Return a digest of the fields of a shard's .json, except the seal itself."""
    sealed = {name: value for name, value in fields.items() if name != "seal"}
    return hashlib.sha256(json.dumps(sealed).encode()).hexdigest()[:16]


def _write_record(
    file: BinaryIO, key: str, name: str, video: Video, settings: Settings, most: int | None = None
) -> tuple[int, str, int, int]:
    """Append a video to a shard.

    Args:
        most: keep at most this number of frames.

    Returns:
        The table's offset, the source's SHA-256, the number of kept frames, and the number of
        source frames from the first to the last kept one.

    Raises:
        UserError: a frame does not decode, or the source is not the file that was indexed.
    """
    # An optional package.
    import cv2

    if change := fault(video):
        raise UserError(f"{video.path}: {change}; run `mgm prepare` again")
    options = [cv2.IMWRITE_JPEG_QUALITY, settings.quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
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
        if (scale := settings.short_side / min(shape)) < 1:
            sides = round(shape[1] * scale), round(shape[0] * scale)
            frame_HWC = cv2.resize(frame_HWC, sides, interpolation=cv2.INTER_AREA)
        jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR), options)[1]
        data = jpeg.tobytes()
        vectors = b"" if picture.vectors is None else pack_motion(*picture.cells())
        offset = _add(file, f"{key}.{picture.index:05}.jpg", data)
        frame = offset, len(data), zlib.crc32(data)
        motion = len(packed), len(vectors), zlib.crc32(vectors)
        rows.append((*frame, *motion, 0, 0, picture.kind.encode()))
        packed += vectors
    if most is None and seen != video.frames:
        raise UserError(
            f"{video.path}: {seen:,} of its {video.frames:,} frames decode; replace the file, or "
            "leave it out"
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
    description = {
        "source": name,
        "sha256": sha256,
        "codec": video.codec,
        "fps": video.fps,
        "height": shape[0],
        "width": shape[1],
        "every": settings.every,
        "split": video.split,
    }
    _add(file, f"{key}.json", json.dumps(description).encode())
    _add(file, f"{key}.cls", str(video.label).encode())
    return table_at, sha256, len(rows), settings.every * (len(rows) - 1) + 1


def _add(file: BinaryIO, name: str, data: bytes) -> int:
    """Append a file to a tar, and return the offset of its bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.write(info.tobuf(tarfile.USTAR_FORMAT))
    offset = file.tell()
    file.write(data + bytes(-len(data) % 512))
    return offset
