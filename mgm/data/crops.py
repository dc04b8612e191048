"""A store on disk of all frames of a dataset, cropped and scaled, with their motion.

Reading a clip of a tiny video takes longer than training on it. If every clip has the same box,
each process maps the store into memory.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import av
import numpy as np

from mgm.data.videos import Video
from mgm.errors import UserError
from mgm.results.atomic import atomic_write
from mgm.results.lock import wait_for_flock
from mgm.video.motion import cells
from mgm.video.read import Cache, CropStore, read_clip
from mgm.video.transform import test_box

STORE_VERSION = 4  # of the file's format
LARGEST_MB = 1000


def share_crops(cache: Cache, folder: Path, videos: Sequence[Video], size: int) -> None:
    """Let a cache read centre crops of these videos from a store that all processes share."""
    known = not videos or (videos[0].path, size) in cache.crops
    if not known and (store := open_crops(folder, videos, size)):
        cache.crops |= {(video.path, size): store for video in videos}


def open_crops(folder: Path, videos: Sequence[Video], size: int) -> CropStore | None:
    """Open the store of these videos in `folder`. Write it first if it does not exist.

    Args:
        size: the clips' side in pixels.

    Returns:
        The store. None if the videos differ in size or length, if the store would be larger than
        1 GB, or if it cannot be written. Then clips are read from the files.
    """
    if len({(video.frames, video.height, video.width) for video in videos}) != 1:
        return None
    row_type, shape = _row_type(videos[0], size), (videos[0].height, videos[0].width)
    if len(videos) * row_type.itemsize > LARGEST_MB * 1e6:
        return None
    place, box = folder / f"crops-{size}-{_digest(videos)}.rows", test_box(*shape, 0, 1, size)
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            # On file systems that lock no folders, several processes may write the same file.
            with suppress(OSError):
                waiting = f"{folder}: waiting for a process that decodes the same videos"
                wait_for_flock(descriptor, waiting)
            if not place.exists():
                with atomic_write(place) as temporary, temporary.open("wb") as out:
                    for video in videos:
                        whole = read_clip(video.path, np.arange(video.frames))
                        moved = whole.motion
                        arrays = moved.vectors_THW2, moved.distance_THW, moved.informed_T
                        row = np.array((whole.cut(box, size).frames_THWC, *arrays), row_type)
                        out.write(row.tobytes())
        finally:
            os.close(descriptor)
        row_VF = np.memmap(place, row_type, "r", shape=len(videos))
        return CropStore(row_VF, [video.path for video in videos], shape, box, size)
    except (OSError, ValueError, UserError):
        return None


def _digest(videos: Sequence[Video]) -> str:
    """Return 12 hex digits that identify the videos, and the versions of store and decoder."""
    digest = hashlib.sha256(f"{STORE_VERSION} {av.__version__}".encode())
    for video in videos:
        digest.update(f"\n{video.bytes} {video.frames} {video.content}".encode())
    return digest.hexdigest()[:12]


def _row_type(video: Video, size: int) -> np.dtype:
    """Return the type of a video's row: all its frames, and the arrays of their `Motion`."""
    frames, rows, columns = video.frames, cells(video.height), cells(video.width)
    fields = [
        ("frames_THWC", np.uint8, (frames, size, size, 3)),
        ("vectors_THW2", np.float32, (frames, rows, columns, 2)),
        ("distance_THW", np.float32, (frames, rows, columns)),
        ("informed_T", np.bool_, (frames,)),
    ]
    return np.dtype(fields, align=True)
