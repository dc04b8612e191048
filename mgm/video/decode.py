"""Decode chosen frames of a video file and their motion vectors, in one pass.

Quarter turns and mirroring in metadata are applied to frames and vectors, as players do. Pixels of
any depth become 8-bit RGB. Sample aspect ratios are ignored.
"""

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from av.video.reformatter import VideoReformatter

from mgm.errors import UserError
from mgm.video.clip import Motion
from mgm.video.container import DecodedFrame, VideoReader, open_video, transcode
from mgm.video.motion import UPRIGHT, VECTOR, cell_distance, rasterise, reference_distance
from mgm.video.pack import is_pack, open_pack
from mgm.video.videos import CODECS_WITH_VECTORS, Video


class DecodePass:
    """A decoding pass over an open video file.

    Iterate over it once. It yields n and the pixels of frame `wanted_N[n]`, mostly in order, and
    raises the errors of `read`. Then call `motion`. `size` is None, since boxes and motion
    refer to the decoded frames.
    """

    size: tuple[int, int] | None = None

    def __init__(self, video: VideoReader, wanted_N: np.ndarray, motion: bool):
        self.video, self.wanted_N, self._motion = video, wanted_N, motion
        self._vectors = dict[int, bytes | None]()
        self._dtype = VECTOR
        self._coded = 0, 0, UPRIGHT
        self._references = list[int]()

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        place_of = {index: n for n, index in enumerate(self.wanted_N.tolist())}
        first, last, decoded = int(self.wanted_N[0]), int(self.wanted_N[-1]), 0
        reformatter, shape = VideoReformatter(), None
        # If frames are missing, decode once more with all packets. Some files do not store how far
        # they reorder frames. FFmpeg then learns it while it decodes.
        for wanted in (place_of, None):
            self._references.clear()
            for picture in self.video.pictures(first, self._motion, wanted):
                decoded = picture.index + 1
                if picture.is_reference:
                    self._references.append(picture.index)
                n = place_of.get(picture.index)
                if n is not None and n not in self._vectors:
                    frame_HWC = _upright(self.video, picture, reformatter, shape)
                    shape = frame_HWC.shape
                    # Copy the vectors, since FFmpeg reuses the buffer.
                    vectors = picture.vectors
                    self._vectors[n] = None if vectors is None else vectors.tobytes()
                    self._dtype = self._dtype if vectors is None else vectors.dtype
                    self._coded = picture.frame.height, picture.frame.width, picture.turn
                    yield n, frame_HWC
                # The distances of the last B-frames depend on the next reference.
                if picture.index >= last and (picture.is_reference or not self._motion):
                    break
            if len(self._vectors) == len(self.wanted_N):
                return
            if not self.video.skips_nonref:
                break
        missing = min(index for index, n in place_of.items() if n not in self._vectors)
        raise UserError(_too_few(self.video, missing, decoded))

    def motion(self) -> Motion:
        """Return the motion of the wanted frames."""
        vectors = [self._vectors[n] for n in range(len(self.wanted_N))]
        informed_N = np.array([data is not None for data in vectors])
        joined = np.frombuffer(b"".join(data or b"" for data in vectors), self._dtype)
        counts_N = [len(data or b"") // self._dtype.itemsize for data in vectors]
        motion_NHW2, future_NHW = rasterise(joined, counts_N, *self._coded)
        distances = reference_distance(self.wanted_N, np.array(self._references))
        distance_NHW = cell_distance(future_NHW, *distances)
        distance_NHW[~informed_N] = 1
        return Motion(motion_NHW2, distance_NHW, informed_N)


def read_pictures(
    path: str | Path, motion: bool = False
) -> Iterator[tuple[DecodedFrame, np.ndarray]]:
    """Yield every picture of a video file that decodes, and its pixels.

    Raises:
        UserError: the file cannot be read, or its frames change their size.
    """
    reformatter, shape = VideoReformatter(), None
    with open_video(path) as video:
        for picture in video.pictures(motion=motion):
            frame_HWC = np.ascontiguousarray(_upright(video, picture, reformatter, shape))
            shape = frame_HWC.shape
            yield picture, frame_HWC


def _upright(
    video: VideoReader,
    picture: DecodedFrame,
    reformatter: VideoReformatter,
    shape: tuple[int, ...] | None,
) -> np.ndarray:
    """Return a picture's pixels as shown, uint8 RGB, in FFmpeg's own buffer."""
    plane = reformatter.reformat(picture.frame, format="rgb24", threads=1).planes[0]
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    frame_HWC = lines[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)
    frame_HWC = picture.turn.apply(frame_HWC)
    if shape is not None and frame_HWC.shape != shape:
        now, before = (f"{height} x {width}" for height, width, _ in (frame_HWC.shape, shape))
        raise UserError(
            f"{video.path}: frame {picture.index} has {now} pixels, earlier frames {before}; "
            f"transcode it: {transcode(video.path)}"
        )
    return frame_HWC


def probe_video(path: str | Path) -> Video:
    """Return the properties of a file. Decode only what is needed to count its frames.

    MP4 and Matroska list their frames, so one frame is decoded as a check. Other containers are
    decoded to the end.

    Raises:
        UserError: the file cannot be read, or no frame of it decodes.
    """
    if is_pack(path):
        with open_pack(path) as pack:
            moves = pack.codec in CODECS_WITH_VECTORS
            return _described(path, len(pack.rows), pack.fps, pack.size, pack.codec, moves)
    with open_video(path) as video:
        pictures = video.pictures(motion=False)
        first = next(pictures, None)
        if first is None:
            raise UserError(_too_few(video, 0, 0))
        moves = video.has_vectors
        if video.timeline is None:
            decoded = [(picture.frame.pts, picture.kind) for picture in chain([first], pictures)]
            times = [time for time, _ in decoded]
            moves = moves and (len(decoded) == 1 or {kind for _, kind in decoded} != {"I"})
        else:
            times = video.timeline.times_T.tolist()
        fps = video.rate([time for time in times if time is not None])
        return _described(path, len(times), fps, first.size, video.codec, moves)


def is_interlaced(path: str | Path) -> bool:
    """Return whether the first picture of a file has fields.

    FFmpeg exports half or twice the vertical motion of blocks that are coded as fields, and does
    not tell which these are.
    """
    with open_video(path) as video:
        picture = next(video.pictures(motion=False), None)
        return picture is not None and picture.frame.interlaced_frame


def _described(
    path: str | Path, frames: int, fps: float, size: tuple[int, int], codec: str, moves: bool
) -> Video:
    height, width = size
    facts = frames, fps, width, height, codec, moves
    return Video(str(path), 0, "", "", *facts, os.path.getsize(path))


def _too_few(video: VideoReader, asked: int, decoded: int) -> str:
    fault = f"the video ends after {decoded} frames"
    if asked < decoded:
        fault = "it does not decode, but later frames do"
    return (
        f"{video.path}: frame {asked} was requested, and {fault}; request fewer, or replace the "
        "file if it is damaged"
    )
