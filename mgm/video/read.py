"""The way of a clip, from its plan to its pixels.

    loader.py                   plans a clip: its video, frames, crop and seed
    read.py: open_track         its times and its motion, from the track
    read.py: read_pixels        its pixels, last

Clips are the same, bit for bit, as `Clip.cut` of the whole frames of `read_clip`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np

from mgm.errors import NoMotion, UserError
from mgm.spec import Method
from mgm.video.clip import Clip, Crop, Motion, cut_frames
from mgm.video.container import DecodedFrame, VideoReader, open_video
from mgm.video.decode import wanted_pictures
from mgm.video.track import AGAIN, Track, track_path
from mgm.video.videos import Video

# A whole video's frames, if they are in memory, and its motion or its track.
Source = tuple[np.ndarray | None, Motion | Track | None]


def read(
    video: Video,
    frames: Sequence[np.ndarray],
    crops: Sequence[Crop] | None,
    size: int,
    method: Method | None,
) -> list[Clip]:
    """Read clips of a video, in one decoding pass.

    Args:
        frames: the indices of each clip's frames. All clips have the same number of frames.
        crops: one per clip, in pixels of the video, scaled to `size` x `size` pixels. None: whole
            frames.
        method: the motion to read from the video's track, or no motion.

    Raises:
        NoMotion: the video has no such track, or one that is damaged or of another video.
        UserError: it cannot be read, or has fewer frames than requested.
    """
    track = open_track(video, method)
    motions = [track[index_T] if track and method else None for index_T in frames]
    if crops:
        of = video.height, video.width
        motions = [own and own.cut(crop, size, of) for own, crop in zip(motions, crops)]
    frames_VTHWC = read_pixels(video, track, frames, crops, size)
    return [Clip(*both) for both in zip(frames_VTHWC, motions)]


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
    # Flow has the pixels of a smaller frame. A video that is in no index has no size.
    sizes = track.size if facts.method == "codec" and video.height else (video.height, video.width)
    found = facts.frames, facts.bytes if video.bytes else 0, *sizes
    known = video.frames, video.bytes, video.height, video.width
    if found != known:
        named = "{} frames, {} bytes and {} x {} pixels".format
        raise NoMotion(
            f"{path}: is of a video of {named(*found)}, and the index has {named(*known)}; {AGAIN}"
        )
    return track


def read_pixels(
    video: Video,
    track: Track | None,
    frames: Sequence[np.ndarray],
    crops: Sequence[Crop] | None,
    size: int,
    out_VTHWC: np.ndarray | None = None,
) -> np.ndarray:
    """Decode frames, and cut those of each clip: (V, T, H, W, C).

    Args:
        track: of the video, for its times. None: they are read from the file.
        frames, crops, size: see `read`.
        out_VTHWC: where the pixels are written. None: a new array.
    """
    for source, picture, places in _pictures(video, track, frames):
        frame_HWC = source.pixels(picture)
        height, width, _ = frame_HWC.shape
        if out_VTHWC is None:
            sides = (size, size) if crops else (height, width)
            out_VTHWC = np.empty((len(frames), len(frames[0]), *sides, 3), np.uint8)
        # Each frame is cut when it is decoded. Keeping whole frames, 4 MB per clip, takes longer.
        for v, t in places:
            cut_HWC = frame_HWC
            if crops:
                of = (video.height or height, video.width or width)
                (cut_HWC,) = cut_frames(frame_HWC[None], crops[v], size, of)
            out_VTHWC[v, t] = cut_HWC
    assert out_VTHWC is not None
    return out_VTHWC


def read_planes(
    video: Video,
    track: Track | None,
    frames: Sequence[np.ndarray],
    crops: Sequence[Crop],
    size: int,
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Decode frames, and write the planes of each clip (`mgm.video.planes`).

    Args:
        track, frames, crops, size: see `read_pixels`.
        arrays: those of `no_planes`, of all clips.
    """
    # It needs torch, an optional package.
    from mgm.video.planes import write_planes

    for source, picture, places in _pictures(video, track, frames):
        of = (video.height or picture.size[0], video.width or picture.size[1])
        for v, t in places:
            into = {name: array[v] for name, array in arrays.items()}
            write_planes(source, picture, crops[v], size, of, into, t)


def _pictures(
    video: Video, track: Track | None, frames: Sequence[np.ndarray]
) -> Iterator[tuple[VideoReader, DecodedFrame, list[tuple[int, int]]]]:
    """Yield each picture that clips show, and its places: the clip, and the frame in it."""
    wanted_N, inverse = np.unique(np.stack(frames), return_inverse=True)
    places = [list[tuple[int, int]]() for _ in wanted_N]
    for place, number in enumerate(inverse.ravel().tolist()):
        places[number].append(divmod(place, len(frames[0])))
    known = (track.timeline, track.facts.container, bool(track.facts.source)) if track else ()
    with open_video(video.path, *known) as source:
        for n, picture in wanted_pictures(source, wanted_N):
            if n is not None:
                yield source, picture, places[n]


class Cache:
    """Whole decoded videos of a run, kept in memory up to `megabytes`.

    No video is dropped: every video is read equally often, so any choice is as good as the first
    videos.
    """

    def __init__(self, megabytes: float):
        self.free = megabytes * 1e6
        self.frames_of = dict[str, np.ndarray]()
        self.motion_of = dict[tuple[str, Method | None], Motion | None]()
        # Videos that do not fit, or that cannot be read to their end.
        self.refused = set[tuple[str, Method | None]]()

    def find(self, video: Video, method: Method | None) -> Source:
        """Return a whole video's frames and motion from memory, or no frames and its track.

        A video that fits is decoded first.
        """
        key = video.path, method
        if key not in self.motion_of and self.free > 0 and key not in self.refused:
            # The frames of a single clip may still be readable.
            with suppress(UserError):
                self._keep(video, method)
            if key not in self.motion_of:
                self.refused.add(key)
        if key not in self.motion_of:
            return None, open_track(video, method)
        return self.frames_of[video.path], self.motion_of[key]

    def _keep(self, video: Video, method: Method | None) -> None:
        """Decode a video and keep it, unless it is too large."""
        every_T, frames_THWC = np.arange(video.frames), self.frames_of.get(video.path)
        track = open_track(video, method)
        motion = track[every_T] if track and method else None
        taken = 3 * video.frames * video.height * video.width
        if frames_THWC is not None:
            taken = 0
        elif not taken or 2 * taken > self.free:
            # A video that may not fit shows it by one frame.
            taken = video.frames * read_pixels(video, track, [every_T[:1]], None, 0).nbytes
        if motion:
            arrays = motion.vectors_THW2, motion.distance_THW, motion.has_mv_T
            taken += sum(array.nbytes for array in arrays)
        if taken > self.free:
            return
        if frames_THWC is None:
            (self.frames_of[video.path],) = read_pixels(video, track, [every_T], None, 0)
        self.free -= taken
        self.motion_of[video.path, method] = motion
