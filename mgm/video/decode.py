"""A video file becomes a clip: chosen frames and their motion vectors, in one decoding pass.

Rotation metadata (quarter turns) is applied to frames and vectors alike, as a player shows them;
pixels of any depth become 8-bit RGB. Sample aspect ratios are ignored.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from mgm.errors import UserError
from mgm.spec import Distance
from mgm.video.container import (
    CODECS_WITH_VECTORS,
    DecodedFrame,
    VideoReader,
    open_video,
    transcode,
)
from mgm.video.motion import VECTOR, rasterise, reference_distance
from mgm.video.shard_reader import ShardReading, open_record, shard_of


@dataclass(frozen=True)
class Clip:
    """Chosen frames of a video.

    Attributes: frames_THWC: uint8 RGB. motion_THW2: float32 (dx, dy) in pixels from the reference
        frame, forward in time, for each cell of 8 x 8 pixels; zero where
            there is none. H = ceil(height / 8), W = ceil(width / 8).
        distance_THW: float32, estimated distance to the reference frame in frames, >= 1
            (`motion.reference_distance`).
        has_motion_T: frames that carry motion information. An I-frame does not, nor an MPEG-4
            B-frame, whose exported vectors are all zero; a P-frame whose vectors are zero does: it
            says that nothing moved.
        size: height and width, in pixels, of the frames that boxes and motion refer to, where
            `frames_THWC` are smaller: those of a shard.
    """

    frames_THWC: np.ndarray
    motion_THW2: np.ndarray
    distance_THW: np.ndarray
    has_motion_T: np.ndarray
    size: tuple[int, int] | None = None

    def __getitem__(self, index) -> "Clip":
        """The clip of some of the frames."""
        return Clip(
            self.frames_THWC[index],
            self.motion_THW2[index],
            self.distance_THW[index],
            self.has_motion_T[index],
            self.size,
        )

    @property
    def height(self) -> int:
        return (self.size or self.frames_THWC.shape[1:])[0]

    @property
    def width(self) -> int:
        return (self.size or self.frames_THWC.shape[1:])[1]

    def divisor(self, distance: Distance) -> np.ndarray:
        """What vectors are divided by:

        their estimated distance, or 1 where a mask takes them as exported.
        """
        return self.distance_THW if distance == "estimated" else np.ones_like(self.distance_THW)

    @property
    def nbytes(self) -> int:
        return sum(
            array.nbytes
            for array in (self.frames_THWC, self.motion_THW2, self.distance_THW, self.has_motion_T)
        )


@dataclass(frozen=True)
class VideoInfo:
    """What `probe_video` found.

    Width and height are those of the frame as shown; `fps` is the average.
    """

    frames: int
    fps: float
    width: int
    height: int
    codec: str
    has_vectors: bool
    duration_s: float


def read_clip(
    path: str | Path, frame_indices: Sequence[int] | np.ndarray, motion: bool = True
) -> Clip:
    """Decode chosen frames and their motion vectors.

    What comes back depends on the file and on each index alone, not on which other frames were
    asked for. Only in a damaged file, where the decoder fills gaps from earlier pictures, may it
    depend on where decoding began.

    Args:
        path: a video file.
        frame_indices: which frames, counted in presentation order; any order, repeats allowed.
        motion: whether to export vectors. Without, `has_motion_T` is all False and any codec will
            do.

    Returns:
        A `Clip` of one frame per index.

    Raises:
        NoVectors: `motion`, and the codec has none.
        UserError: the file cannot be read, or has fewer frames than asked for.
    """
    index_T = np.asarray(frame_indices, np.int64)
    if index_T.ndim != 1 or not len(index_T) or index_T.min() < 0:
        raise UserError(
            f"{path}: frame indices must be a non-empty list of numbers from 0, got {list(frame_indices)[:3]}"
        )
    wanted_N, order_T = np.unique(index_T, return_inverse=True)
    with open_reading(path, wanted_N, motion) as reading:
        frames_NHWC = np.stack([frame_HWC for _, frame_HWC in sorted(reading, key=itemgetter(0))])
        clip_N = Clip(frames_NHWC, *reading.motion(), reading.size)
    return clip_N if np.array_equal(wanted_N, index_T) else clip_N[order_T]


@contextmanager
def open_reading(
    path: str | Path, wanted_N: np.ndarray, motion: bool
) -> "Iterator[Reading | ShardReading]":
    """One pass over a video file, or over a video in a shard, for the frames `wanted_N`, sorted and
    without repeats.
    """
    if shard_of(path):
        yield ShardReading(path, wanted_N, motion)
    else:
        with open_video(path) as video:
            yield Reading(video, wanted_N, motion)


class Reading:
    """One decoding pass over an open video for the frames `wanted_N`, sorted and without repeats.

    Iterate over it, once, for each n and the pixels of frame `wanted_N[n]`, mostly in order; then
    ask for their `motion`. Errors are those of `read_clip`, while iterating. `size` is None: boxes
    and motion refer to the frames as they are.
    """

    size: tuple[int, int] | None = None

    def __init__(self, video: VideoReader, wanted_N: np.ndarray, motion: bool):
        self.video, self.wanted_N, self._motion = video, wanted_N, motion
        self._vectors = dict[int, bytes | None]()
        self._dtype = VECTOR
        self._coded = 0, 0, 0  # height, width and quarter turns
        self._references = list[int]()

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        place_of = {index: n for n, index in enumerate(self.wanted_N.tolist())}
        first, last, decoded = int(self.wanted_N[0]), int(self.wanted_N[-1]), 0
        reformatter, shape = VideoReformatter(), None
        for wanted in (
            place_of,
            None,
            # again, of all packets: where a file does not say how far it reorders frames, FFmpeg learns
            # it
        ):
            self._references.clear()
            for picture in self.video.pictures(first, self._motion, wanted):
                decoded = picture.index + 1
                if picture.is_reference:
                    self._references.append(picture.index)
                n = place_of.get(picture.index)
                if n is not None and n not in self._vectors:
                    frame_HWC = _upright(self.video, picture, reformatter, shape)
                    shape = frame_HWC.shape
                    self._vectors[n] = (
                        None if picture.vectors is None else picture.vectors.tobytes()
                    )  # FFmpeg may have its buffer back
                    self._dtype = self._dtype if picture.vectors is None else picture.vectors.dtype
                    self._coded = picture.frame.height, picture.frame.width, picture.rotation
                    yield n, frame_HWC
                # the next reference gives the last B-frames their distance
                if picture.index >= last and (picture.is_reference or not self._motion):
                    break
            if len(self._vectors) == len(self.wanted_N):
                return
            if not self.video.skips_nonref:
                break
        raise UserError(
            _too_few(
                self.video,
                min(index for index, n in place_of.items() if n not in self._vectors),
                decoded,
            )
        )

    def motion(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`motion_NHW2`, `distance_NHW` and `has_motion_N`, as `Clip` has them."""
        vectors = [self._vectors[n] for n in range(len(self.wanted_N))]
        informed_N = np.array([some is not None for some in vectors])
        joined = np.frombuffer(b"".join(some or b"" for some in vectors), self._dtype)
        motion_NHW2, future_NHW = rasterise(
            joined, [len(some or b"") // self._dtype.itemsize for some in vectors], *self._coded
        )
        past_N, future_N = reference_distance(self.wanted_N, np.array(self._references))
        distance_NHW = np.where(future_NHW, future_N[:, None, None], past_N[:, None, None]).astype(
            np.float32
        )
        distance_NHW[~informed_N] = 1
        return motion_NHW2, distance_NHW, informed_N


def read_frames(path: str | Path) -> Iterator[tuple[int, np.ndarray]]:
    """All frames of a video that decode, one by one: (index, frame_HWC), the frame that `read_clip`
    returns for that index.

    Raises:
        UserError: the file cannot be read, or its frames change their size.
    """
    return (
        (picture.index, frame_HWC)
        for picture, frame_HWC in read_pictures(path)
        if frame_HWC is not None
    )


def read_pictures(
    path: str | Path, motion: bool = False, every: int = 1
) -> Iterator[tuple[DecodedFrame, np.ndarray | None]]:
    """All pictures of a video file that decode, and the pixels of every `every`-th;

    errors are those of `read_frames`.
    """
    reformatter, shape = VideoReformatter(), None
    with open_video(path) as video:
        for picture in video.pictures(motion=motion):
            frame_HWC = None
            if picture.index % every == 0:
                frame_HWC = np.ascontiguousarray(_upright(video, picture, reformatter, shape))
                shape = frame_HWC.shape
            yield picture, frame_HWC


def _upright(
    video: VideoReader,
    picture: DecodedFrame,
    reformatter: VideoReformatter,
    shape: tuple[int, ...] | None,
) -> np.ndarray:
    """A picture's pixels as shown, uint8 RGB, where FFmpeg put them;

    an error if they are not of the earlier ones' shape.
    """
    plane = reformatter.reformat(picture.frame, format="rgb24", threads=1).planes[0]
    frame_HWC = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[
        :, : 3 * plane.width
    ]
    frame_HWC = np.rot90(frame_HWC.reshape(plane.height, plane.width, 3), picture.rotation)
    if shape is not None and frame_HWC.shape != shape:
        now, before = (f"{height} x {width}" for height, width, _ in (frame_HWC.shape, shape))
        raise UserError(
            f"{video.path}: frame {picture.index} is {now} pixels, earlier ones {before}; transcode it: {transcode(video.path)}"
        )
    return frame_HWC


def probe_video(path: str | Path) -> VideoInfo:
    """Look at a file without decoding more than it takes to count its frames.

    MP4 and Matroska list their frames, so one is decoded, to see that it can be; other containers
    are decoded to the end.

    Raises:
        UserError: the file cannot be read, or no frame of it decodes.
    """
    if shard_of(path):
        record = open_record(path)
        (height, width), frames, codec = record.size, record.frames, record.codec
        return VideoInfo(
            frames,
            record.fps,
            width,
            height,
            codec,
            codec in CODECS_WITH_VECTORS,
            frames / record.fps if record.fps else 0,
        )
    with open_video(path) as video:
        pictures = video.pictures(motion=False)
        first = next(pictures, None)
        if first is None:
            raise UserError(_too_few(video, 0, 0))
        frames = (
            1 + sum(1 for _ in pictures) if video.timeline is None else len(video.timeline.times)
        )
        height, width = first.size
        fps = float(video.stream.average_rate or video.stream.guessed_rate or 0)
        told = video.container.duration / av.time_base if video.container.duration else 0.0
        seconds = frames / fps if fps else told  # a file cut short is shorter than it tells
        return VideoInfo(frames, fps, width, height, video.codec, video.has_vectors, seconds)


def _too_few(video: VideoReader, asked: int, decoded: int) -> str:
    if asked < decoded:
        return f"{video.path}: frame {asked} does not decode, though later ones do; replace the file or leave it out"
    said = video.stream.frames or (0 if video.timeline is None else len(video.timeline.times))
    ended = f"{decoded} of {said} frames" if said > decoded else f"{decoded} frames"
    return f"{video.path}: frame {asked} was asked for, but the video ends after {ended}; ask for less, or replace the file if it is cut short"
