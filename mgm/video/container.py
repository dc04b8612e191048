"""An open video file: its decoded pictures in presentation order, from a chosen frame on.

One thread, because with frame threads the exported vectors differ from run to run, and a decoder
that stops early can hang.

Frames are counted as a player shows them: frames that an edit list hides are not counted, and in a
video of variable frame rate frame i is the i-th picture, whatever the time.
"""

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
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
    from_sequence_header,
    is_idr,
    is_unused_b,
    mpeg_kind,
    shown_order,
)

CODECS_WITH_VECTORS = frozenset(
    {
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
    }
    # whose FFmpeg decoders export them; HEVC, VP8, VP9 and AV1 export none, although the paper names
    # H.265
)
EXPORT_VECTORS = 1 << 28  # AV_CODEC_FLAG2_EXPORT_MVS
B_PICTURES = ("B", "BI")


class NoVectors(UserError):
    """The file's codec carries no motion vectors that FFmpeg can export:

    true of the whole file, always.
    """


@dataclass(frozen=True)
class DecodedFrame:
    """One decoded picture:

    its type ("I", "P", "B" ...), its vectors (None where there is no motion information) and its
    pixels.
    """

    index: int
    frame: av.VideoFrame
    codec: str
    motion: bool  # whether to look for vectors

    @property
    def kind(self) -> str:
        return PictureType(self.frame.pict_type).name

    @cached_property
    def vectors(self) -> np.ndarray | None:
        if (
            not self.motion
            or self.kind == "I"
            or (self.codec == "mpeg4" and self.kind in B_PICTURES)
        ):
            return None
        # not `frame.side_data`: it and the frame would hold each other, and pictures pile up until
        # Python's cycle collector has its turn
        side_data = SideDataContainer(self.frame).get("MOTION_VECTORS")  # type: ignore[call-arg]
        return None if side_data is None else side_data.to_ndarray()

    @property
    def rotation(self) -> int:
        """Quarter turns counter-clockwise to show the frame upright."""
        return round(self.frame.rotation / 90) % 4

    @property
    def is_reference(self) -> bool:
        return self.kind not in B_PICTURES

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as shown."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.rotation % 2 else (height, width)

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """The vectors painted into cells of the frame as shown:

        `motion_HW2`, `future_HW`; zero and False where there are none.
        """
        vectors = np.empty(0, VECTOR) if self.vectors is None else self.vectors
        motion_1HW2, future_1HW = rasterise(
            vectors, [len(vectors)], self.frame.height, self.frame.width, self.rotation
        )
        return motion_1HW2[0], future_1HW[0]


@dataclass(frozen=True)
class Timeline:
    """What a container's packets say of the pictures in them, without decoding any.

    MP4 and Matroska store presentation times. AVI and MPEG streams do not: their pictures are put
    in order by their types, and the time of a picture is its number. Other streams are decoded from
    the start, as is VP8, whose packets may show nothing.
    """

    times: np.ndarray  # presentation times of all frames, sorted
    keys: list[tuple[int, int]]  # key frames: presentation time, and the offset to seek to
    start: int  # the offset of the first packet
    order: list[
        tuple[int, int]
    ]  # packets as decoded: presentation time (-1: none), number of IDR pictures up to it
    marks: dict[int, int] | None = (
        None  # numbered pictures alone: CRC-32 of a key frame's packet: its place in `order`
    )
    unused: frozenset[int] = (
        frozenset()
    )  # and the times of their B-pictures, to which no other picture refers

    def needed(self, wanted: Collection[int]) -> list[int]:
        """Presentation times of the packets that pictures of the times `wanted` may need, in
        decoding order.

        No picture needs one that is decoded after it, and none after an IDR picture one from before
        (ISO/IEC 14496-10, 3.69).
        """
        last = {period: at for at, (time, period) in enumerate(self.order) if time in wanted}
        return [time for at, (time, period) in enumerate(self.order) if at <= last.get(period, -1)]


class VideoReader:
    """An open video file; `open_video` opens and closes it."""

    def __init__(self, path: str | Path):
        self.path = path
        self._open()
        self.timeline = self._listed() if self._lists_times else self._counted()
        if self.timeline is None and not self._at_start:  # packets cannot be read again
            self.close()
            self._open()

    def _open(self) -> None:
        self.container = av.open(
            str(self.path), metadata_errors="replace"
        )  # a title in Latin-1 is no reason to fail
        self.stream, self._at_start = self._video_stream(), True
        self.stream.codec_context.thread_count = 1
        self.codec: str = self.stream.codec_context.codec.canonical_name

    def close(self) -> None:
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
        if name in ("tty", "image2") or name.endswith("_pipe"):  # text and pictures
            raise UserError(
                f"{self.path}: is {name.removesuffix('_pipe')} data, not a video; leave it out"
            )
        if streams[0].codec_context is None:
            raise UserError(
                f"{self.path}: no decoder for its video stream; transcode it: {transcode(self.path)}"
            )
        return streams[0]

    @property
    def has_vectors(self) -> bool:
        return self.codec in CODECS_WITH_VECTORS

    @property
    def skips_nonref(self) -> bool:
        """Pictures that nobody needs can be told from their packets."""
        return self.timeline is not None and (
            self.timeline.marks is not None or (self.codec == "h264" and self._prefix > 0)
        )

    @property
    def _lists_times(self) -> bool:
        return bool({"mp4", "matroska"} & set(self.container.format.name.split(",")))

    @property
    def _prefix(self) -> int:
        """Bytes of the length before each unit of a packet of H.264;

        0 where units are found by start codes.
        """
        extradata = self.stream.codec_context.extradata or b""
        return (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0

    def _listed(self) -> Timeline | None:
        """The timeline of a container that stores presentation times."""
        if self.codec == "vp8":
            return None
        by_time = (
            "matroska" in self.container.format.name
        )  # its index holds presentation times, MP4's decoding times
        prefix, period = self._prefix if self.codec == "h264" else 0, 0
        order, times, keys, start = (
            list[tuple[int, int]](),
            list[int](),
            list[tuple[int, int]](),
            None,
        )
        for packet in self._packets():
            if not packet.size:
                continue
            time = packet.pts
            if time is None:
                return None
            offset = time if by_time or packet.dts is None else packet.dts
            start = offset if start is None else min(start, offset)
            if packet.is_keyframe:
                keys.append((time, offset))
                period += prefix > 0 and is_idr(memoryview(packet), prefix)
            if not packet.is_discard:
                times.append(time)
            order.append((time, period))
        if start is None or not times or len(set(times)) < len(times):
            return None
        return Timeline(np.array(sorted(times), np.int64), sorted(keys), start, order)

    def _counted(self) -> Timeline | None:
        """The timeline of MPEG-1, 2 or 4 in AVI or an MPEG stream: a picture's time is its number,
        and every packet holds one picture.

        A stream with packets of another kind, or that begins with what earlier pictures are needed
        for, is decoded from the start.
        """
        if self.codec not in MPEG or self.container.format.name not in ("avi", "mpeg", "mpegts"):
            return None
        kinds, found = (
            list[str](),
            list[tuple[int, int, int]](),
        )  # of key frames: place, offset, CRC-32
        for packet in self._packets(unpacked=True):
            if not packet.size:
                continue
            kind = mpeg_kind(data := bytes(packet), self.codec)
            if kind is None:
                break
            if kind == "I" and packet.is_keyframe and packet.dts is not None:
                found.append(
                    (len(kinds), packet.dts, crc32(from_sequence_header(data, self.codec)))
                )
            kinds.append(kind)
        else:
            marks = {mark: place for place, _, mark in found}
            if found and found[0][0] == 0 and kinds[1:2] != ["B"] and len(marks) == len(found):
                shown = shown_order(kinds)
                keys = [(shown[place], offset) for place, offset, _ in found]
                unused = frozenset(time for time, kind in zip(shown, kinds) if kind == "B")
                return Timeline(
                    np.arange(max(shown) + 1),
                    keys,
                    keys[0][1],
                    [(time, 0) for time in shown],
                    marks,
                    unused,
                )
        return None

    def pictures(
        self, first: int = 0, motion: bool = True, wanted: Collection[int] | None = None
    ) -> Iterator[DecodedFrame]:
        """Decoded pictures in presentation order, from the key frame at or before frame `first` on.

        With `wanted`, pictures that are not among these frames and that none of them needs may be
        left out: decoding them is most of the time, and changes nothing else.
        """
        if motion and not self.has_vectors:
            raise NoVectors(
                f"{self.path}: its codec {self.codec} carries no motion vectors that FFmpeg exports; "
                f"transcode it ({transcode(self.path)}), guide masks by optical flow (`mgm flow`), or use a mask without motion guidance"
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
        nearest = [
            offset
            for time, offset in timeline.keys
            if time <= timeline.times[min(first, len(timeline.times) - 1)]
        ][-1:]
        times = (
            {int(timeline.times[i]) for i in wanted if i < len(timeline.times)}
            if wanted and self.skips_nonref
            else None
        )
        if (
            times and timeline.marks is not None
        ):  # these decoders export a picture's vectors as they decode the next reference
            times.update([time for time, _ in timeline.order if time > max(times)][:1])
        for offset in (
            *nearest,
            timeline.start,
        ):  # from the start where the nearest key frame turns out to lie behind `first`
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

    def _packets(self, unpacked: bool = False) -> Iterator[Any]:
        """Whole packets until the end of the file, or of what there is of it; the last one is empty
        and flushes the decoder.

        With `unpacked`, two pictures that MPEG-4 files of some encoders have in one packet come in
        two. PyAV's generator is closed by hand: one that is dropped half-way leaks 150 bytes.
        """
        self._at_start = False
        demuxed: Any = self.container.demux(self.stream)
        unpack = (
            BitStreamFilterContext("mpeg4_unpack_bframes", self.stream)
            if unpacked and self.codec == "mpeg4"
            else None
        )
        with suppress(av.FFmpegError), closing(demuxed) as packets:
            for packet in packets:
                if packet.is_corrupt:
                    continue
                flushes = not packet.size  # asked first: filtering empties a packet
                if unpack is not None:
                    yield from unpack.filter(None if flushes else packet)
                if unpack is None or flushes:
                    yield packet

    def _timed(self) -> Iterator[Any]:
        """Packets with their presentation times.

        Where those are numbers, they are counted from the first key frame that is recognised.
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

    def _frames(self, wanted: Collection[int] | None = None) -> Iterator[av.VideoFrame]:
        """All frames that decode. As players do, go on after a packet that does not; who wanted its
        frame complains.

        With `wanted`, only packets that frames of these presentation times may need are decoded.
        """
        for packet in (
            self._timed()
            if wanted is None or self.timeline is None
            else self._packets_for(wanted, self.timeline)
        ):
            with suppress(av.FFmpegError):
                yield from self.stream.decode(packet)

    def _packets_for(self, wanted: Collection[int], timeline: Timeline) -> Iterator[Any]:
        needed = timeline.needed(wanted)
        among, last = set(needed), needed[-1] if needed else None
        for packet in self._timed():
            if packet.pts in wanted or (packet.pts in among and not self._unused(packet)):
                yield packet
            if packet.pts == last:
                break
        yield None  # flushes the decoder

    def _unused(self, packet: Any) -> bool:
        """Tell whether no other picture refers to the one in a packet."""
        assert self.timeline is not None
        return packet.pts in self.timeline.unused or (
            self.codec == "h264" and is_unused_b(memoryview(packet), self._prefix)
        )


@contextmanager
def open_video(path: str | Path) -> Iterator[VideoReader]:
    """Open a video file, and close it whatever happens.

    Raises:
        UserError: the file is missing or no regular file, or FFmpeg finds no video in it.
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
            f"{path}: cannot be read as a video ({error.strerror}); replace the file or leave it out"
        ) from None


def transcode(path: str | Path) -> str:
    """The command that gives a video vectors."""
    return f"ffmpeg -i {quote(str(path))} -c:v libx264 -bf 2 {quote(Path(path).stem + '.h264.mp4')}"
