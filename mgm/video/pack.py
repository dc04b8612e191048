"""Packs: a video's frames as JPEG with the motion vectors of its source, in one file.

    JPEG and packed cells (`pack_cells`) of frame 0, of frame 1, ...
    a `ROW` per frame
    a `FOOTER`

A clip is read by `pread` of the end of the file and of its frames, without a search. The checksum
of all data that is used is verified.

Boxes and motion are in pixels of the *source*. So random draws and masks are the same as with the
source file, bit for bit.
"""

import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mgm.errors import UserError
from mgm.reading import regular
from mgm.video.clip import Motion
from mgm.video.container import NoVectors
from mgm.video.motion import cell_distance, cells, reference_distance
from mgm.video.videos import CODECS_WITH_VECTORS, Video

SUFFIX = ".pack"
QUALITY = 90  # of the JPEG files, with 4:2:0 chroma
# magic and version, height and width of the source, its codec and frame rate, number of frames,
# CRC-32 of the rows and of the rest of the footer
FOOTER = struct.Struct("<8sII16sdII")
MAGIC = b"mgmpack1"
ROW = np.dtype(
    [
        # The JPEG file and, right after it, the packed cells. 0 bytes mean no motion information.
        ("offset", "<u8"),
        ("jpeg", "<u4"),
        ("cells", "<u4"),
        ("crc", "<u4"),
        # Distances to the references in frames, and the picture type.
        ("past", "<u4"),
        ("future", "<u4"),
        ("kind", "S4"),
    ]
)
UNITS = 4  # per pixel. No codec for which FFmpeg exports vectors has finer ones
_LAST_READ = 1 << 14  # bytes, enough for the rows of 480 frames
AGAIN = "delete it, and run the same `mgm prepare` again"


def is_pack(path: str | Path) -> bool:
    """Return whether a path is that of a pack."""
    return str(path).endswith(SUFFIX)


@dataclass(frozen=True)
class Pack:
    """An open pack.

    Args:
        size: height and width of the source, as shown.
        fps: frame rate of the source.
        rows: one `ROW` per frame.
    """

    path: str
    file: BinaryIO
    size: tuple[int, int]
    codec: str
    fps: float
    rows: np.ndarray

    def frames(self, rows: np.ndarray) -> Iterator[tuple[bytes, bytes]]:
        """Yield the JPEG file and the packed cells of some rows."""
        columns = (rows[name].tolist() for name in ("offset", "jpeg", "cells", "crc"))
        for offset, jpeg, packed, crc in zip(*columns):
            data = os.pread(self.file.fileno(), jpeg + packed, offset)
            if zlib.crc32(data) != crc:
                raise UserError(f"{self.path}: the frame at byte {offset:,} has changed; {AGAIN}")
            yield data[:jpeg], data[jpeg:]

    def motion(self, rows: np.ndarray, packed: Sequence[bytes]) -> Motion:
        """Return the motion of some rows, given their packed cells."""
        height, width = cells(self.size[0]), cells(self.size[1])
        count, informed_N = height * width, np.array([len(data) > 0 for data in packed])
        nothing = bytes(4 * count + -(-count // 8))
        data = b"".join(self._unpacked(each, len(nothing)) if each else nothing for each in packed)
        bytes_NL = np.frombuffer(data, np.uint8).reshape(len(rows), -1)
        quarters = bytes_NL[:, : 4 * count].copy().view("<i2").reshape(len(rows), height, width, 2)
        motion_NHW2 = np.multiply(quarters, np.float32(1 / UNITS), dtype=np.float32)
        future_NL = np.unpackbits(bytes_NL[:, 4 * count :], axis=1, count=count).view(bool)
        distance_NHW = cell_distance(
            future_NL.reshape(-1, height, width), rows["past"], rows["future"]
        )
        distance_NHW[~informed_N] = 1
        return Motion(motion_NHW2, distance_NHW, informed_N)

    def _unpacked(self, packed: bytes, wanted: int) -> bytes:
        data = b""
        with suppress(zlib.error):
            data = zlib.decompressobj().decompress(packed, wanted + 1)
        if len(data) != wanted:
            raise UserError(f"{self.path}: its motion vectors do not fit its size; {AGAIN}")
        return data


@contextmanager
def open_pack(path: str | Path) -> Iterator[Pack]:
    """Open a pack, and close it at the end of the block."""
    try:
        file = regular(Path(path)).open("rb", buffering=0)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror}); {AGAIN}") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        start = max(size - _LAST_READ, 0)
        end = os.pread(file.fileno(), _LAST_READ, start)
        footer = end[-FOOTER.size :]
        if len(footer) < FOOTER.size or not footer.startswith(MAGIC):
            raise UserError(f"{path}: is not a whole pack; {AGAIN}")
        _, height, width, codec, fps, count, crc = FOOTER.unpack(footer)
        # The number of rows cannot be trusted yet.
        length = min(count * ROW.itemsize, size) + FOOTER.size
        if length > len(end):
            end = os.pread(file.fileno(), length, max(size - length, 0))
        rows = end[-length : -FOOTER.size]
        plain = 0 < max(height, width) < 1 << 15 and 0 <= fps < math.inf and codec.isascii()
        if zlib.crc32(rows + footer[:-4]) != crc or not (count and height and width and plain):
            raise UserError(f"{path}: its table has changed since it was written; {AGAIN}")
        table, name = np.frombuffer(rows, ROW), codec.rstrip(b"\0").decode()
        yield Pack(str(path), file, (height, width), name, fps, table)


class PackPass:
    """A pass over a pack, with the interface of `mgm.video.decode.DecodePass`.

    `size` is the source's height and width, which boxes and motion refer to. Frames may be smaller.
    """

    def __init__(self, pack: Pack, wanted_N: np.ndarray, motion: bool):
        if motion and pack.codec not in CODECS_WITH_VECTORS:
            raise NoVectors(
                f"{pack.path}: the codec of its source, {pack.codec}, has no motion vectors; use "
                "--copy mp4, or a mask without motion guidance"
            )
        if wanted_N[-1] >= len(pack.rows):
            raise UserError(
                f"{pack.path}: frame {int(wanted_N[-1])} was requested, but the video ends after "
                f"{len(pack.rows)} frames; request fewer"
            )
        self.pack, self.size, self.rows = pack, pack.size, pack.rows[wanted_N]
        self._motion, self._packed = motion, list[bytes]()

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        # An optional package.
        import cv2

        for n, (jpeg, packed) in enumerate(self.pack.frames(self.rows)):
            frame_HWC = None
            # OpenCV refuses a JPEG of more than 2^30 pixels.
            with suppress(cv2.error):
                frame_HWC = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
            if frame_HWC is None:
                raise UserError(f"{self.pack.path}: a frame is not a JPEG; {AGAIN}")
            self._packed.append(packed if self._motion else b"")
            yield n, frame_HWC

    def motion(self) -> Motion:
        """Return the motion of the wanted frames."""
        return self.pack.motion(self.rows, self._packed)


def write_pack(video: Video, file: BinaryIO, short_side: int) -> int:
    """Write a video as a pack to an open binary file, and return its number of frames.

    Frames are scaled to a short side of at most `short_side`.
    """
    # An optional package.
    import cv2

    from mgm.video.decode import read_pictures

    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    rows, references, shape = list[tuple[Any, ...]](), list[int](), (0, 0)
    for picture, frame_HWC in read_pictures(video.path, video.has_vectors):
        if picture.index != len(rows):
            break
        if picture.is_reference:
            references.append(picture.index)
        shape = frame_HWC.shape[:2]
        if (scale := short_side / min(shape)) < 1:
            sides = round(shape[1] * scale), round(shape[0] * scale)
            frame_HWC = cv2.resize(frame_HWC, sides, interpolation=cv2.INTER_AREA)
        bgr_HWC = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", bgr_HWC, options)[1].tobytes()
        packed = b"" if picture.vectors is None else pack_cells(*picture.cells())
        crc = zlib.crc32(jpeg + packed)
        rows.append((file.tell(), len(jpeg), len(packed), crc, 0, 0, picture.kind.encode()))
        file.write(jpeg + packed)
    table = np.array(rows, ROW)
    distances = reference_distance(np.arange(len(rows)), np.array(references, int))
    table["past"], table["future"] = distances
    facts = MAGIC, *shape, video.codec.encode()[:16], video.fps, len(rows)
    crc = zlib.crc32(table.tobytes() + FOOTER.pack(*facts, 0)[:-4])
    file.write(table.tobytes() + FOOTER.pack(*facts, crc))
    return len(rows)


def pack_cells(motion_HW2: np.ndarray, future_HW: np.ndarray) -> bytes:
    """Pack a frame's cells without loss.

    The vectors in quarters of a pixel come first, then one bit per cell for a future reference. All
    is compressed with zlib.
    """
    quarters_HW2 = np.rint(motion_HW2 * UNITS).clip(-(2**15), 2**15 - 1).astype("<i2")
    if not np.array_equal(quarters_HW2 / np.float32(UNITS), motion_HW2):
        raise UserError("a motion vector is finer than a quarter pixel, or longer than 8,191")
    return zlib.compress(quarters_HW2.tobytes() + np.packbits(future_HW).tobytes())
