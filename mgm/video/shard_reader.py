"""Read videos from shards: frames as JPEG, and the motion vectors of the source file.

A shard is an uncompressed tar in WebDataset's convention, so other tools can read it. Files with
the same key are one record. The record of a video is

    KEY.00000.jpg ...  its frames, all or every k-th, at the shards' short side
    KEY.vectors        the packed cells of each frame with motion information (`pack_motion`)
    KEY.table          offsets, checksums, picture types and reference distances of the
                       frames: a `HEADER`, then one `ROW` per frame
    KEY.json, KEY.cls  the source's name, SHA-256 and more; the label. For people and other tools

The path of a record is `SHARD.tar#OFFSET/NAME`, where OFFSET is the position of its table. So a
clip is read by `pread` of the table, of its frames and of their vectors, without a search. The
checksum of all data that is used is verified. Other libraries for shards would read whole samples,
and a clip is a tenth of a sample.

Boxes and motion are in pixels of the *source*. So random draws and masks are the same as with the
source file, bit for bit.
"""

import json
import math
import os
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mgm.errors import UserError
from mgm.video.clip import Motion
from mgm.video.container import CODECS_WITH_VECTORS, NoVectors
from mgm.video.motion import cell_distance, cells

VERSION = 1
# magic, version, every, height, width, codec, fps, rows, start of the vectors, CRC-32 of the table
HEADER = struct.Struct("<8sIIII16sdIQI")
MAGIC = b"mgmshard"
ROW = np.dtype(
    [
        # The JPEG file. The offset is from the start of the shard.
        ("offset", "<u8"),
        ("bytes", "<u4"),
        ("crc", "<u4"),
        # The frame's packed cells. The offset is from the start of the vectors. 0 bytes mean no
        # motion information.
        ("vectors", "<u4"),
        ("vector_bytes", "<u4"),
        ("vector_crc", "<u4"),
        # Distances to the references in frames, and the picture type.
        ("past", "<u4"),
        ("future", "<u4"),
        ("kind", "S4"),
    ]
)
UNITS = 4  # per pixel. No codec for which FFmpeg exports vectors has finer ones
_FIRST_READ = 1 << 14  # bytes, enough for the table of 400 frames
_NEAR = 1 << 18  # bytes of vectors that are read at once
_BLOCK = 512  # bytes: the unit of a tar


class NotInShard(UserError):
    """The shards lack frames that the run needs, so the run must stop."""


def shard_of(path: str | Path) -> tuple[str, int] | None:
    """Return a record's shard and the offset of its table; None for the path of a file."""
    text = str(path)
    for match in _PLACE.finditer(text) if ".tar#" in text else ():
        shard = text[: match.start()] + ".tar"
        # A folder's name may be x.tar#5.
        if _is_file(shard) or not os.path.isdir(text[: match.end() - 1]):
            return shard, int(match[1])
    return None


def original_name(name: str) -> str:
    """Return the source's name of a record `SHARD.tar#OFFSET/NAME`, and other names as they are."""
    return re.sub(r"^[^/]*\.tar#\d{1,18}/", "", name)


_PLACE = re.compile(r"\.tar#(\d{1,18})/")


@lru_cache(maxsize=4096)
def _is_file(path: str) -> bool:
    return os.path.isfile(path)


def pack_motion(motion_HW2: np.ndarray, future_HW: np.ndarray) -> bytes:
    """Pack a frame's cells without loss.

    The vectors in quarters of a pixel come first, then one bit per cell for a future reference. All
    is compressed with zlib.

    Raises:
        UserError: a vector is not a multiple of a quarter pixel, or is longer than 8191.
    """
    quarters_HW2 = np.rint(motion_HW2 * UNITS).clip(-(2**15), 2**15 - 1).astype("<i2")
    if not np.array_equal(quarters_HW2 / np.float32(UNITS), motion_HW2):
        raise UserError(
            "a motion vector is finer than a quarter pixel, or longer than 8,191; report this as a "
            "bug of mgm, or leave the video out"
        )
    return zlib.compress(quarters_HW2.tobytes() + np.packbits(future_HW).tobytes())


@dataclass(frozen=True)
class ShardVideo:
    """A video in a shard.

    Args:
        every: the shard has every `every`-th frame of the source.
        size: height and width of the source, as shown.
        vectors_at: offset of the vectors in the shard.
        rows: one `ROW` per frame.
        end: the shard's size in bytes.
    """

    path: str
    file: BinaryIO
    every: int
    size: tuple[int, int]
    codec: str
    fps: float
    vectors_at: int
    rows: np.ndarray
    end: int

    @property
    def frames(self) -> int:
        """Return the number of frames up to the last one in the shard."""
        return self.every * (len(self.rows) - 1) + 1

    def jpegs(self, rows: np.ndarray) -> Iterator[bytes]:
        """Yield the JPEG files of some rows."""
        for offset, size, crc in zip(*(rows[name].tolist() for name in ("offset", "bytes", "crc"))):
            yield self._checked(self._read(offset, size, "a frame"), offset, crc, "a frame")

    def motion(self, rows: np.ndarray) -> Motion:
        """Return the motion of some rows."""
        height, width = cells(self.size[0]), cells(self.size[1])
        count, informed_N = height * width, rows["vector_bytes"] > 0
        packed_NL = np.frombuffer(b"".join(self._unpacked(rows)), np.uint8).reshape(len(rows), -1)
        quarters = packed_NL[:, : 4 * count].copy().view("<i2").reshape(len(rows), height, width, 2)
        motion_NHW2 = np.multiply(quarters, np.float32(1 / UNITS), dtype=np.float32)
        future_NL = np.unpackbits(packed_NL[:, 4 * count :], axis=1, count=count).view(bool)
        future_NHW = future_NL.reshape(-1, height, width)
        distance_NHW = cell_distance(future_NHW, rows["past"], rows["future"])
        distance_NHW[~informed_N] = 1
        return Motion(motion_NHW2, distance_NHW, informed_N)

    def check(self) -> None:
        """Read all frames and vectors, and verify their checksums.

        Raises:
            UserError: a byte has changed.
        """
        for _ in chain(self.jpegs(self.rows), self._unpacked(self.rows)):
            pass

    def _unpacked(self, rows: np.ndarray) -> Iterator[bytes]:
        """Yield the decompressed cells of ascending rows.

        The cells of a clip are close together, and are read at once.
        """
        columns = (rows[name].tolist() for name in ("vectors", "vector_bytes", "vector_crc"))
        places, what = list(zip(*columns)), "motion vectors"
        nothing = bytes(self._unpacked_bytes)
        start, span = places[0][0], sum(places[-1][:2]) - places[0][0]
        near = (
            self._read(self.vectors_at + start, span, what)
            if 0 <= span < _NEAR and rows["vector_bytes"].any()
            else b""
        )
        for at, size, crc in places:
            offset = self.vectors_at + at
            data = near[at - start : at - start + size] if near else self._read(offset, size, what)
            yield self._inflated(self._checked(data, offset, crc, what)) if size else nothing

    @property
    def _unpacked_bytes(self) -> int:
        """Return the size of a frame's cells in bytes, before `pack_motion` compresses them."""
        count = cells(self.size[0]) * cells(self.size[1])
        return 4 * count + -(-count // 8)

    def _inflated(self, data: bytes) -> bytes:
        wanted = self._unpacked_bytes
        try:
            inflated = zlib.decompressobj().decompress(data, wanted + 1)
        except zlib.error:
            inflated = b""
        if len(inflated) != wanted:
            raise UserError(
                f"{self.path}: its motion vectors in the shard do not fit its size; {AGAIN}"
            )
        return inflated

    def _read(self, offset: int, count: int, what: str) -> bytes:
        # Limit the read, since a damaged count may be gigabytes.
        end = min(self.end, offset + count)
        data = os.pread(self.file.fileno(), end - offset, offset) if offset < end else b""
        if len(data) < count:
            raise UserError(
                f"{self.path}: its shard ends after {min(self.end, offset + len(data)):,} bytes, "
                f"and {what} needs {offset + count:,}; {AGAIN}"
            )
        return data

    def _checked(self, data: bytes, offset: int, crc: int, what: str) -> bytes:
        if zlib.crc32(data) != crc:
            raise UserError(
                f"{self.path}: the {len(data):,} bytes of {what} at {offset:,} have changed since "
                f"they were written; {AGAIN}"
            )
        return data


AGAIN = "delete the shard and its .json, and run the same `mgm prepare` again"


def open_record(path: str | Path) -> ShardVideo:
    """Open a record by its path.

    Raises:
        UserError: its shard is missing, cut short, damaged or of another version.
    """
    place = shard_of(path)
    assert place is not None, path
    (file, shard_end), offset = _opened(place[0]), place[1]
    data = os.pread(file.fileno(), _FIRST_READ, offset)

    def part(start: int, size: int) -> bytes:
        """Return bytes of the shard from `start` after the table's begin. Mostly they are read."""
        if start + size <= len(data):
            return data[start : start + size]
        return os.pread(file.fileno(), size, offset + start)

    if len(data) < HEADER.size:
        raise UserError(
            f"{path}: its shard ends after {shard_end:,} bytes, before this video; {AGAIN}"
        )
    magic, version, every, height, width, codec, fps, count, vectors_at, crc = HEADER.unpack_from(
        data
    )
    if magic != MAGIC:
        raise UserError(f"{path}: no video begins at byte {offset:,} of its shard; {AGAIN}")
    if version != VERSION:
        raise UserError(
            f"{path}: is in format {version} of shards, and this mgm reads {VERSION}; "
            "prepare the dataset again"
        )
    end = HEADER.size + count * ROW.itemsize
    # The number of rows cannot be checked yet, so the read is limited to the shard.
    table = part(0, end) if end <= shard_end - offset else b""
    if len(table) < end or table_crc(table[: HEADER.size], table[HEADER.size :]) != crc:
        raise UserError(
            f"{path}: the {end:,} bytes of its table at {offset:,} have changed since they were "
            f"written; {AGAIN}"
        )
    sizes = {"every": (every, 64), "height": (height, 1 << 15), "width": (width, 1 << 15)}
    sizes |= {"rows": (count, 1 << 32), "vectors": (vectors_at, shard_end)}
    for name, (value, most) in sizes.items():
        if not 1 <= value <= most:
            raise UserError(
                f"{path}: its table in the shard has {name} {value:,}, not 1 to {most:,}; {AGAIN}"
            )
    if not (codec.isascii() and 0 <= fps < math.inf):
        raise UserError(f"{path}: its table in the shard has codec {codec!r}, fps {fps}; {AGAIN}")
    # KEY.json follows the table, and has the source's name.
    source, wanted = None, str(path)[len(place[0]) :].partition("/")[2]
    with suppress(tarfile.TarError, ValueError, KeyError, TypeError, RecursionError):
        at = end + -end % _BLOCK
        info = tarfile.TarInfo.frombuf(part(at, _BLOCK), "utf-8", "strict")
        if info.name.endswith(".json") and info.size <= _FIRST_READ:
            source = json.loads(part(at + _BLOCK, info.size))["source"]
    if not isinstance(source, str) or inside(source) != wanted:
        raise UserError(
            f"{path}: the video at byte {offset:,} of its shard is {source}, not {wanted}; {AGAIN}"
        )
    rows, name = np.frombuffer(table, ROW, count, HEADER.size), codec.rstrip(b"\0").decode()
    return ShardVideo(
        str(path), file, every, (height, width), name, fps, vectors_at, rows, shard_end
    )


def inside(name: str) -> str:
    """Return a relative path without parts that lead out of its root."""
    return "/".join(part for part in name.split("/") if part not in ("", ".."))


def table_crc(header: bytes, rows: bytes) -> int:
    """Return the checksum at the end of a header, of the rest of the header and of the rows."""
    return zlib.crc32(rows, zlib.crc32(header[: HEADER.size - 4]))


class ShardPass:
    """A pass over a video in a shard, with the interface of `mgm.video.decode.DecodePass`.

    `size` is the source's height and width, which boxes and motion refer to. Frames may be smaller.
    """

    def __init__(self, path: str | Path, wanted_N: np.ndarray, motion: bool):
        self.record = record = open_record(path)
        if motion and record.codec not in CODECS_WITH_VECTORS:
            raise NoVectors(
                f"{path}: the codec of its source, {record.codec}, has no motion vectors; "
                "use a mask without motion guidance"
            )
        self.size = record.size
        row_N, off_N = np.divmod(wanted_N, record.every)
        if off_N.any():
            index = int(wanted_N[off_N > 0][0])
            raise NotInShard(
                f"{path}: has every {record.every}th frame, and frame {index} was requested; set "
                f"clips.start_multiple to {record.every} and clips.stride to a multiple, or "
                "prepare without --every"
            )
        if row_N[-1] >= len(record.rows):
            raise UserError(
                f"{path}: frame {int(wanted_N[-1])} was requested, but the video ends after "
                f"{record.frames} frames; request fewer"
            )
        self.rows, self._motion = record.rows[row_N], motion

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        # An optional package.
        import cv2

        for n, jpeg in enumerate(self.record.jpegs(self.rows)):
            frame_HWC = None
            # OpenCV refuses a JPEG of more than 2^30 pixels.
            with suppress(cv2.error):
                frame_HWC = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
            if frame_HWC is None:
                raise UserError(f"{self.record.path}: a frame is not a JPEG; {AGAIN}")
            yield n, frame_HWC

    def motion(self) -> Motion:
        """Return the motion of the wanted frames."""
        rows = self.rows
        if not self._motion:
            rows = rows.copy()
            rows["vector_bytes"] = 0
        return self.record.motion(rows)


# The limit is needed: a dataset may have thousands of shards, and a process may open 1,024 files.
@lru_cache(maxsize=256)
def _opened(shard: str) -> tuple[BinaryIO, int]:
    """Open a shard, and return the file and its size in bytes."""
    try:
        file = open(shard, "rb", buffering=0)  # noqa: SIM115
        return file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(
            f"{shard}: cannot be opened ({error.strerror}); put the shard back, or run the same "
            "`mgm prepare` again"
        ) from None
