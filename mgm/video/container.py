"""Open video files, and decode their pictures in presentation order from any frame.

Frames are counted as a player shows them. Frames that an edit list hides are not counted. In a
video of variable frame rate, frame i is the i-th picture, whatever its time.

Decoding uses one thread. With frame threads, the exported vectors differ from run to run, and a
decoder that stops early can hang.
"""

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from shlex import quote
from typing import Any
from zlib import crc32

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import PictureType

from mgm.errors import UserError
from mgm.reading import regular
from mgm.video.motion import VECTOR, rasterise
from mgm.video.packets import (
    MPEG,
    Timeline,
    counted_times,
    from_sequence_header,
    stored_times,
)

# FFmpeg's decoders of these codecs export motion vectors. Those of HEVC, VP8, VP9 and AV1 do not,
# although the paper names H.265.
CODECS_WITH_VECTORS = frozenset(
    [
        "h264",
        "mpeg1video",
        "mpeg2video",
        "mpeg4",
        "h263",
        "flv1",
        "msmpeg4v2",
        "msmpeg4v3",
        "wmv1",
        "wmv2",
    ]
)
EXPORT_VECTORS = 1 << 28  # AV_CODEC_FLAG2_EXPORT_MVS
B_PICTURES = ("B", "BI")
# Pixels. x264, JPEG and OpenCV have limits from 16,384 to 65,500.
LARGEST_SIDE = 16_384
# Formats that name other files or addresses, which FFmpeg would open, perhaps without end.
REFERRING = {"concat", "dash", "hls", "imf", "rtp", "rtsp", "sap", "sdp"}
# Options of FFmpeg, for files of unknown origin.
CAREFUL = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(
        name for name in sorted(av.formats_available) if not REFERRING & set(name.split(","))
    ),
}
# Before PyAV 19, a title in Latin-1 raises an error without "replace". PyAV 19 has no such option.
open_file = (
    partial(av.open, metadata_errors="replace")
    if int(av.__version__.split(".")[0]) < 19
    else av.open
)


class NoVectors(UserError):
    """FFmpeg exports no motion vectors for the file's codec."""


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded picture.

    Args:
        index: its number in presentation order.
        codec: the file's codec.
        motion: whether to look for motion vectors.
    """

    index: int
    frame: av.VideoFrame
    codec: str
    motion: bool

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
        # `frame.side_data` would create a reference cycle with the frame. Then pictures would stay
        # in memory until Python's cycle collector runs.
        side_data = SideDataContainer(self.frame).get("MOTION_VECTORS")  # type: ignore[call-arg]
        return None if side_data is None else side_data.to_ndarray()

    @property
    def rotation(self) -> int:
        """Return the quarter turns, counter-clockwise, that show the frame upright."""
        return round(self.frame.rotation / 90) % 4

    @property
    def is_reference(self) -> bool:
        """Return whether other pictures may refer to this one: all types except B."""
        return self.kind not in B_PICTURES

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width as shown."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.rotation % 2 else (height, width)

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

    `timeline` is None if the pictures' order does not follow from the packets. Such a file is
    decoded from its start. So is VP8, since some of its packets show no picture.
    """

    def __init__(self, path: str | Path):
        self.path = path
        self._open()
        self.timeline = self._read_timeline()
        # Packets cannot be read twice, so the file is opened again.
        if self.timeline is None and not self._at_start:
            self.close()
            self._open()

    def _open(self) -> None:
        # Without "file:", the name `http:...` would be an address.
        self.container = open_file(f"file:{self.path}", options=CAREFUL)
        self.stream, self._at_start = self._video_stream(), True
        self.stream.codec_context.thread_count = 1
        self.codec: str = self.stream.codec_context.codec.canonical_name

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def _video_stream(self) -> av.VideoStream:
        streams = [
            stream
            for stream in self.container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        name = self.container.format.name
        if not streams:
            raise UserError(f"{self.path}: has no video stream; replace the file or leave it out")
        # FFmpeg also opens text and pictures.
        if name in ("tty", "image2") or name.endswith("_pipe"):
            raise UserError(
                f"{self.path}: is {name.removesuffix('_pipe')} data, not a video; leave it out"
            )
        if streams[0].codec_context is None:
            raise UserError(
                f"{self.path}: FFmpeg has no decoder for its video stream; "
                f"transcode it: {transcode(self.path)}"
            )
        context = streams[0].codec_context
        if max(context.width, context.height) > LARGEST_SIDE:
            raise UserError(
                f"{self.path}: is {context.width} x {context.height} pixels, and a side has at most"
                f" {LARGEST_SIDE:,} here; scale it down, or leave it out"
            )
        return streams[0]

    @property
    def has_vectors(self) -> bool:
        """Return whether FFmpeg exports motion vectors for the codec."""
        return self.codec in CODECS_WITH_VECTORS

    @property
    def skips_nonref(self) -> bool:
        """Return whether pictures that no other picture needs can be skipped."""
        return self.timeline is not None and (
            self.timeline.marks is not None or self.codec == "h264"
        )

    def _read_timeline(self) -> Timeline | None:
        names = set(self.container.format.name.split(","))
        if names & {"mp4", "matroska"} and self.codec != "vp8":
            extradata = self.stream.codec_context.extradata or b""
            # The size of the length field before each unit. 0: start codes mark units.
            is_avc = self.codec == "h264" and len(extradata) > 4 and extradata[0] == 1
            prefix = (extradata[4] & 3) + 1 if is_avc else 0
            return stored_times(self._packets(), "matroska" in names, prefix)
        if names & {"avi", "mpeg", "mpegts"} and self.codec in MPEG:
            return counted_times(self._packets(unpacked=True), self.codec)
        return None

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
            NoVectors: `motion`, and the codec has none.
        """
        if motion and not self.has_vectors:
            raise NoVectors(
                f"{self.path}: its codec {self.codec} has no motion vectors that FFmpeg exports; "
                f"transcode it ({transcode(self.path)}), guide masks by optical flow "
                "(`mgm flow`), or use a mask without motion guidance"
            )
        if motion:
            self.stream.codec_context.flags2 |= EXPORT_VECTORS
        decoded = (
            enumerate(self._frames())
            if self.timeline is None
            else self._from_key(self.timeline, first, wanted)
        )
        for index, frame in decoded:
            yield DecodedFrame(index, frame, self.codec, motion)

    def _from_key(
        self, timeline: Timeline, first: int, wanted: Collection[int] | None
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        index_of = {int(time): index for index, time in enumerate(timeline.times)}
        first_time = timeline.times[min(first, len(timeline.times) - 1)]
        nearest = [offset for time, offset in timeline.keys if time <= first_time][-1:]
        times = None
        if wanted and self.skips_nonref:
            times = {int(timeline.times[i]) for i in wanted if i < len(timeline.times)}
        # MPEG decoders export a picture's vectors when they decode the next reference picture.
        if times and timeline.marks is not None:
            times.update([time for time, _ in timeline.order if time > max(times)][:1])
        # Decode from the start of the file if the nearest key frame is after `first`.
        for offset in (*nearest, timeline.start):
            self.container.seek(offset, stream=self.stream)
            frames = (
                (index_of[frame.pts], frame)
                for frame in self._frames(times)
                if frame.pts in index_of
            )
            head = next(frames, None)
            if head is not None and (head[0] <= first or offset == timeline.start):
                yield head
                yield from frames
                return

    def _frames(self, wanted: Collection[int] | None = None) -> Iterator[av.VideoFrame]:
        """Yield all frames that decode, or only those that the times `wanted` may need.

        A packet that does not decode is skipped, as players do. The caller reports a missing frame.
        """
        # An earlier pass may have stopped at a picture that it skipped.
        self.stream.codec_context.skip_frame = "DEFAULT"
        packets = self._timed_packets()
        if wanted is not None and self.timeline is not None:
            packets = self._needed_packets(packets, wanted, self.timeline)
        for packet in packets:
            with suppress(av.FFmpegError):
                yield from self.stream.decode(packet)

    def _needed_packets(
        self, packets: Iterator[Any], wanted: Collection[int], timeline: Timeline
    ) -> Iterator[Any]:
        """Yield the packets that the wanted pictures may need.

        The decoder skips a B-picture that is not wanted and that no other picture refers to. In a
        file without B-pictures it skips none, since every P-picture counts as a reference in the
        distances.
        """
        context, reorders = self.stream.codec_context, timeline.reorders
        needed = timeline.needed(wanted)
        among, last = set(needed), needed[-1] if needed else None
        for packet in packets:
            if packet.pts in among:
                decoded = packet.pts in wanted or not reorders
                context.skip_frame = "DEFAULT" if decoded else "NONREF"
                yield packet
            if packet.pts == last:
                break
        yield None  # flushes the decoder

    def _timed_packets(self) -> Iterator[Any]:
        """Yield packets with their presentation times.

        If the file stores no times, frames are counted from the first recognised key frame.
        """
        if self.timeline is None or self.timeline.marks is None:
            yield from self._packets()
            return
        order, place = self.timeline.order, -1
        for packet in self._packets(unpacked=True):
            if packet.size:
                if place >= 0:
                    place += 1
                elif packet.is_keyframe:
                    data = from_sequence_header(bytes(packet), self.codec)
                    place = self.timeline.marks.get(crc32(data), -1)
                    packet = packet if len(data) == packet.size else av.Packet(data)
                if not 0 <= place < len(order) or order[place][0] < 0:
                    continue
                packet.pts = order[place][0]
            yield packet

    def _packets(self, unpacked: bool = False) -> Iterator[Any]:
        """Yield complete packets to the end of the file, or to where it was cut off.

        The last packet is empty and flushes the decoder. Some MPEG-4 encoders put two pictures into
        one packet. With `unpacked`, they come in two packets.
        """
        self._at_start = False
        demuxed: Any = self.container.demux(self.stream)
        unpack = (
            BitStreamFilterContext("mpeg4_unpack_bframes", self.stream)
            if unpacked and self.codec == "mpeg4"
            else None
        )
        # A PyAV generator that is not closed leaks 150 bytes.
        with suppress(av.FFmpegError), closing(demuxed) as packets:
            for packet in packets:
                if packet.is_corrupt:
                    continue
                # Read the size first, since filtering empties a packet.
                flushes = not packet.size
                if unpack is not None:
                    yield from unpack.filter(None if flushes else packet)
                if unpack is None or flushes:
                    yield packet


@contextmanager
def open_video(path: str | Path) -> Iterator[VideoReader]:
    """Open a video file, and close it at the end of the block.

    Raises:
        UserError: the file is missing or not a regular file, or FFmpeg finds no video in it.
    """
    try:
        regular(Path(path))
        with closing(VideoReader(path)) as video:
            yield video
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; check the path, or prepare the dataset again"
        ) from None
    except (av.FFmpegError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as a video ({error.strerror}); "
            "replace the file or leave it out"
        ) from None


def transcode(path: str | Path) -> str:
    """Return the command that makes a copy of a video with motion vectors."""
    return f"ffmpeg -i {quote(str(path))} -c:v libx264 -bf 2 {quote(Path(path).stem + '.h264.mp4')}"
