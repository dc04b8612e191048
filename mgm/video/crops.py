"""Centre crops of a small dataset, decoded once for all processes.

Reading a clip of a tiny video costs more than training on it. Where every clip is cut from the same
box, `CropStore` keeps all frames of the set on disk, cropped and scaled, with their motion. Each
process maps them into memory. The clips are those of the files, bit for bit.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from mgm.errors import UserError
from mgm.video.decode import Clip, read_clip
from mgm.video.motion import CELL
from mgm.video.transform import apply, test_box

VERSION = 1  # of what the files hold
ARRAYS = ("frames", "motion", "distance", "has_motion")
LARGEST_MB = 1000


class StoredVideo(Protocol):
    """What a store needs of an index row."""

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


class CropStore:
    """Every frame's centre crop and motion, in memory-mapped arrays (N videos, T frames, ...)."""

    def __init__(self, folder: Path, videos: Sequence[StoredVideo], size: int):
        self.arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS]
        self.row = {video.path: n for n, video in enumerate(videos)}
        self.shape = videos[0].height, videos[0].width
        self.box = test_box(*self.shape, 0, 1, size)

    def clip(self, path: str, index_T: np.ndarray) -> Clip:
        """Return the clip of a video's frames `index_T`."""
        row = self.row[path]
        return Clip(*(array_NT[row][index_T] for array_NT in self.arrays))


def open_crops(folder: Path, videos: Sequence[StoredVideo], size: int) -> CropStore | None:
    """Open the store of these videos below `folder`; make it first if it is not there.

    Args:
        size: of the clips, in pixels.

    Returns:
        None if the videos differ in size or length, if the store would be larger than 1 GB, or if
        it cannot be written: then clips are read from the files.
    """
    shapes = {(video.frames, video.height, video.width) for video in videos}
    if len(shapes) != 1:
        return None
    ((frames, _, _),) = shapes
    cells = max(size // CELL, 1)
    pixel_bytes, cell_bytes = 3 * size * size, 12 * cells * cells
    if len(videos) * frames * (pixel_bytes + cell_bytes) > LARGEST_MB * 1e6:
        return None
    place = folder / f"crops-{size}-{_digest(videos)}"
    try:
        with _locked(folder / "crops.lock"):
            if not place.exists():
                _write(place, videos, frames, size)
        return CropStore(place, videos, size)
    except (OSError, UserError):
        return None


def _digest(videos: Sequence[StoredVideo]) -> str:
    said = hashlib.sha256(f"{VERSION} {av.__version__}".encode())
    for video in videos:
        said.update(f"\n{video.bytes} {video.frames} {video.content}".encode())
    return said.hexdigest()[:12]


def _write(place: Path, videos: Sequence[StoredVideo], frames: int, size: int) -> None:
    """Decode every video; the folder appears whole or not at all."""
    cells, count = max(size // CELL, 1), len(videos)
    shapes = {
        "frames": ((count, frames, size, size, 3), np.uint8),
        "motion": ((count, frames, cells, cells, 2), np.float32),
        "distance": ((count, frames, cells, cells), np.float32),
        "has_motion": ((count, frames), np.bool_),
    }
    parts = Path(tempfile.mkdtemp(prefix="crops-", suffix=".parts", dir=place.parent))
    try:
        arrays = [
            np.lib.format.open_memmap(parts / f"{name}.npy", "w+", np.dtype(dtype), shape)
            for name, (shape, dtype) in shapes.items()
        ]
        for n, video in enumerate(videos):
            whole = read_clip(video.path, np.arange(frames))
            box = test_box(whole.height, whole.width, 0, 1, size)
            clip = apply(whole, box, size, False)
            values = (clip.frames_THWC, clip.motion_THW2, clip.distance_THW, clip.has_motion_T)
            for array_N, value in zip(arrays, values):
                array_N[n] = value
        for array_N in arrays:
            array_N.flush()
        parts.chmod(0o755)
        os.rename(parts, place)
    finally:
        shutil.rmtree(parts, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for a process that writes the same store."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
