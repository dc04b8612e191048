"""Tracks: the times and the motion of a video's frames, in one file per video and method.

    packed cells of frame 0, of frame 1, ...    none for a frame without motion information
    table                                       zlib: a line of JSON (`Facts`), then columns
    END

A slice reads the end of the file and the cells of its frames by `pread`, and verifies their
checksums. It needs NumPy alone, so any program can use it, whatever decodes the pixels.

Methods: "codec" has the vectors that the file stores. "dis" and "raft-small" have optical flow
(`mgm.video.optical_flow`).
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from mgm.errors import NoMotion, UserError
from mgm.reading import file_digest
from mgm.spec import Method
from mgm.video.clip import Motion
from mgm.video.motion import cell_distance, cells, reference_distance
from mgm.video.packets import Timeline
from mgm.video.videos import CODECS_WITH_VECTORS

if TYPE_CHECKING:
    from mgm.video.container import VideoReader

SUFFIX = ".track"
MAGIC = b"mgmtrk02"
END = struct.Struct("<II8s")  # length and CRC-32 of the table, magic and version
# Columns of the table, a value per frame.
COLUMNS = (
    ("size", "<u4"),  # bytes of the packed cells
    ("crc", "<u4"),
    ("past", "<u4"),  # distances to the references, in frames
    ("future", "<u4"),
    ("kind", "S4"),
)
# More columns of a file that stores presentation times.
TIMES = ("time", "<i8"), ("packet", "<i4"), ("disposable", "?")
UNITS = 4  # per pixel. No codec for which FFmpeg exports vectors has finer ones
LEVEL = 4  # of zlib: nearly as small as 6, in half of the time
PAIR = np.dtype("<u4")  # dx and dy of a cell
_LAST_READ = 1 << 14  # bytes, enough for the table of some 1,000 frames
_LARGEST_TABLE = 1 << 30
Read = Callable[[int, int], bytes]  # maps a number of bytes and where they start to the bytes
AGAIN = "run the same `mgm prepare` again"


class Facts(BaseModel):
    """What a track says of its video.

    Args:
        codec: of the video that the vectors come from.
        height, width: of its frames as shown. Vectors are in these pixels.
        vectors: whether the codec has motion vectors. True for optical flow.
        bytes, pixels: size of the file that the times belong to, and height and width of its
            frames. Those of a copy may be smaller than its source's.
        container: FFmpeg's name of the container.
        digest: SHA-256 of that file.
        source: SHA-256 of the file that it is a copy of; empty if it is none.
        weights: SHA-256 of the weights that computed the flow.
        keys, start: see `Timeline`. None: the file stores no times, and is decoded from its start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method
    codec: str
    frames: NonNegativeInt
    height: PositiveInt
    width: PositiveInt
    vectors: bool
    bytes: NonNegativeInt
    container: str
    pixels: tuple[int, int]
    digest: str
    source: str = ""
    weights: str = ""
    keys: tuple[int, ...] | None = None
    start: int = 0

    @property
    def kind(self) -> str:
        """Return the codec, and whether it lacks vectors because all frames are I-frames."""
        intra = not self.vectors and self.codec in CODECS_WITH_VECTORS
        return f"{self.codec}, all I-frames," if intra else self.codec


def track_path(stem: str, method: Method) -> str:
    """Return the path of a video's track.

    Args:
        stem: `Video.track`.
    """
    return f"{stem}.{method}{SUFFIX}"


class Track:
    """The times and the motion of a video's frames.

    `track[frames]` returns the motion of some frames, by numbers from 0. A track may be pickled,
    and used by threads and forked processes.

    Attributes:
        facts: the video, its size and the method.
        kinds_T: picture types, "I", "P", "B" or another of FFmpeg's; "" if it did not decode.
        has_mv_T: True for frames with motion information.
        timeline: see `mgm.video.packets`.
    """

    def __init__(self, path: str | Path, data: bytes | None = None):
        """Read the table of a track.

        Args:
            data: the content of the file, if it is in memory. Then `path` is its name in messages.

        Raises:
            NoMotion: the file is missing or not a whole track.
        """
        self.path, self.data = str(path), data
        with self._opened() as (read, size):
            end = read(_LAST_READ, max(size - _LAST_READ, 0))
            last = end[-END.size :]
            if len(last) < END.size or not last.endswith(MAGIC):
                raise NoMotion(f"{self.path}: is not a whole track; delete it, and {AGAIN}")
            length, crc, _ = END.unpack(last)
            whole = min(length + END.size, size)
            if whole > len(end):
                end = read(whole, size - whole)
        packed = end[-whole : -END.size]
        try:
            if zlib.crc32(packed) != crc:
                raise ValueError
            table = zlib.decompressobj().decompress(packed, _LARGEST_TABLE)
            line, _, columns = table.partition(b"\n")
            self.facts = facts = Facts.model_validate_json(line)
            T, at, column_of = facts.frames, 0, dict[str, np.ndarray]()
            for name, kind in COLUMNS if facts.keys is None else COLUMNS + TIMES:
                column_of[name] = np.frombuffer(columns, kind, T, at)
                at += T * np.dtype(kind).itemsize
            size_T = column_of["size"].astype(np.int64)
            if size_T.sum() != size - whole or at != len(columns):
                raise ValueError
        except (ValueError, zlib.error, ValidationError):
            raise NoMotion(
                f"{self.path}: has changed since it was written; delete it, and {AGAIN}"
            ) from None
        self._size_T, self._offset_T = size_T, np.cumsum(size_T) - size_T
        self._crc_T = column_of["crc"]
        self._past_T, self._future_T = column_of["past"], column_of["future"]
        self._kind_T = column_of["kind"]
        self.has_mv_T = size_T > 0
        self.timeline: Timeline | None = None
        if facts.keys is not None:
            times_T, keys = np.cumsum(column_of["time"]), np.array(facts.keys, np.int64)
            of_packets = column_of["packet"], column_of["disposable"]
            self.timeline = Timeline(times_T, *of_packets, keys, facts.start)

    def __len__(self) -> int:
        return self.facts.frames

    def __repr__(self) -> str:
        facts = self.facts
        return (
            f"Track({self.path}: {facts.method}, {facts.frames} frames of {facts.height} x "
            f"{facts.width}, {int(self.has_mv_T.sum())} with motion)"
        )

    def __getitem__(self, frames: slice | int | Sequence[int] | np.ndarray) -> Motion:
        """Return the motion of some frames.

        Raises:
            NoMotion: the video's codec has no motion vectors, or the file has changed.
            UserError: there is no such frame.
        """
        index_T = self._numbers(frames)
        facts = self.facts
        if not facts.vectors:
            raise NoMotion(
                f"{self.path}: {facts.kind} has no motion vectors that FFmpeg exports; copy "
                "the videos (`mgm prepare --copy mp4`), use flow (`mgm track --method dis`) or an "
                "unguided mask"
            )
        rows, columns = cells(facts.height), cells(facts.width)
        moved = self.has_mv_T[index_T]
        with self._opened() as (read, _):
            packed = [self._frame(read, t) for t in index_T[moved].tolist()]
        pair_NHW, future_NHW = self._unpacked(packed, rows, columns)
        kind, scale = ("<i2", 1 / UNITS) if facts.method == "codec" else ("<f2", 1)
        vectors_THW2 = np.zeros((len(index_T), rows, columns, 2), np.float32)
        pairs_NHW2 = pair_NHW.view(kind).reshape(len(packed), rows, columns, 2)
        vectors_THW2[moved] = np.multiply(pairs_NHW2, np.float32(scale), dtype=np.float32)
        distance_THW = np.ones((len(index_T), rows, columns), np.float32)
        past_N, future_N = (each[index_T[moved]] for each in (self._past_T, self._future_T))
        distance_THW[moved] = cell_distance(future_NHW, past_N, future_N)
        return Motion(vectors_THW2, distance_THW, moved, (facts.height, facts.width))

    def _numbers(self, frames: slice | int | Sequence[int] | np.ndarray) -> np.ndarray:
        if isinstance(frames, slice):
            return np.arange(self.facts.frames)[frames]
        index_T = np.atleast_1d(np.asarray(frames))
        if not index_T.size:
            index_T = index_T.astype(int)
        if index_T.ndim != 1 or index_T.dtype.kind not in "iu":
            raise UserError(f"{self.path}: frames are {frames}; pass whole numbers from 0")
        count = self.facts.frames
        if len(index_T) and not 0 <= index_T.min() <= index_T.max() < count:
            wrong = index_T.min() if index_T.min() < 0 else index_T.max()
            raise UserError(
                f"{self.path}: frame {wrong} was requested, and the video has frames 0 to "
                f"{count - 1}"
            )
        return index_T

    @contextmanager
    def _opened(self) -> Iterator[tuple[Read, int]]:
        """Yield a function that reads bytes of the file, and the file's size."""
        if (data := self.data) is not None:
            yield lambda count, start: data[start : start + count], len(data)
            return
        try:
            # Opening a pipe does not wait, and reading it is refused.
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise NoMotion(f"{self.path}: no such track; {AGAIN}") from None
        except ValueError:
            raise NoMotion(f"{self.path}: contains a NUL character; correct the path") from None
        except OSError as error:
            raise NoMotion(f"{self.path}: cannot be opened ({error.strerror})") from None
        try:
            yield partial(os.pread, file), os.fstat(file).st_size
        except OSError as error:
            raise NoMotion(f"{self.path}: cannot be read ({error.strerror})") from None
        finally:
            os.close(file)

    @property
    def kinds_T(self) -> tuple[str, ...]:
        return tuple(kind.decode() for kind in self._kind_T.tolist())

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width of the frames, whose pixels the vectors are in."""
        return self.facts.height, self.facts.width

    def _frame(self, read: Read, t: int) -> bytes:
        data = read(int(self._size_T[t]), int(self._offset_T[t]))
        if zlib.crc32(data) != self._crc_T[t]:
            raise NoMotion(
                f"{self.path}: the motion of frame {t} has changed; delete the file, and {AGAIN}"
            )
        with suppress(zlib.error):
            return zlib.decompressobj().decompress(data, 1 << 28)
        return b""

    def _unpacked(
        self, packed: Sequence[bytes], rows: int, columns: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return dx and dy of frames as pairs, (N, H, W), and where they refer to the future."""
        paired = -(-rows // 2), columns, 2
        cells_Z = paired[0] * columns * 2
        bits, plain = -(-cells_Z // 8), -(-rows * columns // 8)
        flags = np.frombuffer(b"".join(each[:bits] for each in packed), np.uint8)
        if flags.size != bits * len(packed):
            raise NoMotion(f"{self.path}: its cells do not fit its size; delete it, and {AGAIN}")
        new_NZ = np.unpackbits(flags.reshape(len(packed), bits), axis=1, count=cells_Z)
        stop_N = bits + PAIR.itemsize * new_NZ.sum(1, dtype=np.int64)
        values, future_NP = list[bytes](), np.zeros((len(packed), plain), np.uint8)
        for n, (each, stop) in enumerate(zip(packed, stop_N.tolist())):
            values.append(each[bits:stop])
            if len(each) != stop:
                future_NP[n] = np.frombuffer(each, np.uint8, offset=stop)
        value_V = np.frombuffer(b"".join(values), PAIR)
        pair_NZ = value_V[new_NZ.ravel().cumsum(dtype=np.int64) - 1].reshape(len(packed), *paired)
        pair_NHW = pair_NZ.swapaxes(2, 3).reshape(len(packed), 2 * paired[0], columns)[:, :rows]
        future_NL = np.unpackbits(future_NP, axis=1, count=rows * columns)
        future_NHW = future_NL.view(bool).reshape(len(packed), rows, columns)
        return np.ascontiguousarray(pair_NHW), future_NHW


class TrackWriter:
    """Writes a track to an open binary file: `add` a frame after the other, then `finish`."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.rows, self.references = list[tuple[int, int, str]](), list[int]()

    def add(self, index: int, kind: str, reference: bool, packed: bytes) -> None:
        """Add a frame. Frames that are left out have no motion information.

        Args:
            index: its number, larger than the last one's.
            kind: the picture type.
            reference: whether other frames may refer to it.
            packed: `pack_cells`; empty without motion information.
        """
        self.rows += [(0, 0, "")] * (index - len(self.rows))
        self.rows.append((len(packed), zlib.crc32(packed), kind))
        self.references += [index] if reference else []
        self.file.write(packed)

    def finish(self, file: "VideoReader", frames: int, size: tuple[int, int], **facts: Any) -> None:
        """Write the table and the end.

        Args:
            file: from which the pixels are read. The times are this file's.
            size: height and width of the frames that the vectors are of.
            facts: method, codec, vectors, and what differs: weights, source, and the file's pixels.
        """
        timeline, (height, width) = file.timeline, size
        facts = {"frames": frames, "height": height, "width": width, "pixels": size} | facts
        facts |= {"bytes": os.path.getsize(file.path), "container": file.format}
        facts |= {"digest": file_digest(Path(file.path))}
        rows = self.rows + [(0, 0, "")] * (frames - len(self.rows))
        size_T, crc_T, kind_T = zip(*rows) if rows else ((), (), ())
        past_T, future_T = reference_distance(np.arange(len(rows)), np.array(self.references, int))
        values = [size_T, crc_T, past_T, future_T, kind_T]
        if timeline is not None:
            facts |= {"keys": tuple(timeline.key_K.tolist()), "start": timeline.start}
            steps_T = np.diff(timeline.times_T, prepend=0)
            values += [steps_T, timeline.packet_T, timeline.disposable_T]
        kinds = COLUMNS if timeline is None else COLUMNS + TIMES
        columns = [np.array(column, kind) for column, (_, kind) in zip(values, kinds, strict=True)]
        line = Facts.model_validate(facts).model_dump_json().encode()
        table = zlib.compress(b"\n".join([line, b"".join(x.tobytes() for x in columns)]))
        self.file.write(table + END.pack(len(table), zlib.crc32(table), MAGIC))


def pack_cells(motion_HW2: np.ndarray, future_HW: np.ndarray | None = None) -> bytes:
    """Pack a frame's cells without loss.

    Cells are taken in pairs of rows, column by column, since blocks of 16 x 16 pixels are common. A
    bit per cell says whether it differs from the one before. Then come the cells that do. At the
    end is a bit per cell for a future reference, if there is any. All is compressed with zlib.

    Args:
        motion_HW2: (dx, dy). Of a codec: float32 in pixels, stored in quarters of a pixel. Of
            optical flow: float16, stored as it is.
        future_HW: None: all references are past.
    """
    if motion_HW2.dtype == np.float16:
        stored_HW2 = np.ascontiguousarray(motion_HW2, "<f2")
    else:
        quarters_HW2 = motion_HW2 * np.float32(UNITS)
        with np.errstate(invalid="ignore"):
            stored_HW2 = quarters_HW2.astype("<i2")
        if not (stored_HW2 == quarters_HW2).all():
            raise UserError("a motion vector is finer than a quarter pixel, or longer than 8,191")
    pair_HW = stored_HW2.view(PAIR)[..., 0]
    rows, columns = pair_HW.shape
    # np.pad and np.append take longer than compressing.
    if rows % 2:
        pair_HW = np.concatenate([pair_HW, pair_HW[-1:]])
    pair_Z = pair_HW.reshape(-1, 2, columns).swapaxes(1, 2).ravel()
    new_Z = np.ones(len(pair_Z), bool)
    np.not_equal(pair_Z[1:], pair_Z[:-1], out=new_Z[1:])
    data = np.packbits(new_Z).tobytes() + pair_Z[new_Z].tobytes()
    if future_HW is not None and future_HW.any():
        data += np.packbits(future_HW).tobytes()
    return zlib.compress(data, LEVEL)
