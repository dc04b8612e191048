"""Clips cut from a video: while it is decoded, from memory, or from a store on disk.

All three return the same clips, bit for bit, as `transform.apply` on the whole frames of
`read_clip`.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from mgm.errors import UserError
from mgm.results.atomic import atomic_write
from mgm.results.lock import wait_for_flock
from mgm.spec import StoredMotion
from mgm.video.decode import Clip, Covered, open_pass, read_clip
from mgm.video.motion import CELL, cells
from mgm.video.optical_flow import read_flow
from mgm.video.transform import Box, apply, covered_cells, cut_frames, cut_motion, test_box


class IndexedVideo(Protocol):
    """The fields of an index row that a loader reads."""

    @property
    def path(self) -> str: ...
    @property
    def frames(self) -> int: ...
    @property
    def label(self) -> int: ...


class StoredVideo(Protocol):
    """The fields of an index row that a store of crops reads."""

    @property
    def path(self) -> str: ...
    @property
    def frames(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True)
class Cut:
    """A clip to cut.

    Args:
        index_T: indices of its frames.
        place: returns the box and whether to mirror it, given the frame's height and width.
    """

    index_T: np.ndarray
    place: Callable[[int, int], tuple[Box, bool]]


# --- While the video is decoded ---


def read_cuts(
    video: IndexedVideo, cuts: Sequence[Cut], size: int, motion: StoredMotion | None
) -> list[Clip]:
    """Cut clips of `size` x `size` pixels from a video, in one decoding pass.

    Each frame is cropped and scaled when it is decoded. Keeping whole frames, 4 MB per clip, would
    take more time than that.

    Args:
        cuts: the clips. All have the same number of frames.
        motion: as in `BatchOptions`.

    Raises:
        NoVectors, NoFlow, UserError: as `read_whole`.
    """
    wanted_N, inverse = np.unique(np.stack([cut.index_T for cut in cuts]), return_inverse=True)
    place_VT = inverse.reshape(len(cuts), -1)
    frames_VTHWC = np.empty((*place_VT.shape, size, size, 3), np.uint8)
    boxes: list[tuple[Box, bool]] = []
    with open_pass(video.path, wanted_N, motion == "vectors") as decoding:
        for n, frame_HWC in decoding:
            shape = frame_HWC.shape[:2]
            boxes = boxes or [cut.place(*(decoding.size or shape)) for cut in cuts]
            for v in np.flatnonzero((place_VT == n).any(1)):
                box, flip = boxes[v]
                frames_VTHWC[v, place_VT[v] == n] = cut_frames(
                    frame_HWC[None], box.on(shape, decoding.size), size, flip
                )
        motion_NHW2, distance_NHW, informed_N = decoding.motion()
    if motion == "raft-small" or motion == "dis":
        motion_NHW2, informed_N = read_flow(
            video.path, motion, wanted_N, (video.frames, *distance_NHW.shape[1:])
        )
    return [
        Clip(
            frames_THWC,
            *cut_motion(motion_NHW2[place_T], distance_NHW[place_T], box, size, flip),
            informed_N[place_T],
            covered=covered_cells(motion_NHW2[place_T], distance_NHW[place_T], box, size, flip),
        )
        for frames_THWC, place_T, (box, flip) in zip(frames_VTHWC, place_VT, boxes)
    ]


def read_whole(video: IndexedVideo, index_T: np.ndarray, motion: StoredMotion | None) -> Clip:
    """Read whole frames of a video, with the codec's vectors, its optical flow, or no motion.

    Raises:
        NoVectors, UserError: as `read_clip`.
        NoFlow: as `read_flow`.
    """
    clip = read_clip(video.path, index_T, motion == "vectors")
    if motion is None or motion == "vectors" or motion == "shuffled":
        return clip
    flow_THW2, has_motion_T = read_flow(
        video.path, motion, index_T, (video.frames, *clip.distance_THW.shape[1:])
    )
    # The clip was read without vectors, so all its distances are 1.
    return replace(clip, motion_THW2=flow_THW2, has_motion_T=has_motion_T)


# --- From memory ---


class Cache:
    """Whole decoded videos, kept in memory up to `megabytes`.

    The runs of a process may share one cache. No video is dropped: every video is read equally
    often, so any choice is as good as the first videos.
    """

    def __init__(self, megabytes: float):
        self.megabytes, self.free = megabytes, megabytes * 1e6
        # Path -> motion -> clip. All clips of a path share their frames.
        self.whole: dict[str, dict[StoredMotion | None, Clip]] = {}
        # (Path, clip size) -> store.
        self.crops: dict[tuple[str, int], CropStore] = {}

    def share_crops(self, folder: Path, videos: Sequence[StoredVideo], size: int) -> None:
        """Read centre crops of these videos from a store that all processes share."""
        known = not videos or (videos[0].path, size) in self.crops
        if not known and (store := open_crops(folder, videos, size)):
            self.crops |= {(video.path, size): store for video in videos}

    def read(self, video: IndexedVideo, index_T: np.ndarray, motion: StoredMotion | None) -> Clip:
        """Return whole frames of a video, from memory if they are there."""
        whole = self._whole(video, motion)
        return read_whole(video, index_T, motion) if whole is None else whole[index_T]

    def cut(
        self, video: IndexedVideo, cuts: Sequence[Cut], size: int, motion: StoredMotion | None
    ) -> list[Clip]:
        """Return the clips of `read_cuts`, from the store or from memory if they are there."""
        store = self.crops.get((video.path, size)) if motion in (None, "vectors") else None
        if store and all(cut.place(*store.shape) == (store.box, False) for cut in cuts):
            return [store.clip(video.path, cut.index_T) for cut in cuts]
        whole = self._whole(video, motion)
        if whole is None:
            return read_cuts(video, cuts, size, motion)
        boxes = [cut.place(whole.height, whole.width) for cut in cuts]
        return [apply(whole[cut.index_T], box, size, flip) for cut, (box, flip) in zip(cuts, boxes)]

    def _whole(self, video: IndexedVideo, motion: StoredMotion | None) -> Clip | None:
        """Return the whole video if it is in memory, or if there is room for it."""
        if self._find(video, motion) is None and self.free > 0:
            self._keep(video, motion)
        return self._find(video, motion)

    def _find(self, video: IndexedVideo, motion: StoredMotion | None) -> Clip | None:
        kept = self.whole.get(video.path, {})
        return next(iter(kept.values()), None) if motion is None else kept.get(motion)

    def _keep(self, video: IndexedVideo, motion: StoredMotion | None) -> None:
        try:
            clip = read_whole(video, np.arange(video.frames), motion)
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


# --- From a store on disk ---
# Reading a clip of a tiny video takes longer than training on it. If every clip has the same box, a
# store keeps all frames of the dataset, cropped and scaled, with their motion. Each process maps
# the store into memory.

STORE_VERSION = 3  # of the file's format
LARGEST_MB = 1000


class CropStore:
    """A file with every frame's centre crop and motion, mapped into memory."""

    def __init__(self, place: Path, videos: Sequence[StoredVideo], size: int):
        mapped_N = np.memmap(place, _row_type(videos[0], size), "r", shape=len(videos))
        # Plain arrays, since indexing a memmap takes 2.6 times as long.
        self.fields = [mapped_N[name].view(np.ndarray) for name in mapped_N.dtype.fields or ()]
        self.row = {video.path: n for n, video in enumerate(videos)}
        self.shape = videos[0].height, videos[0].width
        self.box = test_box(*self.shape, 0, 1, size)
        self.covered = _covered(videos[0], size)

    def clip(self, path: str, index_T: np.ndarray) -> Clip:
        """Return the clip of a video's frames `index_T`."""
        row = self.row[path]
        found = [field_NT[row][index_T] for field_NT in self.fields]
        covered = replace(self.covered, motion_THW2=found[4], distance_THW=found[5])
        return replace(Clip(*found[:4]), covered=covered)


def open_crops(folder: Path, videos: Sequence[StoredVideo], size: int) -> CropStore | None:
    """Open the store of these videos in `folder`. Write it first if it does not exist.

    Args:
        size: the clips' side in pixels.

    Returns:
        The store. None if the videos differ in size or length, if the store would be larger than
        1 GB, or if it cannot be written. Then clips are read from the files.
    """
    if len({(video.frames, video.height, video.width) for video in videos}) != 1:
        return None
    if len(videos) * _row_type(videos[0], size).itemsize > LARGEST_MB * 1e6:
        return None
    place = folder / f"crops-{size}-{_digest(videos)}.rows"
    try:
        with (folder / "crops.lock").open("w") as file:
            wait_for_flock(file, f"{folder}: waiting for a process that decodes the same videos")
            if not place.exists():
                _write_store(place, videos, size)
        return CropStore(place, videos, size)
    except (OSError, ValueError, UserError):
        return None


def _digest(videos: Sequence[StoredVideo]) -> str:
    """Return 12 hex digits that identify the videos, and the versions of store and decoder."""
    digest = hashlib.sha256(f"{STORE_VERSION} {av.__version__}".encode())
    for video in videos:
        digest.update(f"\n{video.bytes} {video.frames} {video.content}".encode())
    return digest.hexdigest()[:12]


def _row_type(video: StoredVideo, size: int) -> np.dtype:
    """Return the type of a video's row, which holds the arrays of a `Clip` of all its frames."""
    frames, count = video.frames, max(size // CELL, 1)
    rows, columns = _covered(video, size).distance_THW.shape[1:]
    fields = [
        ("frames_THWC", np.uint8, (frames, size, size, 3)),
        ("motion_THW2", np.float32, (frames, count, count, 2)),
        ("distance_THW", np.float32, (frames, count, count)),
        ("has_motion_T", np.bool_, (frames,)),
        ("covered_motion_THW2", np.float32, (frames, rows, columns, 2)),
        ("covered_distance_THW", np.float32, (frames, rows, columns)),
    ]
    return np.dtype(fields, align=True)


def _covered(video: StoredVideo, size: int) -> Covered:
    """Return the cells under the centre crop of a frame without motion."""
    shape = 1, cells(video.height), cells(video.width)
    box = test_box(video.height, video.width, 0, 1, size)
    return covered_cells(np.zeros((*shape, 2)), np.ones(shape), box, size, False)


def _write_store(place: Path, videos: Sequence[StoredVideo], size: int) -> None:
    """Decode every video, and write the store in one step."""
    row = np.zeros((), _row_type(videos[0], size))
    with atomic_write(place) as temporary, temporary.open("wb") as out:
        for video in videos:
            whole = read_clip(video.path, np.arange(video.frames))
            clip = apply(whole, test_box(whole.height, whole.width, 0, 1, size), size, False)
            for name in row.dtype.fields or ():
                covered = name.startswith("covered_")
                row[name] = getattr(
                    clip.covered if covered else clip, name.removeprefix("covered_")
                )
            out.write(row.tobytes())
