"""The way of a clip: `read` returns clips from memory, or from a video and its track.

    loader.py           chooses frames and boxes, and makes batches
    read.py: read       -> read.py: Cache       whole videos in memory
                        -> track.py             times and motion
                        -> decode.py            pixels
    clip.py: Clip       frames and their motion

All return the same clips, bit for bit, as `Clip.cut` on the whole frames of `read_clip`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np

from mgm.errors import NoMotion, UserError
from mgm.spec import Method
from mgm.video.clip import Box, Clip, Motion, cut_frames
from mgm.video.container import Known, open_video
from mgm.video.decode import Pixels, wanted_pictures
from mgm.video.track import AGAIN, Track, track_path
from mgm.video.videos import Video


def read(
    video: Video,
    frames: Sequence[np.ndarray],
    boxes: Sequence[Box] | None,
    size: int,
    method: Method | None,
    cache: "Cache | None" = None,
) -> list[Clip]:
    """Read clips of a video, in one decoding pass.

    Args:
        frames: the indices of each clip's frames. All clips have the same number of frames.
        boxes: one per clip, in pixels of the video; the clip is cut by it, and scaled to `size` x
            `size` pixels. None: whole frames.
        method: the motion to read from the video's track, or no motion.
        cache: where the clips may be already.

    Raises:
        NoMotion: the video has no such track, or one that is damaged or of another video.
        UserError: it cannot be read, has fewer frames than requested, or is not the file that
            `video` and the track describe.
    """
    if boxes and video.height:
        boxes = [replace(box, of=(video.height, video.width)) for box in boxes]
    if cache and (whole := cache.find(video, method)):
        clips = [whole[index_T] for index_T in frames]
        return [clip.cut(box, size) for clip, box in zip(clips, boxes)] if boxes else clips
    wanted_N, inverse = np.unique(np.stack(frames), return_inverse=True)
    place_VT = inverse.reshape(len(frames), -1)
    track = open_track(video, method)
    still = Motion.none(len(wanted_N), video.height, video.width)
    moved_N = track[wanted_N] if track and method else still
    frames_VTHWC = _pixels(video, track, wanted_N, place_VT, boxes, size)
    motions = [moved_N[place_T] for place_T in place_VT]
    if boxes:
        motions = [motion.cut(box, size) for motion, box in zip(motions, boxes)]
    return [Clip(*both) for both in zip(frames_VTHWC, motions)]


def read_motion(
    video: Video, index_T: np.ndarray, method: Method | None, cache: "Cache | None" = None
) -> Motion:
    """Read the motion of frames, as `read` does, without their pixels."""
    if cache and (whole := cache.find(video, method)):
        return whole.motion[index_T]
    track = open_track(video, method) if method else None
    return track[index_T] if track else Motion.none(len(index_T), video.height, video.width)


def open_track(video: Video, method: Method | None) -> Track | None:
    """Open the track of a video, and check that it is of this video.

    Args:
        method: None: the codec's track, for its times, if there is one.

    Raises:
        NoMotion: there is no such track, or it is of another video.
    """
    if not video.track:
        if method:
            raise NoMotion(f"{video.path}: has no track of its motion; prepare it first")
        return None
    path = track_path(video.track, method or "codec")
    if not method and not os.path.exists(path):
        return None
    track = Track(path)
    facts = track.facts
    if facts.frames != video.frames or (facts.bytes != video.bytes and video.bytes):
        raise NoMotion(
            f"{path}: is of a video of {facts.frames:,} frames and {facts.bytes:,} bytes, and "
            f"{video.path} has {video.frames:,} and {video.bytes:,}; {AGAIN}"
        )
    if facts.method == "codec" and video.height and track.size != (video.height, video.width):
        raise NoMotion(
            f"{path}: is of a video of {facts.height} x {facts.width} pixels, and the index has "
            f"{video.height} x {video.width}; {AGAIN}"
        )
    return track


def _pixels(
    video: Video,
    track: Track | None,
    wanted_N: np.ndarray,
    place_VT: np.ndarray,
    boxes: Sequence[Box] | None,
    size: int,
) -> np.ndarray:
    """Decode frames, and cut those of each clip: (V, T, H, W, C)."""
    frames_VTHWC: np.ndarray | None = None
    own: Sequence[Box | None] = boxes or [None] * len(place_VT)
    known = Known(track.timeline, container=track.facts.container) if track else None
    with same_file(video), open_video(video.path, known) as source:
        pixels = Pixels(source)
        # Each frame is cut when it is decoded. Keeping whole frames, 4 MB per clip, takes longer.
        for n, picture in wanted_pictures(source, wanted_N):
            if n is None:
                continue
            frame_HWC = pixels(picture)
            if frames_VTHWC is None:
                _require_size(video, frame_HWC.shape[:2], track)
                sides = (size, size) if boxes else frame_HWC.shape[:2]
                frames_VTHWC = np.empty((*place_VT.shape, *sides, 3), np.uint8)
            for v in np.flatnonzero((place_VT == n).any(1)).tolist():
                box = own[v]
                cut_HWC = cut_frames(frame_HWC[None], box, size) if box else frame_HWC
                frames_VTHWC[v, place_VT[v] == n] = cut_HWC
    assert frames_VTHWC is not None
    return frames_VTHWC


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


def _require_size(video: Video, size: tuple[int, int], track: Track | None) -> None:
    """Check the height and width of a file's frames. Those of a copy may be smaller."""
    known = track.facts.pixels if track else (video.height, video.width)
    if video.height and size != known:
        raise UserError(
            f"{video.path}: frames have {size[0]} x {size[1]} pixels, and the index has "
            f"{known[0]} x {known[1]}; run `mgm prepare` again"
        )


class Cache:
    """Whole decoded videos, kept in memory up to `megabytes`.

    The runs of a process may share one cache. No video is dropped: every video is read equally
    often, so any choice is as good as the first videos.
    """

    def __init__(self, megabytes: float):
        self.megabytes, self.free = megabytes, megabytes * 1e6
        self.frames_of = dict[str, np.ndarray]()
        self.motion_of = dict[tuple[str, Method | None], Motion]()
        # Videos that do not fit, or that cannot be read to their end.
        self.refused = set[tuple[str, Method | None]]()

    def find(self, video: Video, method: Method | None) -> Clip | None:
        """Return a whole video from memory. Decode it first if it fits."""
        key = video.path, method
        if key not in self.motion_of and self.free > 0 and key not in self.refused:
            # The frames of a single clip may still be readable.
            with suppress(UserError):
                self._keep(video, method)
            if key not in self.motion_of:
                self.refused.add(key)
        if key not in self.motion_of:
            return None
        return Clip(self.frames_of[video.path], self.motion_of[key])

    def _keep(self, video: Video, method: Method | None) -> None:
        """Decode a video and keep it, unless it is too large."""
        every_T, frames_THWC = np.arange(video.frames), self.frames_of.get(video.path)
        motion = read_motion(video, every_T, method)
        pixels = 3 * video.frames * video.height * video.width
        if frames_THWC is not None:
            pixels = 0
        elif not pixels or 2 * pixels > self.free:
            # A video that may not fit shows it by one frame.
            (first,) = read(video, [every_T[:1]], None, 0, None)
            pixels = video.frames * first.frames_THWC.nbytes
        arrays = motion.vectors_THW2, motion.distance_THW, motion.has_mv_T
        taken = pixels + (sum(array.nbytes for array in arrays) if method else 0)
        if taken > self.free:
            return
        if frames_THWC is None:
            (clip,) = read(video, [every_T], None, 0, None)
            self.frames_of[video.path] = clip.frames_THWC
        self.free -= taken
        self.motion_of[video.path, method] = motion
