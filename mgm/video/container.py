"""Open video files, and decode their pictures in presentation order from any frame.

Frames are counted as a player shows them. Frames that an edit list hides are not counted. In a
video of variable frame rate, frame i is the i-th picture, whatever its time.

Decoding uses one thread. With frame threads, the exported vectors differ from run to run, and a
decoder that stops early can hang.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from shlex import quote
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from mgm.errors import FULL, NoMotion, UserError
from mgm.reading import regular
from mgm.video.motion import UPRIGHT, VECTOR, Rotation, rasterise
from mgm.video.packets import SequenceHeader, Slices, Timeline, stored_times
from mgm.video.videos import CODECS_WITH_VECTORS, LARGEST_SIDE

EXPORT_VECTORS = 1 << 28  # AV_CODEC_FLAG2_EXPORT_MVS
# AV_CODEC_FLAG_UNALIGNED: crop exactly. Otherwise FFmpeg crops less, for aligned memory.
UNALIGNED = 1
B_PICTURES = ("B", "BI")
JUMP = 10  # A step of more than 10 median steps from picture to picture is a jump.
# Formats that name other files or addresses, which FFmpeg would open, perhaps without end.
REFERRING = {"concat", "dash", "hls", "imf", "rtp", "rtsp", "sap", "sdp"}
# Options of FFmpeg, for files of unknown origin.
CAREFUL = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(
        name for name in sorted(av.formats_available) if not REFERRING & set(name.split(","))
    ),
}
# For a copy of ours: FFmpeg looks for nothing in its pictures, since its header says it. Otherwise
# FFmpeg would decode the first ones whenever the file is opened.
KNOWN = {"options": CAREFUL | {"probesize": "32"}, "stream_options": [{"skip_frame": "all"}]}
# Before PyAV 19, a title in Latin-1 raises an error without "replace". PyAV 19 has no such option.
open_file = (
    partial(av.open, metadata_errors="replace")
    if int(av.__version__.split(".")[0]) < 19
    else av.open
)


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded picture.

    Args:
        index: its number in presentation order.
        codec: the file's codec.
        motion: whether to look for motion vectors.
        corner: left and top of the shown picture in the coded one, in pixels.
    """

    index: int
    frame: av.VideoFrame
    codec: str
    motion: bool
    corner: tuple[int, int] = (0, 0)

    @property
    def kind(self) -> str:
        """Return the picture type: "I", "P", "B" or another of FFmpeg's."""
        return PictureType(self.frame.pict_type).name

    @cached_property
    def vectors(self) -> np.ndarray | None:
        """Return the exported motion vectors; None if the picture has no motion information."""
        if not self.motion or self.kind == "I":
            return None
        # FFmpeg exports zeros for B-pictures of MPEG-4.
        if self.codec == "mpeg4" and self.kind in B_PICTURES:
            return None
        if (data := self._side_data("MOTION_VECTORS")) is None:
            return None
        vectors, (left, top) = data.to_ndarray(), self.corner
        if left or top:
            vectors = vectors.copy()
            for name, pixels in (("x", left), ("y", top)):
                vectors[f"src_{name}"] -= pixels
                vectors[f"dst_{name}"] -= pixels
        return vectors

    @cached_property
    def rotation(self) -> Rotation:
        """Return how the frame is turned and mirrored to be shown upright.

        The display matrix maps (x, y) to (a x + c y, b x + d y).
        """
        if (data := self._side_data("DISPLAYMATRIX")) is None:
            return UPRIGHT
        a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return Rotation(False, d < 0, a < 0)
        return Rotation(True, b < 0, c < 0)

    def _side_data(self, name: str) -> Any:
        # `frame.side_data` would create a reference cycle with the frame. Then pictures would stay
        # in memory until Python's cycle collector runs.
        return SideDataContainer(self.frame).get(name)  # type: ignore[call-arg]

    @property
    def is_reference(self) -> bool:
        """Return whether other pictures may refer to this one: all types except B."""
        return self.kind not in B_PICTURES

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width as shown."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.rotation.swapped else (height, width)

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Rasterise the vectors into cells of the frame as shown.

        Returns:
            motion_HW2 and future_HW. Cells without a vector have zero and False.
        """
        vectors = np.empty(0, VECTOR) if self.vectors is None else self.vectors
        motion_1HW2, future_1HW = rasterise(
            vectors, [len(vectors)], self.frame.height, self.frame.width, self.rotation
        )
        return motion_1HW2[0], future_1HW[0]


class VideoReader:
    """An open video file. `open_video` opens and closes it.

    `timeline` is None if the pictures' order does not follow from the packets: the file stores no
    times or wrong ones, or H.264 may have fields or VP8 hidden pictures. Such a file is decoded
    from its start, and its frames are numbered in the decoder's order.
    """

    def __init__(
        self,
        path: str | Path,
        timeline: Timeline | None = None,
        container: str = "",
        copy: bool = False,
    ):
        self.path = path
        # Its H.264's header, whether all pictures are I-frames, and FFmpeg's name of the container.
        self.timeline, self.header, self.intra, self.format = (
            (timeline, SequenceHeader(), False, container) if container else _facts(path)
        )
        # With a container's name, FFmpeg may find another frame rate.
        self._known = container or None, copy
        self.container, self.stream = _opened(path, *self._known)
        self.codec: str = self.stream.codec_context.codec.canonical_name
        self._reformatter, self._shape = VideoReformatter(), tuple[int, ...]()

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    @property
    def has_vectors(self) -> bool:
        """Return whether FFmpeg exports motion vectors for the file."""
        return self.codec in CODECS_WITH_VECTORS and not self.intra

    @property
    def skips_nonref(self) -> bool:
        """Return whether pictures that no other picture needs can be skipped."""
        return self.timeline is not None and self.codec == "h264"

    def pixels(self, picture: DecodedFrame) -> np.ndarray:
        """Return a picture's pixels as shown, uint8 RGB, in FFmpeg's own buffer.

        Raises:
            UserError: it has another size than the pictures before.
        """
        plane = self._reformatter.reformat(picture.frame, format="rgb24", threads=1).planes[0]
        frame_HWC = picture.rotation.apply(plane_pixels(plane, 3))
        if self._shape and frame_HWC.shape != self._shape:
            now, before = (f"{shape[0]} x {shape[1]}" for shape in (frame_HWC.shape, self._shape))
            raise UserError(
                f"{self.path}: frame {picture.index} has {now} pixels, earlier frames {before}; "
                f"transcode it: {transcode(self.path)}"
            )
        self._shape = frame_HWC.shape
        return frame_HWC

    def rate(self, times: Sequence[int]) -> float:
        """Return the frames per second of pictures with these presentation times.

        It is the file's own rate, unless the stored times contradict it by more than a tenth.
        Browsers' recordings state the clock's rate, and fields count twice. Jumps of broadcast
        streams are left out. Times that are off by a few pictures are sorted.
        """
        stated = float(self.stream.average_rate or self.stream.guessed_rate or 0)
        if len(times) < 2:
            return stated
        moves = np.abs(np.diff(times))
        jumps = moves > JUMP * np.median(moves) if not _one_clock(self.container) else moves < 0
        parts = np.split(np.asarray(times), np.flatnonzero(jumps) + 1)
        steps = np.concatenate([np.diff(np.sort(part)) for part in parts])
        seconds, shown = float(steps.sum() * (self.stream.time_base or 0)), len(steps)
        if seconds <= 0 or abs(stated * seconds - shown) <= max(shown / 10, 1):
            return stated
        return shown / seconds

    def pictures(
        self, first: int = 0, motion: bool = True, wanted: Collection[int] | None = None
    ) -> Iterator[DecodedFrame]:
        """Yield decoded pictures in presentation order.

        Args:
            first: start at the key frame at or before this frame.
            motion: export motion vectors.
            wanted: frames that are needed. Other frames may be skipped if decoding does not need
                them. Skipping saves most of the time.

        Raises:
            NoMotion: `motion`, and the file has none.
        """
        if motion and not self.has_vectors:
            why = "its pictures are all I-frames, which have no motion vectors"
            if not self.intra:
                why = f"its codec {self.codec} has no motion vectors that FFmpeg exports"
            raise NoMotion(
                f"{self.path}: {why}; transcode it ({transcode(self.path)}), use flow (`mgm track "
                "--method dis`) or an unguided mask"
            )
        if motion:
            self.stream.codec_context.flags2 |= EXPORT_VECTORS
        corner = self.header.left, self.header.top
        decoded = (
            enumerate(self._frames())
            if self.timeline is None
            else self._from_key(self.timeline, first, wanted)
        )
        for index, frame in decoded:
            yield DecodedFrame(index, frame, self.codec, motion, corner)

    def _from_key(
        self, timeline: Timeline, first: int, wanted: Collection[int] | None
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        needed = None
        if wanted and self.skips_nonref:
            needed = {index for index in wanted if index < len(timeline.times_T)}
        # Decode from the start of the file if the nearest key frame is after `first`.
        for time in timeline.seeks(first):
            if time == timeline.start and time not in timeline.key_K:
                # FFmpeg seeks to key frames only.
                exported = self.stream.codec_context.flags2
                self.close()
                self.container, self.stream = _opened(self.path, *self._known)
                self.stream.codec_context.flags2 = exported
            else:
                self.container.seek(time, stream=self.stream)
            frames = (
                (index, frame)
                for frame in self._frames(needed)
                if (index := timeline.frame_at(frame.pts)) is not None
            )
            head = next(frames, None)
            if head is not None and (head[0] <= first or time == timeline.start):
                yield head
                yield from frames
                return

    def _frames(self, wanted: Collection[int] | None = None) -> Iterator[av.VideoFrame]:
        """Yield all frames that decode, or only those that the frames `wanted` may need.

        A packet that does not decode is skipped, as players do. The caller reports a missing frame.
        """
        packets = _packets(self.container, self.stream)
        if wanted is not None and self.timeline is not None:
            packets = self._needed_packets(packets, wanted, self.timeline)
        for packet in packets:
            with suppress(av.FFmpegError):
                yield from self.stream.decode(packet)

    def _needed_packets(
        self, packets: Iterator[Any], wanted: Collection[int], timeline: Timeline
    ) -> Iterator[Any]:
        """Yield the packets that the wanted frames may need. No picture needs later packets.

        Pictures that are not wanted and that no other picture refers to are left out. In a file
        without B-pictures none is, since every P-picture counts as a reference in the distances.
        """
        left_out = set[int]()
        if timeline.reorders and wanted:
            start, times_T = timeline.seeks(min(wanted))[0], timeline.times_T
            disposable_T = (
                timeline.disposable_T & (times_T >= start) & (times_T <= times_T[max(wanted)])
            )
            left_out = set(times_T[disposable_T].tolist()) - set(times_T[list(wanted)].tolist())
        end = timeline.times_T[max(wanted, key=timeline.packet_T.__getitem__)] if wanted else None
        for packet in packets:
            if packet.pts not in left_out:
                yield packet
                if packet.pts == end:
                    break
        yield None  # flushes the decoder


def _opened(
    path: str | Path, container: str | None = None, copy: bool = False
) -> tuple[Any, av.VideoStream]:
    """Open a file, and choose its video: the default one, else the best one for FFmpeg."""
    # Without "file:", the name `http:...` would be an address.
    how: dict[str, Any] = KNOWN if copy else {"options": CAREFUL}
    file = open_file(f"file:{path}", format=container, **how)
    try:
        stream = _video_stream(path, file)
    except UserError:
        file.close()
        raise
    stream.codec_context.thread_count = 1
    stream.codec_context.flags |= UNALIGNED
    return file, stream


def _video_stream(path: str | Path, container: Any) -> av.VideoStream:
    flags = av.stream.Disposition
    streams = [s for s in container.streams.video if not s.disposition & flags.attached_pic]
    name = container.format.name
    if not streams:
        raise UserError(f"{path}: has no video stream; replace the file or leave it out")
    # FFmpeg also opens text and pictures.
    if name in ("tty", "image2") or name.endswith("_pipe"):
        raise UserError(f"{path}: is {name.removesuffix('_pipe')} data, not a video; leave it out")
    defaults = [stream for stream in streams if stream.disposition & flags.default]
    best = container.streams.best("video")
    stream = defaults[0] if len(defaults) == 1 else best if best in streams else streams[0]
    context = stream.codec_context
    if context is None:
        raise UserError(
            f"{path}: FFmpeg has no decoder for its video stream; transcode it: {transcode(path)}"
        )
    if max(context.width, context.height) > LARGEST_SIDE:
        raise UserError(
            f"{path}: is {context.width} x {context.height} pixels, and a side has at most "
            f"{LARGEST_SIDE:,} here; scale it down, or leave it out"
        )
    return stream


def plane_pixels(plane: Any, channels: int) -> np.ndarray:
    """Return the pixels of a plane, (H, W, channels) uint8, in FFmpeg's own buffer."""
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return lines[:, : channels * plane.width].reshape(plane.height, plane.width, channels)


def _facts(path: str | Path) -> tuple[Timeline | None, SequenceHeader, bool, str]:
    """Return what a file's packets say of it, in the order of `VideoReader`'s attributes."""
    stat = Path(path).stat()
    return _read_packets(str(path), stat.st_size, stat.st_mtime_ns)


# Reading the times takes as long as reading the file, so they are kept while it stays the same.
@lru_cache(maxsize=512)
def _read_packets(
    path: str, size: int, time_ns: int
) -> tuple[Timeline | None, SequenceHeader, bool, str]:
    container, stream = _opened(path)
    with closing(container):
        context, name = stream.codec_context, container.format.name.partition(",")[0]
        codec, slices = context.codec.canonical_name, Slices(context.extradata or b"")
        packets, times, headers = _clear(path, container, stream), None, set[SequenceHeader]()
        if codec == "h264":
            packets = slices.read(packets)
        if codec != "vp8" and _one_clock(container):
            times = stored_times(packets)
        if codec == "h264":
            # Read on to the end of the file, if a wrong time ended the search.
            deque(packets, 0)
            headers = slices.headers
        if len({(header.left, header.top) for header in headers}) > 1:
            raise UserError(f"{path}: its cropping changes; transcode it: {transcode(path)}")
        header = next(iter(headers), SequenceHeader())
        # Times that were made up from packets' order contradict pictures that are reordered.
        reorders = "B" in slices.kinds if codec == "h264" else context.has_b_frames
        if times and (header.fields or (reorders and not times.reorders)):
            times = None
        if times:
            times = replace(times, disposable_T=np.isin(times.times_T, list(slices.disposable)))
        # A file that begins with its first picture needs no decoding.
        if times and times.times_T[0] not in times.key_K:
            times = _shown(path, times, name)
        return times, header, slices.intra, name


def _shown(path: str, timeline: Timeline, container: str) -> Timeline | None:
    """Return the timeline without the frames before the first that decodes from the file's start.

    They refer to frames that were cut off, and FFmpeg does not count them. It is None if FFmpeg
    makes up a picture for one that was cut off, as for MPEG-4. It counts such a picture.
    """
    with closing(VideoReader(path, timeline, container)) as video:
        for frame in video._frames():
            if (index := timeline.frame_at(frame.pts)) is not None:
                made_up = frame.pict_type == PictureType.NONE and not frame.key_frame
                return None if made_up else timeline.starting(index)
    return timeline


def _one_clock(container: Any) -> bool:
    """Return whether the format stores the pictures' times. Those of broadcast streams may jump."""
    return bool({"mp4", "matroska"} & set(container.format.name.split(",")))


def _packets(container: Any, stream: av.VideoStream) -> Iterator[Any]:
    """Yield complete packets to the end of the file, or to where it was cut off.

    The last packet is empty and flushes the decoder. FFmpeg marks a packet that was cut off, and
    the first one after a gap or a joint of a stream, which is whole.
    """
    demuxed: Any = container.demux(stream)
    marked = None
    # A PyAV generator that is not closed leaks 150 bytes.
    with suppress(av.FFmpegError), closing(demuxed) as packets:
        for packet in packets:
            if marked is not None and packet.size:
                yield marked
            marked = packet if packet.is_corrupt else None
            if marked is None:
                yield packet


def _clear(path: str, container: Any, stream: av.VideoStream) -> Iterator[Any]:
    """Yield the packets of a file. Refuse one that is encrypted."""
    for packet in _packets(container, stream):
        if packet.has_sidedata("encryption_info"):
            raise UserError(f"{path}: is encrypted; decrypt it, or leave it out")
        yield packet


@contextmanager
def open_video(
    path: str | Path, timeline: Timeline | None = None, container: str = "", copy: bool = False
) -> Iterator[VideoReader]:
    """Open a video file, and close it at the end of the block.

    Args:
        timeline, container: its times, as far as they are known, and FFmpeg's name of its
            container, as a track has them. Without a name, both are read from the file.
        copy: whether the file is a copy of ours (`mgm.data.transcode`).

    Raises:
        UserError: the file is missing or not a regular file, or FFmpeg finds no video in it.
    """
    try:
        regular(Path(path))
        with closing(VideoReader(path, timeline, container, copy)) as video:
            yield video
    except (av.FFmpegError, OSError) as error:
        # The block may also write files.
        if error.errno in FULL:
            raise
        raise UserError(f"{path}: cannot be read as a video ({error.strerror})") from None


def transcode(path: str | Path) -> str:
    """Return the command that makes a copy of a video with motion vectors."""
    return f"ffmpeg -i {quote(str(path))} -c:v libx264 -bf 2 {quote(Path(path).stem + '.h264.mp4')}"
