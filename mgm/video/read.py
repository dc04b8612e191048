"""The way of a clip: `read` returns clips from memory or from the video.

    loader.py           chooses frames and boxes, and makes batches
    read.py: read       -> read.py: Cache       whole videos in memory
                        -> decode.py            a video file
                        -> pack.py              a pack
    clip.py: Clip       frames and their motion

All return the same clips, bit for bit, as `Clip.cut` on the whole frames of `read_clip`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from mgm.errors import UserError
from mgm.spec import StoredMotion
from mgm.video.clip import Box, Clip, cut_frames
from mgm.video.container import open_video
from mgm.video.decode import DecodePass
from mgm.video.optical_flow import read_flow
from mgm.video.pack import PackPass, is_pack, open_pack

# Returns the box of a clip, given the frame's height and width.
PlaceBox = Callable[[int, int], Box]


class IndexedVideo(Protocol):
    """The fields of an index row that a loader reads."""

    @property
    def path(self) -> str: ...
    @property
    def frames(self) -> int: ...
    @property
    def label(self) -> int: ...


class File(NamedTuple):
    """A video that is in no index."""

    path: str
    frames: int = 0
    label: int = 0


def read(
    video: IndexedVideo,
    frames: Sequence[np.ndarray],
    boxes: Sequence[PlaceBox] | None,
    size: int,
    motion: StoredMotion | None,
    cache: "Cache | None" = None,
) -> list[Clip]:
    """Read clips of a video, in one decoding pass.

    Args:
        frames: the indices of each clip's frames. All clips have the same number of frames.
        boxes: one per clip; the clip is cut by it, and scaled to `size` x `size` pixels. None:
            whole frames.
        motion: the codec's vectors, optical flow of a method, or no motion.
        cache: where the clips may be already.

    Raises:
        NoVectors, NoFlow: the video has no such motion.
        UserError: it cannot be read, or has fewer frames than requested.
    """
    if cache and (clips := cache.find(video, frames, boxes, size, motion)):
        return clips
    wanted_N, inverse = np.unique(np.stack(frames), return_inverse=True)
    place_VT = inverse.reshape(len(frames), -1)
    frames_VTHWC: np.ndarray | None = None
    placed: list[Box | None] = []
    with open_pass(video.path, wanted_N, motion == "vectors") as source:
        # Each frame is cut when it is decoded. Keeping whole frames, 4 MB per clip, takes longer.
        for n, frame_HWC in source:
            shape = frame_HWC.shape[:2]
            if frames_VTHWC is None:
                whole, sides = source.size or shape, (size, size) if boxes else shape
                placed = [box(*whole) for box in boxes] if boxes else [None] * len(frames)
                frames_VTHWC = np.empty((*place_VT.shape, *sides, 3), np.uint8)
            for v in np.flatnonzero((place_VT == n).any(1)):
                cut_HWC, box = frame_HWC, placed[v]
                if box:
                    cut_HWC = cut_frames(frame_HWC[None], box.on(shape, source.size), size)
                frames_VTHWC[v, place_VT[v] == n] = cut_HWC
        moved = source.motion()
    assert frames_VTHWC is not None
    if motion == "raft-small" or motion == "dis":
        shape = video.frames, *moved.distance_THW.shape[1:]
        moved = read_flow(video.path, motion, wanted_N, shape)
    return [
        Clip(
            frames_THWC,
            replace(moved[place_T], box=box, size=size),
            None if box else source.size,
        )
        for frames_THWC, place_T, box in zip(frames_VTHWC, place_VT, placed)
    ]


def read_clip(
    path: str | Path, frame_indices: Sequence[int] | np.ndarray, motion: bool = True
) -> Clip:
    """Decode chosen frames and their motion vectors.

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
        NoVectors: `motion`, and the codec has none.
        UserError: the file cannot be read, or has fewer frames than requested.
    """
    index_T = np.asarray(frame_indices, np.int64)
    if index_T.ndim != 1 or not len(index_T) or index_T.min() < 0:
        raise UserError(
            f"{path}: the frame indices are {list(frame_indices)[:3]}; pass a non-empty list of "
            "numbers from 0"
        )
    return read(File(str(path)), [index_T], None, 0, "vectors" if motion else None)[0]


@contextmanager
def open_pass(
    path: str | Path, wanted_N: np.ndarray, motion: bool
) -> Iterator[DecodePass | PackPass]:
    """Open one pass over a video file or a pack.

    Args:
        wanted_N: numbers of the frames to read, sorted and without repeats.
        motion: read motion vectors too.
    """
    if is_pack(path):
        with open_pack(path) as pack:
            yield PackPass(pack, wanted_N, motion)
    else:
        with open_video(path) as video:
            yield DecodePass(video, wanted_N, motion)


class Cache:
    """Whole decoded videos, kept in memory up to `megabytes`.

    The runs of a process may share one cache. No video is dropped: every video is read equally
    often, so any choice is as good as the first videos.
    """

    def __init__(self, megabytes: float):
        self.megabytes, self.free = megabytes, megabytes * 1e6
        # Path -> motion -> clip. All clips of a path share their frames.
        self.whole: dict[str, dict[StoredMotion | None, Clip]] = {}

    def find(
        self,
        video: IndexedVideo,
        frames: Sequence[np.ndarray],
        boxes: Sequence[PlaceBox] | None,
        size: int,
        motion: StoredMotion | None,
    ) -> list[Clip]:
        """Return the clips of `read` from memory. Empty if they are not there."""
        if self._find(video, motion) is None and self.free > 0:
            self._keep(video, motion)
        if (whole := self._find(video, motion)) is None:
            return []
        clips = [whole[index_T] for index_T in frames]
        shape = whole.height, whole.width
        return [clip.cut(box(*shape), size) for clip, box in zip(clips, boxes)] if boxes else clips

    def _find(self, video: IndexedVideo, motion: StoredMotion | None) -> Clip | None:
        kept = self.whole.get(video.path, {})
        return next(iter(kept.values()), None) if motion is None else kept.get(motion)

    def _keep(self, video: IndexedVideo, motion: StoredMotion | None) -> None:
        try:
            (clip,) = read(video, [np.arange(video.frames)], None, 0, motion)
        # The frames of a single clip may still be readable.
        except UserError:
            return
        size, known = clip.nbytes, self._find(video, None)
        if known is not None:
            clip = replace(clip, frames_THWC=known.frames_THWC)
            size -= known.frames_THWC.nbytes
        if size <= self.free:
            self.whole.setdefault(video.path, {})[motion] = clip
            self.free -= size
        else:
            self.free = 0  # full
