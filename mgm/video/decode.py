"""Decode chosen frames of a video file and their motion vectors, in one pass.

Quarter turns and mirroring in metadata are applied to frames and vectors, as players do. Pixels of
any depth become 8-bit RGB. Sample aspect ratios are ignored.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from mgm.errors import UserError, WrongValue, flag, path_of, several, whole
from mgm.video.clip import Clip, Motion
from mgm.video.container import DecodedFrame, VideoReader, open_video
from mgm.video.motion import cell_distance, reference_distance
from mgm.video.videos import Video


def wanted_pictures(
    video: VideoReader, wanted_N: np.ndarray, motion: bool = False
) -> Iterator[tuple[int | None, DecodedFrame]]:
    """Yield picture `wanted_N[n]` with n, and other pictures with None, mostly in order.

    With `motion`, they include all to which the wanted ones may refer.

    Args:
        wanted_N: numbers of frames, sorted and without repeats.

    Raises:
        UserError: a picture does not decode.
    """
    place_of = {index: n for n, index in enumerate(wanted_N.tolist())}
    missing, decoded = dict(place_of), 0
    first, last = int(wanted_N[0]), int(wanted_N[-1])
    # If frames are missing, decode once more with all packets. Some files do not store how far they
    # reorder frames. FFmpeg then learns it while it decodes.
    for wanted in (place_of, None):
        for picture in video.pictures(first, motion, wanted):
            decoded = picture.index + 1
            yield missing.pop(picture.index, None), picture
            # The distances of the last B-frames depend on the next reference.
            if picture.index >= last and (not motion or picture.is_reference):
                break
        if not missing or not video.skips_nonref:
            break
    if missing:
        raise UserError(_too_few(video, min(missing), decoded))


def read_clip(
    path: str | Path, frame_indices: Sequence[int] | np.ndarray, motion: bool = True
) -> Clip:
    """Decode chosen frames and their motion vectors, in one pass. No track is needed.

    A frame does not depend on which other frames are requested, unless the file is damaged. Then
    the decoder fills gaps from earlier pictures, so the frame depends on where decoding started.

    Args:
        path: a video file.
        frame_indices: frame numbers from 0, in presentation order. They may be in any order, and
            may repeat.
        motion: export vectors. If False, any codec can be read, and `has_motion_T` is all False.

    Returns:
        A `Clip` of one frame per index.

    Raises:
        NoMotion: `motion`, and the codec has none.
        UserError: the file cannot be read, or has fewer frames than requested.
        ValueError, TypeError: the frames are not whole numbers from 0, or there are none.
    """
    path, motion = path_of("path", path), flag("motion", motion)
    numbers = [whole(f"{path}: frame", number) for number in several("frames", frame_indices)]
    if not numbers:
        raise WrongValue(f"{path}: frames is empty; pass whole numbers, such as range(16)")
    index_T = np.array(numbers)
    wanted_N, place_T = np.unique(index_T, return_inverse=True)
    frame_of, cells_of = dict[int, np.ndarray](), dict[int, tuple[np.ndarray, np.ndarray]]()
    has_mv_N, references = np.zeros(len(wanted_N), bool), set[int]()
    with open_video(path) as video:
        for n, picture in wanted_pictures(video, wanted_N, motion):
            if picture.is_reference:
                references.add(picture.index)
            if n is not None:
                frame_of[n] = np.array(video.pixels(picture))
                if motion:
                    cells_of[n] = picture.cells()
                    has_mv_N[n] = picture.vectors is not None
    frames_NHWC = np.stack([frame_of[n] for n in range(len(wanted_N))])
    if not motion:
        return Clip(frames_NHWC[place_T], None)
    still_N = Motion.none(len(wanted_N), *frames_NHWC.shape[1:3])
    vectors_NHW2, distance_NHW = still_N.vectors_THW2.copy(), still_N.distance_THW.copy()
    distances = reference_distance(wanted_N, np.array(sorted(references), int))
    for n, (moved_HW2, future_HW) in cells_of.items():
        vectors_NHW2[n] = moved_HW2
        if has_mv_N[n]:
            own = (each_N[n : n + 1] for each_N in distances)
            distance_NHW[n] = cell_distance(future_HW[None], *own)[0]
    motion_N = Motion(vectors_NHW2, distance_NHW, has_mv_N, still_N.frame)
    return Clip(frames_NHWC[place_T], motion_N[place_T])


def read_pictures(
    path: str | Path, motion: bool = False
) -> Iterator[tuple[DecodedFrame, np.ndarray]]:
    """Yield every picture of a video file that decodes, and its pixels.

    Raises:
        UserError: the file cannot be read, or its frames change their size.
    """
    with open_video(path) as video:
        for picture in video.pictures(motion=motion):
            yield picture, np.ascontiguousarray(video.pixels(picture))


def probe_video(path: str | Path) -> Video:
    """Return the properties of a file. Decode only what is needed to count its frames.

    MP4 and Matroska list their frames, so one frame is decoded as a check. Other containers, and
    files of key frames alone, are decoded to the end.

    Raises:
        UserError: the file cannot be read, or no frame of it decodes.
    """
    with open_video(path) as video:
        pictures = video.pictures(motion=False)
        first = next(pictures, None)
        if first is None:
            raise UserError(_too_few(video, 0, 0))
        moves, timeline = video.has_vectors, video.timeline
        times = [] if timeline is None else timeline.times_T.tolist()
        # Some writers mark every picture as a key frame.
        if timeline is None or (moves and np.isin(timeline.times_T, timeline.key_K).all()):
            decoded = [(picture.frame.pts, picture.kind) for picture in chain([first], pictures)]
            times = times or [time for time, _ in decoded]
            moves = moves and (len(decoded) == 1 or {kind for _, kind in decoded} != {"I"})
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
