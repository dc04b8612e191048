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

# Bytes of a video's pixels, up to which its frames stay in memory once they are read.
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


class Track:
    """The motion of a video's frames, and where they lie in the store.

    A track may be pickled, and used by threads and forked processes.

    Attributes:
        facts: the video's facts.
        frame: height and width of the frames whose pixels the vectors are in.
        has_mv_T: True for frames with motion information.
        time_T: times of the source's pictures in seconds, as FFmpeg shows them. NaN: it has none.
        offset_N, size_N, crc_N: of each frame's JPEG in the store's mp4.
        small: whether what is read stays in memory. Toy sets are read thousands of times.
        pixels: frames of a small video that were read, by number (`mgm.video.store.read_clips`).
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
                about = json.loads(archive.read("facts.json"))
                if (found := about.pop("format", 1)) != STORE:
                    raise NoMotion(
                        f"{self.path}: has format {found}, and this mgm reads {STORE}; run the "
                        "same `mgm prepare` again"
                    )
                self.facts = Facts(**about)
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
        facts, self.frame = self.facts, self.facts.size
        self.small = 3 * facts.frames * facts.height * facts.width <= SMALL
        self.pixels = dict[int, np.ndarray]()
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
        height, width = self.frame
        return (
            f"Track({self.path}: {self.facts.vectors}, {len(self)} frames of {height} x {width}, "
            f"{int(self.has_mv_T.sum())} with motion)"
        )

    def __getitem__(self, frames: slice | int | Sequence[int] | np.ndarray) -> Motion:
        """Return the motion of some frames: a slice, or numbers from 0 in any order.

        Raises:
            NoMotion: the file has changed.
            UserError: there is no such frame.
        """
        every = np.arange(len(self))
        index_T = every[frames] if isinstance(frames, slice) else np.atleast_1d(frames)
        whole = index_T.ndim == 1 and (index_T.dtype.kind in "iu" or not len(index_T))
        if not whole or not np.isin(index_T, every).all():
            raise UserError(f"{self.path}: has frames 0 to {len(self) - 1}, and not {frames}")
        return self.motion(index_T.astype(np.int64))

    def motion(
        self,
        index_T: np.ndarray,
        crop: Crop | None = None,
        size: int = 0,
        frame: tuple[int, int] = (0, 0),
    ) -> Motion:
        """Return the motion of frames that the video has.

        Args:
            crop, size, frame: return it under a crop (`Motion.under`). Nothing checks that it fits.
        """
        if self.small:
            vectors_THW2, reach_THW = (x[index_T] for x in self._whole)
        else:
            vectors_THW2, reach_THW = self._read(index_T)
        if crop:
            # The cells of a crop are few, and become floats after they are chosen.
            crop, part = touched(crop, size, frame, self.frame)
            vectors_THW2, reach_THW = vectors_THW2[part], reach_THW[part]
        scale = np.float32(1 if vectors_THW2.dtype == np.float16 else 1 / UNITS)
        table, moved_T = self._frames[index_T], self.has_mv_T[index_T]
        past_T, future_T = (np.where(moved_T, table[x], 1) for x in ("past", "future"))
        distance_THW = np.where(reach_THW == 1, future_T[:, None, None], past_T[:, None, None])
        np.subtract(reach_THW, 1, out=distance_THW, where=reach_THW > 1, casting="unsafe")
        return Motion(
            np.multiply(vectors_THW2, scale, dtype=np.float32),
            distance_THW.astype(np.float32),
            moved_T,
            self.frame,
            crop,
            size,
            self.kind_T[index_T],
            self.time_T[index_T],
        )

    @cached_property
    def _whole(self) -> tuple[np.ndarray, np.ndarray]:
        """The motion of all frames of a small video, as it is stored."""
        return self._read(np.arange(len(self)))

    def _read(self, index_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read frames' motion as it is stored: vectors in `UNITS`, or flow, and their reaches.

        The reaches are those of `mgm.video.motion.rasterise`.
        """
        rows, columns = map(cells, self.frame)
        kind = "<i2" if self.facts.vectors in ("source", "h264") else "<f2"
        # dx and dy lie apart in memory, which is faster to compute with.
        vectors_2THW = np.zeros((2, len(index_T), rows, columns), kind)
        reach_THW = np.zeros((len(index_T), rows, columns), np.uint8)
        try:
            with self._open() as file:
                for t in np.flatnonzero(self.has_mv_T[index_T]).tolist():
                    file.seek(int(self._start_N[index_T[t]]))
                    data = zlib.decompress(file.read(int(self._frames["packed"][index_T[t]])))
                    vectors = np.frombuffer(data, kind, 2 * rows * columns)
                    vectors_2THW[:, t] = vectors.reshape(2, rows, columns)
                    rest = np.frombuffer(data, np.uint8)[vectors.nbytes :]
                    if len(reaches := rest[cells(rows * columns) :]):
                        reach_THW[t] = reaches.reshape(rows, columns)
                    elif len(rest):
                        bits = np.unpackbits(rest, count=rows * columns)
                        reach_THW[t] = bits.reshape(rows, columns)
        except (OSError, ValueError, zlib.error) as error:
            raise NoMotion(f"{self.path}: its motion cannot be read ({error})") from None
        return np.moveaxis(vectors_2THW, 0, 3), reach_THW

    def _open(self) -> BinaryIO:
        return open(self.path, "rb", 0) if self.data is None else BytesIO(self.data)


def read_track(path: str) -> Track:
    """Return a track, from memory if its file has not changed. Small sets read them again."""
    try:
        stat = os.stat(path)
    except OSError:
        # It says why.
        return Track(path)
    return _kept(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(1000)
def _kept(path: str, size: int, mtime_ns: int) -> Track:
    return Track(path)


class TrackWriter:
    """Gathers a track's frames in order, and writes the file."""

    def __init__(self) -> None:
        self.kinds, self.packed = list[str](), list[bytes]()

    def add(
        self, kind: str, motion_HW2: np.ndarray | None = None, reach_HW: np.ndarray | None = None
    ) -> None:
        """Add a frame.

        Args:
            kind: its picture type.
            motion_HW2: (dx, dy) per cell. float32 of a codec is stored in quarters of a pixel,
                float16 of flow as it is. None: the frame has no motion information.
            reach_HW: of each vector (`mgm.video.motion.rasterise`). None: 0.
        """
        self.kinds.append(kind)
        self.packed.append(b"" if motion_HW2 is None else _packed(motion_HW2, reach_HW))

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


def _packed(motion_HW2: np.ndarray, reach_HW: np.ndarray | None) -> bytes:
    """Pack a frame's cells without loss: vectors, a bit per cell if any has a reach, then reaches.

    Reaches are written if one is more than 1. The bits are the cells whose reach is 1.
    """
    stored_HW2 = motion_HW2
    if motion_HW2.dtype == np.float32:
        quarters_HW2 = motion_HW2 * np.float32(UNITS)
        with np.errstate(invalid="ignore"):
            stored_HW2 = quarters_HW2.astype("<i2")
        if not (stored_HW2 == quarters_HW2).all():
            raise UserError("a motion vector is finer than a quarter pixel, or longer than 8,191")
    # All of dx, then all of dy.
    data = stored_HW2.transpose(2, 0, 1).tobytes()
    if reach_HW is not None and reach_HW.any():
        data += np.packbits(reach_HW == 1).tobytes()
        if reach_HW.max() > 1:
            data += reach_HW.astype(np.uint8).tobytes()
    return zlib.compress(data, LEVEL)
