"""An open video file: its decoded pictures in presentation order, from a chosen frame on.

One thread, because with frame threads the exported vectors differ from run to run, and a decoder that stops early can hang.

Frames are counted as a player shows them: frames that an edit list hides are not counted, and in a video of variable frame rate frame i is
the i-th picture, whatever the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType

from mgm.errors import UserError
from mgm.video.motion import VECTOR, paint, turn

CODECS_WITH_VECTORS = frozenset(
    {"h264", "mpeg1video", "mpeg2video", "mpeg4", "h263", "flv1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2"}
)  # whose FFmpeg decoders export them; HEVC, VP8, VP9 and AV1 export none, although the paper names H.265
EXPORT_VECTORS = 1 << 28  # AV_CODEC_FLAG2_EXPORT_MVS
B_PICTURES = ("B", "BI")


class NoVectors(UserError):
    """The file's codec carries no motion vectors that FFmpeg can export: true of the whole file, always."""


@dataclass(frozen=True)
class Picture:
    """One decoded picture: its type ("I", "P", "B" ...), its vectors (None where there is no motion information) and its pixels."""

    index: int
    kind: str
    vectors: np.ndarray | None
    frame: av.VideoFrame

    @property
    def turns(self) -> int:
        """Quarter turns counter-clockwise to show the frame upright."""
        return round(self.frame.rotation / 90) % 4

    @property
    def is_reference(self) -> bool:
        return self.kind not in B_PICTURES

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as shown."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.turns % 2 else (height, width)

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """The vectors painted into cells of the frame as shown: `motion_HW2`, `future_HW`; zero and False where there are none."""
        height, width = self.frame.height, self.frame.width
        painted = paint(np.empty(0, VECTOR) if self.vectors is None else self.vectors, height, width)
        return turn(*painted, height, width, self.turns)


@dataclass(frozen=True)
class Timeline:
    """What a container says of its frames without decoding them. Only MP4 and Matroska do: AVI and MPEG streams do not store presentation
    times, and VP8 has packets that show nothing; those are decoded from the start."""

    times: np.ndarray  # presentation times of all frames, sorted
    keys: list[tuple[int, int]]  # key frames: presentation time, and the offset to seek to
    start: int  # the offset of the first packet


class Video:
    """An open video file; `open_video` opens and closes it."""

    def __init__(self, path: str | Path, container: av.container.InputContainer):
        streams = [stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise UserError(f"{path}: has no video stream; replace the file or leave it out")
        if container.format.name in ("tty", "image2") or container.format.name.endswith("_pipe"):  # text and pictures
            raise UserError(f"{path}: is {container.format.name.removesuffix('_pipe')} data, not a video; leave it out")
        self.path, self.container, self.stream = path, container, streams[0]
        if self.stream.codec_context is None:
            raise UserError(f"{path}: no decoder for its video stream; transcode it: {transcode(path)}")
        self.stream.codec_context.thread_count = 1
        self.codec: str = self.stream.codec_context.codec.canonical_name
        self.timeline = self._read_timeline()

    @property
    def has_vectors(self) -> bool:
        return self.codec in CODECS_WITH_VECTORS

    def _read_timeline(self) -> Timeline | None:
        if self.codec == "vp8" or not {"mp4", "matroska"} & set(self.container.format.name.split(",")):
            return None
        packets = [packet for packet in self._packets() if packet.size]
        if not packets or any(packet.pts is None for packet in packets):
            return None
        times = np.array(sorted(packet.pts for packet in packets if not packet.is_discard), np.int64)
        if not len(times) or len(np.unique(times)) < len(times):
            return None
        by_time = "matroska" in self.container.format.name  # its index holds presentation times, MP4's decoding times
        offsets = {packet.pts: packet.pts if by_time or packet.dts is None else packet.dts for packet in packets}
        keys = sorted((packet.pts, offsets[packet.pts]) for packet in packets if packet.is_keyframe)
        return Timeline(times, keys, min(offsets.values()))

    def pictures(self, first: int = 0, motion: bool = True) -> Iterator[Picture]:
        """Decoded pictures in presentation order, from the key frame at or before frame `first` on. Call it once."""
        if motion and not self.has_vectors:
            raise NoVectors(
                f"{self.path}: its codec {self.codec} carries no motion vectors that FFmpeg exports; "
                f"transcode it ({transcode(self.path)}) or use a mask without motion guidance"
            )
        if motion:
            self.stream.codec_context.flags2 |= EXPORT_VECTORS
        decoded = enumerate(self._frames()) if self.timeline is None else self._from_key(self.timeline, first)
        for index, frame in decoded:
            kind = PictureType(frame.pict_type).name
            side_data = frame.side_data.get("MOTION_VECTORS") if motion else None
            is_silent_b = self.codec == "mpeg4" and kind in B_PICTURES
            vectors = side_data.to_ndarray() if side_data is not None and kind != "I" and not is_silent_b else None
            yield Picture(index, kind, vectors, frame)

    def _from_key(self, timeline: Timeline, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
        index_of = {int(time): index for index, time in enumerate(timeline.times)}
        wanted = timeline.times[min(first, len(timeline.times) - 1)]
        nearest = [offset for time, offset in timeline.keys if time <= wanted][-1:]
        for offset in (*nearest, timeline.start):  # from the start where the nearest key frame turns out to lie behind `first`
            self.container.seek(offset, stream=self.stream)
            frames = ((index_of[frame.pts], frame) for frame in self._frames() if frame.pts in index_of)
            head = next(frames, None)
            if head is not None and (head[0] <= first or offset == timeline.start):
                yield head
                yield from frames
                return

    def _packets(self) -> Iterator[Any]:
        """Whole packets until the end of the file, or of what there is of it; the last one is empty and flushes the decoder."""
        with suppress(av.FFmpegError):
            for packet in self.container.demux(self.stream):
                if not packet.is_corrupt:
                    yield packet

    def _frames(self) -> Iterator[av.VideoFrame]:
        """All frames that decode. As players do, go on after a packet that does not; who wanted its frame complains."""
        for packet in self._packets():
            with suppress(av.FFmpegError):
                yield from packet.decode()


@contextmanager
def open_video(path: str | Path) -> Iterator[Video]:
    """Open a video file, and close it whatever happens.

    Raises:
        UserError: the file is missing, or FFmpeg finds no video in it.
    """
    try:
        with av.open(str(path), metadata_errors="replace") as container:  # a title in Latin-1 is no reason to fail
            yield Video(path, container)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path, or prepare the dataset again") from None
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror}); replace the file or leave it out") from None


def transcode(path: str | Path) -> str:
    """The command that gives a video vectors."""
    return f"ffmpeg -i {quote(str(path))} -c:v libx264 -bf 2 {quote(Path(path).stem + '.h264.mp4')}"
