"""Tracks: the motion of a video's frames, and where each frame lies in the store's mp4.

A track is an .npz file, which `numpy.load` opens too:

    motion.npy    the cells of frame 0, of frame 1, ... Each frame is compressed by zlib, so a clip
                  reads its own frames only
    frames.npy    a row per frame (`FRAME`)
    facts.json    the format's number, and `Facts`

Methods: "codec" has the motion vectors of the source. "dis" and "raft-small" have optical flow
(`mgm.video.flow`). Reading a track needs NumPy alone.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipInfo

import numpy as np
from numpy.lib.format import write_array

from mgm.errors import NoMotion, UserError
from mgm.version import STORE
from mgm.video.crop import Crop
from mgm.video.motion import Motion, cells, reference_distance, touched

# Bytes of a video's pixels, up to which all of it is kept in memory once some of it is read.
SMALL = 500_000
# Picture types of B-frames. Other pictures may be references.
B_PICTURES = ("B", "BI")
FRAME = np.dtype(
    [
        ("kind", "S4"),  # picture type: "I", "P", "B" or another of FFmpeg's
        ("packed", "<u4"),  # bytes in motion.npy. 0: no motion information
        ("past", "<u4"),  # distances to the references in frames
        ("future", "<u4"),
        ("time", "<f8"),  # of the source's picture, in seconds. NaN: not known
        ("offset", "<u8"),  # of the JPEG in the store's mp4
        ("size", "<u4"),
        ("crc", "<u4"),  # CRC-32 of the JPEG
    ]
)
UNITS = 4  # per pixel. No codec for which FFmpeg exports vectors has finer ones
LEVEL = 4  # of zlib: nearly as small as 6, in half of the time


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a video of the store.

    Args:
        fps: the source's rate (`mgm.video.decode.Source.fps`).
        width, height, bytes: of the store's mp4. bytes is 0 if the track belongs to no store.
        source_width, source_height, codec: of the source as shown.
        vectors: where the motion is from. "source": the source's motion vectors, in its pixels.
            "h264": those of an H.264 encoding at the store's size. "dis", "raft-small": flow.
            "none": there is no motion (`mgm.video.decode.probe`).
        interlaced: share of the source's frames that are interlaced.
    """

    frames: int
    fps: float
    width: int
    height: int
    source_width: int
    source_height: int
    codec: str
    vectors: str
    interlaced: float
    bytes: int

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width of the frames whose pixels the vectors are in."""
        if self.vectors == "source":
            return self.source_height, self.source_width
        return self.height, self.width

    @property
    def small(self) -> bool:
        """Return whether the video is kept in memory. Toy sets are read thousands of times."""
        return 3 * self.frames * self.height * self.width <= SMALL


class Track:
    """The motion of a video's frames, and where they lie in the store.

    A track may be pickled, and used by threads and forked processes.

    Attributes:
        facts: the video's facts.
        has_mv_T: True for frames with motion information.
        time_T: times of the source's pictures in seconds, as FFmpeg shows them. NaN: it has none.
        offset_N, size_N, crc_N: of each frame's JPEG in the store's mp4.
    """

    def __init__(self, path: str | Path, data: bytes | None = None):
        """Read all but the motion.

        Args:
            data: the content of the file, if it is in memory. Then `path` is its name in messages.

        Raises:
            NoMotion: the file is missing, is not a whole track, or is of another format.
        """
        self.path, self.data = str(path), data
        try:
            with self._open() as file, zipfile.ZipFile(file) as archive:
                facts = json.loads(archive.read("facts.json"))
                if (found := facts.pop("format", 1)) != STORE:
                    raise NoMotion(
                        f"{self.path}: has format {found}, and this mgm reads {STORE}; run the "
                        "same `mgm prepare` again"
                    )
                self.facts = Facts(**facts)
                # An .npy file ends with the values.
                table, own = archive.read("frames.npy"), self.facts.frames * FRAME.itemsize
                frames = np.frombuffer(table, FRAME, offset=len(table) - own)
                # A member that is not compressed lies in the file as it is.
                info = archive.getinfo("motion.npy")
                file.seek(info.header_offset + 26)
                name, extra = np.frombuffer(file.read(4), "<u2").tolist()
                end = info.header_offset + 30 + name + extra + info.file_size
        except NoMotion:
            raise
        except OSError as error:
            raise NoMotion(f"{self.path}: cannot be read ({error.strerror})") from None
        except Exception as error:  # zipfile, zlib, json and NumPy raise many kinds
            raise NoMotion(f"{self.path}: is not a whole track ({error})") from None
        self._frames, packed_N = frames, frames["packed"].astype(np.int64)
        self._start_N = end - np.cumsum(packed_N[::-1])[::-1]
        self.has_mv_T = packed_N > 0
        self.time_T, self.crc_N = frames["time"], frames["crc"]
        self.offset_N, self.size_N = frames["offset"], frames["size"]

    @cached_property
    def kind_T(self) -> np.ndarray:
        """The picture type of each frame: "I", "P", "B" or another of FFmpeg's.

        It is that of the stream that has the vectors. Flow has no types: they are empty.
        """
        return self._frames["kind"].astype(str)

    @property
    def fps(self) -> float:
        """Return the source's frames per second."""
        return self.facts.fps

    def __len__(self) -> int:
        return self.facts.frames

    def __repr__(self) -> str:
        height, width = self.facts.size
        return (
            f"Track({self.path}: {self.facts.vectors}, {len(self)} frames of {height} x {width}, "
            f"{int(self.has_mv_T.sum())} with motion)"
        )

    def __getitem__(self, frames: slice | int | Sequence[int] | np.ndarray) -> Motion:
        """Return the motion of some frames: a slice, or numbers from 0."""
        return self.motion(np.arange(len(self))[frames] if isinstance(frames, slice) else frames)

    def motion(
        self,
        frames: int | Sequence[int] | np.ndarray,
        crop: Crop | None = None,
        size: int = 0,
        frame: tuple[int, int] | None = None,
    ) -> Motion:
        """Return the motion of frames, by their numbers from 0 in any order.

        Args:
            crop, size, frame: return it under a crop, as `Motion.under` does, in half of the time.

        Raises:
            NoMotion: the file has changed.
            UserError: there is no such frame.
        """
        index_T = np.atleast_1d(frames)
        whole = index_T.ndim == 1 and (index_T.dtype.kind in "iu" or not len(index_T))
        if not whole or not ((index_T >= 0) & (index_T < len(self))).all():
            raise UserError(f"{self.path}: has frames 0 to {len(self) - 1}, and not {frames}")
        index_T = index_T.astype(np.int64)
        sides = self.facts.size
        rows, columns = map(cells, sides)
        part = slice(0, rows), slice(0, columns)
        if crop:
            crop = crop.scaled(frame or sides, sides)
            part = touched(crop, size, sides)
        moved_T = self.has_mv_T[index_T]
        moved_N = index_T[moved_T]
        table = self._frames[moved_N]
        kind, scale = ("<i2", 1 / UNITS) if self.facts.vectors in ("source", "h264") else ("<f2", 1)
        shape = part[0].stop - part[0].start, part[1].stop - part[1].start
        # dx and dy lie apart in memory, which is faster to compute with.
        stored_2NHW = np.empty((2, len(moved_N), *shape), kind)
        future_NHW = np.zeros((len(moved_N), *shape), bool)
        try:
            with self._open() as file:
                for n, start in enumerate(self._start_N[moved_N].tolist()):
                    file.seek(start)
                    data = zlib.decompress(file.read(table["packed"][n]))
                    vectors_2HW = np.frombuffer(data, kind, 2 * rows * columns)
                    stored_2NHW[:, n] = vectors_2HW.reshape(2, rows, columns)[:, *part]
                    if flags := data[vectors_2HW.nbytes :]:
                        bits = np.unpackbits(np.frombuffer(flags, np.uint8), count=rows * columns)
                        future_NHW[n] = bits.reshape(rows, columns)[part]
        except (OSError, ValueError, zlib.error) as error:
            raise NoMotion(f"{self.path}: its motion cannot be read ({error})") from None
        vectors_2THW = np.zeros((2, len(index_T), *shape), np.float32)
        vectors_2THW[:, moved_T] = np.multiply(stored_2NHW, np.float32(scale), dtype=np.float32)
        past_N11, future_N11 = table["past"][:, None, None], table["future"][:, None, None]
        distance_THW = np.ones((len(index_T), *shape), np.float32)
        distance_THW[moved_T] = np.where(future_NHW, future_N11, past_N11)
        about = {"kind_T": self.kind_T[index_T], "time_T": self.time_T[index_T]}
        vectors_THW2 = np.moveaxis(vectors_2THW, 0, 3)
        return Motion(vectors_THW2, distance_THW, moved_T, sides, crop, size, **about)

    def _open(self) -> BinaryIO:
        return open(self.path, "rb", 0) if self.data is None else BytesIO(self.data)


def read_track(path: str) -> Track:
    """Return a track, from memory if its file has not changed. Small sets read them again."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise NoMotion(f"{path}: cannot be read ({error.strerror})") from None
    return _kept(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(1000)
def _kept(path: str, size: int, mtime_ns: int) -> Track:
    return Track(path)


class TrackWriter:
    """Gathers a track's frames in order, and writes the file."""

    def __init__(self) -> None:
        self.kinds, self.packed = list[str](), list[bytes]()

    def add(
        self, kind: str, motion_HW2: np.ndarray | None = None, future_HW: np.ndarray | None = None
    ) -> None:
        """Add a frame.

        Args:
            kind: its picture type.
            motion_HW2: (dx, dy) per cell. float32 of a codec is stored in quarters of a pixel,
                float16 of flow as it is. None: the frame has no motion information.
            future_HW: True if the vector refers to a future frame. None: nowhere.
        """
        self.kinds.append(kind)
        self.packed.append(b"" if motion_HW2 is None else _packed(motion_HW2, future_HW))

    def write(
        self,
        file: str | Path | BinaryIO,
        facts: Facts,
        columns: Mapping[str, Sequence[float] | np.ndarray],
    ) -> None:
        """Write the track.

        Args:
            columns: of `FRAME`: time, and offset, size and crc if the track belongs to an mp4.
        """
        frames = np.zeros(len(self.kinds), FRAME)
        frames["kind"], frames["packed"] = self.kinds, [len(data) for data in self.packed]
        is_reference_T = np.array([kind not in B_PICTURES for kind in self.kinds])
        frames["past"], frames["future"] = reference_distance(is_reference_T)
        for name, values in columns.items():
            frames[name] = values
        motion = np.frombuffer(b"".join(self.packed), np.uint8)
        # Equal tracks are equal files: `ZipInfo` has no time of writing.
        with zipfile.ZipFile(file, "w") as archive:
            about = json.dumps({"format": STORE, **asdict(facts)})
            archive.writestr(ZipInfo("facts.json"), about, zipfile.ZIP_DEFLATED)
            archive.writestr(ZipInfo("motion.npy"), _npy(motion))
            archive.writestr(ZipInfo("frames.npy"), _npy(frames), zipfile.ZIP_DEFLATED)


def _npy(array: np.ndarray) -> bytes:
    """Return the content of an .npy file."""
    write_array(file := BytesIO(), array, (1, 0))
    return file.getvalue()


def _packed(motion_HW2: np.ndarray, future_HW: np.ndarray | None) -> bytes:
    """Pack a frame's cells without loss: vectors, then a bit per cell if any is of the future."""
    stored_HW2 = motion_HW2
    if motion_HW2.dtype == np.float32:
        quarters_HW2 = motion_HW2 * np.float32(UNITS)
        with np.errstate(invalid="ignore"):
            stored_HW2 = quarters_HW2.astype("<i2")
        if not (stored_HW2 == quarters_HW2).all():
            raise UserError("a motion vector is finer than a quarter pixel, or longer than 8,191")
    # All of dx, then all of dy.
    data = stored_HW2.transpose(2, 0, 1).tobytes()
    if future_HW is not None and future_HW.any():
        data += np.packbits(future_HW).tobytes()
    return zlib.compress(data, LEVEL)
