"""Decode a video file that mgm did not write, once and from its start.

Frame i is the i-th picture that FFmpeg shows, whatever its time. Quarter turns and mirroring in
metadata, and the codec's cropping, are applied to frames and vectors, as players do. Cropping that
only the container states (a clean aperture) is not. Pixels of any depth become 8-bit RGB. Sample
aspect ratios are ignored.

Decoding uses one thread. With frame threads, the exported vectors differ from run to run, and a
decoder that stops early can hang.
"""

import re
import struct
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from functools import partial
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from mgm.errors import NoMotion, UserError
from mgm.video.clip import Clip
from mgm.video.compensation import luma, reach, residual
from mgm.video.motion import UPRIGHT, Rotation, rasterise
from mgm.video.references import NO_REFERENCES, REORDERED, Order, References, referring
from mgm.video.track import B_PICTURES, Facts, Track, TrackWriter

EXPORT_VECTORS = 1 << 28  # AV_CODEC_FLAG2_EXPORT_MVS
# AV_CODEC_FLAG_UNALIGNED: crop exactly. Otherwise FFmpeg crops less, for aligned memory.
UNALIGNED = 1
# FFmpeg's decoders of these codecs export motion vectors. Those of HEVC, VP8, VP9 and AV1 do not,
# although the paper names H.265.
CODECS_WITH_VECTORS = frozenset(
    [
        *("h264", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2"),
        *("h261", "h263", "flv1", "rv10", "rv20", "snow"),
    ]
)
# Before PyAV 19, a title in Latin-1 raises an error without "replace". PyAV 19 has no such option.
OLDER = int(av.__version__.split(".")[0]) < 19
open_file = partial(av.open, metadata_errors="replace") if OLDER else av.open
# Fields of FFmpeg's AVMotionVector, as motion-vector-extractor orders them.
COLUMNS = (
    *("source", "w", "h", "src_x", "src_y", "dst_x", "dst_y"),
    *("motion_x", "motion_y", "motion_scale"),
)
NO_VECTORS = np.empty(0, [(name, "<i4") for name in COLUMNS])
PACKET = np.dtype([("time_s", "<f8"), ("size", "<u4"), ("key", "?"), ("position", "<i8")])
MESSAGES = 100  # bytes: larger packets have a picture
MOST_DAMAGED = 0.05  # share of a file's packets that may not decode
JUMP = 10  # medians of the time between pictures. Longer ones are pauses, or joined files


class Picture:
    """A decoded picture.

    Attributes:
        kind: picture type: "I", "P", "B" or another of FFmpeg's.
        references: pictures that its vectors may point to, as the decoder has them.
        rotation: how the picture is turned and mirrored to be shown upright.
        vectors: exported motion vectors. None: the picture has no motion information.
    """

    def __init__(
        self,
        frame: av.VideoFrame,
        codec: str,
        rotation: Rotation = UPRIGHT,
        corner: tuple[int, int] = (0, 0),
        references: References = NO_REFERENCES,
    ):
        self.frame, self.kind, self.codec = frame, PictureType(frame.pict_type).name, codec
        self.references = references
        # `frame.side_data` would create a reference cycle with the frame. Then pictures would stay
        # in memory until Python's cycle collector runs.
        data: Any = SideDataContainer(frame)  # type: ignore[call-arg]
        self.rotation = _rotation(data.get("DISPLAYMATRIX")) or rotation
        self.vectors: np.ndarray | None = None
        self.exported = data.get("MOTION_VECTORS")
        # FFmpeg exports zeros for B-pictures of MPEG-4.
        blind = self.kind == "I" or (codec == "mpeg4" and self.kind in B_PICTURES)
        if not blind and self.exported is not None:
            self.vectors = self.exported.to_ndarray()
            if corner != (0, 0):
                self.vectors = self.vectors.copy()
                self.vectors["dst_x"] -= corner[0]
                self.vectors["dst_y"] -= corner[1]

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width as shown."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.rotation.swapped else (height, width)

    @property
    def blocks(self) -> np.ndarray:
        """Return the blocks as FFmpeg exports them, (N, 10) int32 (`COLUMNS`)."""
        if self.exported is None:
            return np.empty((0, len(COLUMNS)), np.int32)
        vectors = self.exported.to_ndarray()
        return np.stack([vectors[name] for name in COLUMNS], 1, dtype=np.int32, casting="unsafe")

    def rgb(self, reformatter: VideoReformatter) -> np.ndarray:
        """Return the pixels as shown, (H, W, 3) uint8, in the reformatter's own buffer."""
        plane = reformatter.reformat(self.frame, format="rgb24", threads=1).planes[0]
        return self.rotation.apply(plane_pixels(plane, 3))

    def cells(self) -> tuple[np.ndarray, ...]:
        """Return motion_HW2 and reach_HW of the frame as shown (`rasterise`), if it has motion."""
        if self.vectors is None:
            return ()
        reach_N = reach(self.vectors, self.frame, self.references)
        return rasterise(self.vectors, self.frame.height, self.frame.width, self.rotation, reach_N)

    def residual(self) -> tuple[np.ndarray, np.ndarray]:
        """Return residual_HW of the frame as shown, and intra_HW, its cells without a vector."""
        vectors = NO_VECTORS if self.vectors is None else self.vectors
        left_HW = residual(vectors, self.frame, self.references, self.codec == "h264")
        sides, ones_N = (self.frame.height, self.frame.width), np.ones(len(vectors), np.uint8)
        _, has_HW = rasterise(vectors, *sides, self.rotation, ones_N)
        return self.rotation.apply(left_HW), has_HW == 0


class Source:
    """A video file that is decoded once: iterating yields its pictures in order.

    Attributes:
        rate: pictures per second, as the file states them.
        size: height and width of the pictures as shown.
        kinds, times: types of the pictures so far, and their times in seconds.
        interlaced: how many of them are.
        packets, damaged: how many packets were read so far, and how many did not decode.
    """

    def __init__(self, path: str | Path, motion: bool = True, **options: str):
        """Open the file. `options` are those of FFmpeg's decoder."""
        self.path, self.motion = Path(path), motion
        if not self.path.is_file():
            raise UserError(f"{path}: is not a file")
        only_files = {"protocol_whitelist": "file"}
        try:
            # Without "file:", the name `http:...` would be an address.
            self.container: Any = open_file(f"file:{path}", options=only_files)
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{path}: cannot be read as a video ({error.strerror})") from None
        name, cover = self.container.format.name, av.stream.Disposition.attached_pic
        every = self.container.streams.video
        streams = [one for one in every if one.codec_context and not one.disposition & cover]
        # FFmpeg also opens text and pictures.
        if not streams or name in ("tty", "image2") or name.endswith("_pipe"):
            self.container.close()
            raise UserError(f"{path}: has no video that FFmpeg decodes")
        best = self.container.streams.best("video")
        self.stream = best if best in streams else streams[0]
        context = self.stream.codec_context
        context.thread_count, context.options = 1, options
        context.flags |= UNALIGNED
        if motion:
            context.flags2 |= EXPORT_VECTORS
        self.codec: str = context.codec.canonical_name
        self.order = Order(context) if motion else None
        # They cannot be read when the file is closed.
        self.rate = float(self.stream.average_rate or self.stream.guessed_rate or 25)
        self.listed, self.stated = self.stream.frames, self._stated(name)
        self.size, self.kinds, self.times, self.interlaced = (0, 0), list[str](), list[float](), 0
        self.packets, self.damaged, self.cut_off, self.end = 0, 0, False, 0.0

    def __iter__(self) -> Iterator[Picture]:
        """Yield the pictures, and close the file. Its end is checked too."""
        rotation, corner = UPRIGHT, (0, 0)
        with closing(self.container):
            for frame, references in referring(self._frames(), self.order):
                if not self.kinds:
                    self._require_colours(frame)
                    corner = self._corner(frame)
                picture = Picture(frame, self.codec, rotation, corner, references)
                if not self.kinds:
                    self.size, rotation = picture.size, picture.rotation
                if (picture.size, picture.rotation) != (self.size, rotation):
                    raise UserError(
                        f"{self.path}: the size or the rotation of its pictures changes at picture "
                        f"{len(self.kinds)}"
                    )
                self.kinds.append(picture.kind)
                self.times.append(frame.time if frame.time is not None else np.nan)
                self.interlaced += frame.interlaced_frame
                yield picture
        self._require_most()
        if self.stated:
            self._require_whole()

    def _require_colours(self, frame: av.VideoFrame) -> None:
        """Check that FFmpeg converts a frame's colours. BT.2020 may have constant luminance."""
        try:
            frame.reformat(16, 16, "rgb24")
        except av.FFmpegError:
            raise UserError(
                f"{self.path}: FFmpeg cannot convert its colours (space {frame.colorspace}) to RGB"
            ) from None

    def _require_most(self) -> None:
        """Check that most packets have decoded."""
        if not self.kinds:
            raise UserError(f"{self.path}: no picture decodes")
        # MP4 lists all packets, also those that were cut off, and those that an edit list hides.
        total = max(self.packets, self.listed) if self.cut_off else self.packets
        if (lost := self.damaged + total - self.packets) > MOST_DAMAGED * total:
            raise UserError(f"{self.path}: {lost:,} of {total:,} packets do not decode")

    def _stated(self, form: str) -> float:
        """Return the duration in seconds that the file's head states, if it lists no packets."""
        if form == "matroska,webm":
            return (self.container.duration or 0) / 1e6
        if form == "flv":
            # If it states none, FFmpeg guesses it from the bit rate.
            with self.path.open("rb") as file:
                found = re.search(rb"\x00\x08duration\x00(.{8})", file.read(4096), re.DOTALL)
            return struct.unpack(">d", found[1])[0] if found else 0.0
        return 0.0

    def demux(self) -> Generator[av.Packet]:
        """Yield the packets of the video."""
        # Sound may go on after the last picture, and all of it is stated.
        demuxed: Any = self.container.demux(*([] if self.stated else [self.stream]))
        # A PyAV generator that is not closed leaks 150 bytes.
        with closing(demuxed) as packets:
            for packet in packets:
                if self.stated and packet.pts is not None:
                    ends = packet.pts + (packet.duration or 0)
                    self.end = max(self.end, float(ends * packet.time_base))
                # Empty packets, which end a stream, have no `stream_index`.
                if packet.stream.index == self.stream.index:
                    yield packet

    def _require_whole(self) -> None:
        """Check that the file goes on for as long as it states.

        The last pictures may lack one that comes later in the file. If all others are evenly
        spaced, pictures are counted.
        """
        time_T = np.sort(self.times)
        steps, end = np.diff(time_T), self.end
        if len(steps) > REORDERED:
            step = float(np.median(steps))
            even = (np.abs(steps[:-REORDERED] / step - 1) < 0.5).all()
            # A longer gap is a pause.
            if even and steps.max() <= (REORDERED + 1) * step:
                end = min(end, float(time_T[0]) + len(time_T) * step)
        # The last picture may not state how long it is shown.
        longest = float(steps.max(initial=0)) if end == time_T[-1] else 0.0
        if end + longest < (1 - MOST_DAMAGED) * self.stated:
            raise UserError(
                f"{self.path}: is cut off after {end:.1f} of the {self.stated:.1f} s that it states"
            )

    def _frames(self) -> Iterator[av.VideoFrame]:
        """Yield all frames that decode. A packet that does not is skipped, as players do."""
        try:
            with closing(self.demux()) as packets:
                for packet in packets:
                    if packet.has_sidedata("encryption_info"):
                        raise UserError(f"{self.path}: is encrypted")
                    if packet.size:
                        self.packets, self.cut_off = self.packets + 1, packet.is_corrupt
                        if self.order:
                            self.order.add(packet)
                    try:
                        frames = self.stream.decode(packet)
                    except av.FFmpegError:
                        # Delimiters and messages alone are an error too, but no picture is lost.
                        self.damaged += packet.size > MESSAGES or not any(bytes(packet))
                        continue
                    yield from frames
        except av.FFmpegError:
            self.cut_off = True

    def _corner(self, shown: av.VideoFrame) -> tuple[int, int]:
        """Return left and top of the shown picture in the coded one, in pixels.

        Vectors are exported in coordinates of the coded picture. H.264 may cut off any side. FFmpeg
        does not say which, so this decodes the first picture once more without cropping, and
        compares.
        """
        context = self.stream.codec_context
        if not self.motion or context.name != "h264":
            return 0, 0
        down, across = context.coded_height - shown.height, context.coded_width - shown.width
        if down <= 0 and across <= 0:
            return 0, 0
        uncropped = Source(self.path, motion=False, apply_cropping="0")
        with closing(uncropped.container):
            coded = next(uncropped._frames())
        luma_HW, whole_HW = (plane_pixels(frame.planes[0])[..., 0] for frame in (shown, coded))
        for top, left in product(range(down + 1), range(across + 1)):
            part_HW = whole_HW[top : top + shown.height, left : left + shown.width]
            if np.array_equal(part_HW, luma_HW):
                return left, top
        return 0, 0

    @property
    def has_vectors(self) -> bool:
        """Return whether the file has motion vectors, as far as the pictures so far tell."""
        all_intra = len(self.kinds) > 1 and {*self.kinds} == {"I"}
        return self.codec in CODECS_WITH_VECTORS and not all_intra

    def require_vectors(self) -> None:
        """Check that the file has motion vectors."""
        if not self.has_vectors:
            kind = f"{self.codec}, I-frames alone" if self.kinds else self.codec
            raise NoMotion(
                f"{self.path}: has no motion vectors that FFmpeg exports ({kind}); `mgm prepare` "
                "encodes it so that it has some"
            )

    @property
    def fps(self) -> float:
        """Return the rate of the pictures so far.

        It is the file's own rate, unless it differs by more than a tenth from the mean rate of the
        pictures, jumps left out. Browsers' recordings state the clock's rate, fields count twice,
        and the times of joined files jump.
        """
        steps = np.diff(self.times)
        steps = steps[steps > 0]
        measured = self.rate
        if len(steps):
            measured = 1 / float(steps[steps <= JUMP * np.median(steps)].mean())
        return self.rate if abs(self.rate / measured - 1) <= 0.1 else measured

    def facts(self, vectors: str) -> Facts:
        """Return the facts of the pictures so far."""
        (height, width), count = self.size, len(self.kinds)
        sizes = width, height, width, height
        return Facts(count, self.fps, *sizes, self.codec, vectors, self.interlaced / count, 0)


def read(
    path: str | Path,
    frame_indices: Sequence[int] | np.ndarray | None = None,
    motion: bool = True,
    residual: bool = False,
) -> Clip:
    """Decode frames from the start of a file (`mgm.api.read`). None: all frames."""
    index_T = None if frame_indices is None else _indices(path, frame_indices)
    wanted = None if index_T is None else set(index_T.tolist())
    if residual and not motion:
        raise UserError(f"{path}: its residual needs motion; leave out motion=False")
    source, writer, reformatter = Source(path, motion), TrackWriter(), VideoReformatter()
    if motion:
        source.require_vectors()
    frame_of, left_of, intra_of = (dict[int, np.ndarray]() for _ in range(3))
    for index, picture in enumerate(source):
        chosen = wanted is None or index in wanted
        if chosen:
            frame_of[index] = np.array(picture.rgb(reformatter))
        if chosen and residual:
            if picture.frame.interlaced_frame:
                raise UserError(
                    f"{path}: frame {index} is interlaced, so its residual is not known; "
                    "deinterlace the file: ffmpeg -vf bwdif"
                )
            left_of[index], intra_of[index] = picture.residual()
        writer.add(picture.kind, *(picture.cells() if chosen else ()))
        # The distances of the last B-frames depend on the next reference. A file of I-frames alone
        # is known at its second kind of picture.
        done = wanted is not None and len(frame_of) == len(wanted)
        if done and (not motion or picture.kind not in ("I", *B_PICTURES)):
            break
    if index_T is None:
        index_T = np.arange(len(frame_of))
    _require_frames(source, index_T)
    clip = Clip(
        _stacked(frame_of, index_T), _track(source, writer).motion(index_T) if motion else None
    )
    if not residual:
        return clip
    return replace(
        clip, residual_THW=_stacked(left_of, index_T), intra_THW=_stacked(intra_of, index_T)
    )


def _stacked(array_of: dict[int, np.ndarray], index_T: np.ndarray) -> np.ndarray:
    """Return the arrays of frames in this order. The dictionary is emptied, to save memory."""
    one = next(iter(array_of.values()))
    stacked = np.empty((len(index_T), *one.shape), one.dtype)
    while array_of:
        index, array = array_of.popitem()
        stacked[index_T == index] = array
    return stacked


def source_track(path: str | Path) -> Track:
    """Return the motion of all frames of a video file.

    Raises:
        NoMotion: the codec has none, or all pictures are I-frames.
        UserError: the file cannot be read.
    """
    source, writer = Source(path), TrackWriter()
    source.require_vectors()
    for picture in source:
        writer.add(picture.kind, *picture.cells())
    return _track(source, writer)


def residual_share(path: str | Path, frames: set[int]) -> float:
    """Return the median over frames of the residual's size over that of the change of luma.

    NaN: none of the frames changes, or all are interlaced.
    """
    before_HW, shares = None, list[float]()
    for number, picture in enumerate(Source(path)):
        own_HW = luma(picture.frame).astype(np.int16)
        told = number in frames and not picture.frame.interlaced_frame
        if told and before_HW is not None and (change := float(np.abs(own_HW - before_HW).mean())):
            shares.append(float(np.abs(picture.residual()[0]).mean()) / change)
        before_HW = own_HW
        if number >= max(frames, default=0):
            break
    return float(np.median(shares)) if shares else float("nan")


def _track(source: Source, writer: TrackWriter) -> Track:
    """Return a track in memory, which belongs to no store."""
    source.require_vectors()
    writer.write(file := BytesIO(), source.facts("source"), {"time": source.times})
    return Track(source.path, file.getvalue())


def probe(path: str | Path) -> Facts:
    """Return the facts of a video file, which is decoded to its end.

    `vectors` is "source" if it has motion vectors, else "none".
    """
    source = Source(path, motion=False)
    for _ in source:
        pass
    return source.facts("source" if source.has_vectors else "none")


def packets(path: str | Path) -> np.ndarray:
    """Return a file's packets, a structured array (N,) of `PACKET` (`mgm.api.packets`)."""
    source, rows = Source(path, motion=False), list[tuple[float, int, bool, int]]()
    base = source.stream.time_base or Fraction(1)
    with closing(source.container), closing(source.demux()) as found:
        try:
            for packet in found:
                if packet.size:
                    pts, pos = packet.pts, packet.pos
                    time_s = np.nan if pts is None else pts * base.numerator / base.denominator
                    place = -1 if pos is None else pos
                    rows.append((time_s, packet.size, packet.is_keyframe, place))
        except av.FFmpegError as error:
            raise UserError(f"{path}: packet {len(rows)}: {error.strerror}") from None
    if not rows:
        raise UserError(f"{path}: has no packets of video")
    return np.array(rows, PACKET)


def blocks(path: str | Path, indices: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Return the blocks of frames, (blocks, 10) int32 of `COLUMNS` each (`mgm.api.blocks`)."""
    index_T = _indices(path, indices)
    source = Source(path)
    source.require_vectors()
    wanted, found = set(index_T.tolist()), dict[int, np.ndarray]()
    for index, picture in enumerate(source):
        if index in wanted:
            found[index] = picture.blocks
        # A file of I-frames alone is known at its second kind of picture.
        if len(found) == len(wanted) and picture.kind != "I":
            break
    source.require_vectors()
    _require_frames(source, index_T)
    return [found[index] for index in index_T.tolist()]


def _indices(path: str | Path, frames: Any) -> np.ndarray:
    """Return frame numbers as an array."""
    index_T = np.atleast_1d(np.asarray(frames))
    whole = index_T.ndim == 1 and index_T.dtype.kind in "iu" and len(index_T)
    if not whole or index_T.min() < 0:
        raise UserError(f"{path}: frames are {frames}; pass whole numbers from 0")
    return index_T


def _require_frames(source: Source, index_T: np.ndarray) -> None:
    """Check that the pictures so far are all that were asked for."""
    if (count := len(source.kinds)) <= index_T.max():
        raise UserError(f"{source.path}: has {count} frames, and no frame {index_T.max()}")


def plane_pixels(plane: Any, channels: int = 1) -> np.ndarray:
    """Return the pixels of a plane, (H, W, channels) uint8, in FFmpeg's own buffer."""
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return lines[:, : channels * plane.width].reshape(plane.height, plane.width, channels)


def _rotation(matrix: Any) -> Rotation | None:
    """Return how a display matrix turns and mirrors: it maps (x, y) to (a x + c y, b x + d y)."""
    if matrix is None:
        return None
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Rotation(False, d < 0, a < 0)
    return Rotation(True, b < 0, c < 0)
