"""The way of a clip: `read` returns clips from memory or from the video.

    loader.py           chooses frames and boxes, and makes batches
    read.py: read       -> read.py: Cache       whole videos in memory
                        -> decode.py            a video file
                        -> pack.py              a pack
    clip.py: Clip       frames and their motion

All return the same clips, bit for bit, as `Clip.cut` on the whole frames of `read_clip`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from mgm.errors import UserError
from mgm.spec import StoredMotion
from mgm.video.clip import Box, Clip, cut_frames
from mgm.video.container import open_video
from mgm.video.decode import DecodePass
from mgm.video.optical_flow import read_flow
from mgm.video.pack import PackPass, is_pack, open_pack
from mgm.video.videos import Video


def read(
    video: Video,
    frames: Sequence[np.ndarray],
    boxes: Sequence[Box] | None,
    size: int,
    motion: StoredMotion | None,
    cache: "Cache | None" = None,
) -> list[Clip]:
    """Read clips of a video, in one decoding pass.

    Args:
        frames: the indices of each clip's frames. All clips have the same number of frames.
        boxes: one per clip, in pixels of the video; the clip is cut by it, and scaled to `size` x
            `size` pixels. None: whole frames.
        motion: the codec's vectors, optical flow of a method, or no motion.
        cache: where the clips may be already.

    Raises:
        NoVectors, NoFlow: the video has no such motion.
        UserError: it cannot be read, has fewer frames than requested, or is not the file that
            `video` describes.
    """
    if cache and (whole := cache.find(video, motion)):
        clips = [whole[index_T] for index_T in frames]
        return [clip.cut(box, size) for clip, box in zip(clips, boxes)] if boxes else clips
    wanted_N, inverse = np.unique(np.stack(frames), return_inverse=True)
    place_VT = inverse.reshape(len(frames), -1)
    frames_VTHWC: np.ndarray | None = None
    own: Sequence[Box | None] = boxes or [None] * len(frames)
    with same_file(video), open_pass(video.path, wanted_N, motion == "vectors") as source:
        # Each frame is cut when it is decoded. Keeping whole frames, 4 MB per clip, takes longer.
        for n, frame_HWC in source:
            shape = frame_HWC.shape[:2]
            if frames_VTHWC is None:
                _require_size(video, source.size or shape)
                sides = (size, size) if boxes else shape
                frames_VTHWC = np.empty((*place_VT.shape, *sides, 3), np.uint8)
            for v in np.flatnonzero((place_VT == n).any(1)).tolist():
                cut_HWC, box = frame_HWC, own[v]
                if box:
                    cut_HWC = cut_frames(frame_HWC[None], box.on(shape, source.size), size)
                frames_VTHWC[v, place_VT[v] == n] = cut_HWC
        moved = source.motion()
    assert frames_VTHWC is not None
    if motion == "raft-small" or motion == "dis":
        shape = video.frames, *moved.distance_THW.shape[1:]
        moved = read_flow(video.path, motion, wanted_N, shape)
    return [
        Clip(frames_THWC, moved[place_T], box, None if box else source.size)
        for frames_THWC, place_T, box in zip(frames_VTHWC, place_VT, own)
    ]


@contextmanager
def same_file(video: Video) -> Iterator[None]:
    """Check that a file has the size that the index has, and does not change in the block."""
    before = _stamp(video.path)
    if video.bytes and before and before[0] != video.bytes:
        raise UserError(
            f"{video.path}: has {before[0]:,} bytes, and the index has {video.bytes:,}; "
            "run `mgm prepare` again"
        )
    yield
    if _stamp(video.path) != before:
        raise UserError(f"{video.path}: changed while it was read; run `mgm prepare` again")


def _stamp(path: str) -> tuple[int, int] | None:
    """Return a file's size and time; None if there is no such file."""
    with suppress(OSError):
        stat = os.stat(path)
        return stat.st_size, stat.st_mtime_ns
    return None


def _require_size(video: Video, size: tuple[int, int]) -> None:
    """Check the frames' height and width, for which boxes are drawn."""
    if video.height and size != (video.height, video.width):
        raise UserError(
            f"{video.path}: frames have {size[0]} x {size[1]} pixels, and the index has "
            f"{video.height} x {video.width}; run `mgm prepare` again"
        )


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
        raise UserError(f"{path}: frames are {list(frame_indices)[:3]}; pass numbers from 0")
    video = Video(str(path), 0, "", "", 0, 0.0, 0, 0, "", False, 0)
    return read(video, [index_T], None, 0, "vectors" if motion else None)[0]


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
        # Videos that do not fit, or that cannot be read to their end.
        self.refused = set[tuple[str, StoredMotion | None]]()

    def find(self, video: Video, motion: StoredMotion | None) -> Clip | None:
        """Return a whole video from memory. Decode it first if it fits."""
        key = video.path, motion
        missing = self._kept(*key) is None and self.free > 0 and key not in self.refused
        if missing and not self._keep(video, motion):
            self.refused.add(key)
        return self._kept(*key)

    def _kept(self, path: str, motion: StoredMotion | None) -> Clip | None:
        kept = self.whole.get(path, {})
        return next(iter(kept.values()), None) if motion is None else kept.get(motion)

    def _keep(self, video: Video, motion: StoredMotion | None) -> bool:
        """Decode a video and keep it, unless it is too large."""
        known = self._kept(video.path, None)
        pixels = 3 * video.frames * video.height * video.width
        try:
            # Motion has fewer bytes than pixels. A video that may not fit shows it by one frame.
            if not pixels or 2 * pixels > self.free:
                (first,) = read(video, [np.zeros(1, np.int64)], None, 0, motion)
                if video.frames * _new_bytes(first, known) > self.free:
                    return False
            (clip,) = read(video, [np.arange(video.frames)], None, 0, motion)
        # The frames of a single clip may still be readable.
        except UserError:
            return False
        self.free -= _new_bytes(clip, known)
        if known:
            clip = replace(clip, frames_THWC=known.frames_THWC)
        self.whole.setdefault(video.path, {})[motion] = clip
        return True


def _new_bytes(clip: Clip, known: Clip | None) -> int:
    """Return the memory of a clip, without its frames if they are known already."""
    return clip.nbytes - (clip.frames_THWC.nbytes if known else 0)
