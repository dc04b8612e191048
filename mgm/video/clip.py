"""A clip: chosen frames of a video and their motion, whole or cut by a box.

Reading whole frames needs only NumPy. Scaling frames needs torch, which takes seconds to import, so
`resize` imports it.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from mgm.spec import Cells, Compensate, Distance
from mgm.video.motion import CELL, compensated, slot_displacement, slot_magnitude


@dataclass(frozen=True)
class Box:
    """A crop, in pixels of the decoded frame. Pixels are whole numbers except for a test view.

    Args:
        antialias: average over all pixels when scaling down.
        scaled: only for a test view, where the whole frame is scaled before the crop. Height and
            width of the scaled frame, and top and left of the crop in it.
        flip: mirror the crop, left to right.
    """

    top: float
    left: float
    height: float
    width: float
    antialias: bool = True
    scaled: tuple[int, int, int, int] | None = None
    flip: bool = False

    def on(self, frame: tuple[int, ...], of: tuple[int, int] | None) -> "Box":
        """Return the same crop on a smaller or larger copy of the frame. It has at least a pixel.

        Args:
            frame: height and width of the copy.
            of: height and width of the frame that the box refers to; None if that is `frame`.
        """
        if of is None or of == frame or self.scaled:
            return self
        down, across = frame[0] / of[0], frame[1] / of[1]
        top = min(round(self.top * down), frame[0] - 1)
        left = min(round(self.left * across), frame[1] - 1)
        bottom = round((self.top + self.height) * down)
        right = round((self.left + self.width) * across)
        height, width = max(bottom - top, 1), max(right - left, 1)
        return replace(self, top=top, left=left, height=height, width=width)

    def within(self, outer: "Box", size: int) -> "Box":
        """Return this crop of a clip in pixels of the video.

        Args:
            outer: the crop that the clip shows, scaled to `size` x `size` pixels.
        """
        down, across = outer.height / size, outer.width / size
        left = size - self.left - self.width if outer.flip else self.left
        return Box(
            outer.top + self.top * down,
            outer.left + left * across,
            self.height * down,
            self.width * across,
            flip=self.flip != outer.flip,
        )


@dataclass(frozen=True)
class Motion:
    """The motion of frames, in cells of 8 x 8 pixels of the video.

    Args:
        vectors_THW2: float32 (dx, dy) in pixels from the reference frame, forward in time. Zero
            without a vector. H = ceil(height / 8), W = ceil(width / 8).
        distance_THW: float32, estimated distance to the reference frame in frames, at least 1
            (`motion.reference_distance`).
        informed_T: True for frames with motion information. I-frames have none. B-frames of MPEG-4
            have none, since FFmpeg exports zeros for them. A P-frame with zero vectors has motion
            information: nothing moved.
    """

    vectors_THW2: np.ndarray
    distance_THW: np.ndarray
    informed_T: np.ndarray

    def __getitem__(self, index) -> "Motion":
        """Return the motion of some of the frames."""
        return Motion(self.vectors_THW2[index], self.distance_THW[index], self.informed_T[index])


class Under(NamedTuple):
    """The cells of a video that are under the cells of a clip.

    Args:
        cell_HW: the cell at the centre of each of the clip's cells.
        part: the slices of (T, H, W) arrays under the clip.
        bounds: first row and end (exclusive), in the part, under each row of the clip, one after
            the other, and the same for columns.
        scale: pixels of the clip per pixel of the video, in x and y: a box need not be square. x is
            negative if mirrored.
    """

    cell_HW: np.ndarray
    part: tuple[slice, ...]
    bounds: list[np.ndarray]
    scale: np.ndarray


# Test views and centre crops have the same boxes again and again.
@lru_cache(maxsize=256)
def under(box: Box, size: int, shape: tuple[int, int]) -> Under:
    """Return which cells of a video are under the cells of a clip that a box cuts.

    An overlap of a billionth of a cell is a rounding error.

    Args:
        size: the clip's side in pixels.
        shape: rows and columns of the video's cells.
    """
    count = max(size // CELL, 1)
    centre = (np.arange(count) + 0.5) / count
    places, ranges = [], []
    for start, length, cells in (
        (box.top, box.height, shape[0]),
        (box.left, box.width, shape[1]),
    ):
        places.append((start + centre * length).astype(np.int64) // CELL)
        edge_N = (start + np.arange(count + 1) * length / count) / CELL
        first_N = np.floor(edge_N[:-1] + 1e-9).astype(np.int64).clip(0, cells - 1)
        end_N = np.ceil(edge_N[1:] - 1e-9).astype(np.int64).clip(max=cells)
        ranges.append(np.stack([first_N, np.maximum(end_N, first_N + 1)], 1))
    row, column = places
    if box.flip:
        column, ranges[1] = column[::-1], ranges[1][::-1]
    across = -size if box.flip else size
    scale = np.array([across / box.width, size / box.height], np.float32)
    part = (slice(None), *(slice(each.min(), each.max()) for each in ranges))
    bounds = [(each - each.min()).ravel() for each in ranges]
    return Under(row[:, None] * shape[1] + column, part, bounds, scale)


@dataclass(frozen=True)
class Clip:
    """Chosen frames of a video and their motion.

    Args:
        frames_THWC: uint8 RGB.
        motion: their motion, in the video's cells. `motion_THW2` and `distance_THW` convert it to
            the clip's cells.
        box: the part of the video that the frames show. None: the whole frames.
        size: height and width of the whole frames that boxes and motion refer to, if `frames_THWC`
            are smaller, as in packs. Otherwise None.
    """

    frames_THWC: np.ndarray
    motion: Motion
    box: Box | None = None
    size: tuple[int, int] | None = None

    def __getitem__(self, index) -> "Clip":
        """Return the clip of some of the frames."""
        return Clip(self.frames_THWC[index], self.motion[index], self.box, self.size)

    @cached_property
    def _under(self) -> Under | None:
        """Return the cells of the video under the clip's; None for whole frames."""
        if self.box is None:
            return None
        return under(self.box, self.frames_THWC.shape[1], self.motion.distance_THW.shape[1:])

    @cached_property
    def _cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors and distances in the clip's cells, in pixels of the clip.

        Each cell has the vector at its centre.
        """
        motion, below = self.motion, self._under
        if below is None:
            return motion.vectors_THW2, motion.distance_THW
        frames = len(motion.informed_T)
        vectors_THW2 = motion.vectors_THW2.reshape(frames, -1, 2).take(below.cell_HW, 1)
        distance_THW = motion.distance_THW.reshape(frames, -1).take(below.cell_HW, 1)
        return vectors_THW2 * below.scale, distance_THW

    @property
    def motion_THW2(self) -> np.ndarray:
        """Return float32 (dx, dy) per cell of 8 x 8 pixels (`Motion.vectors_THW2`)."""
        return self._cells[0]

    @property
    def distance_THW(self) -> np.ndarray:
        """Return the distance to the reference frame in frames, at least 1."""
        return self._cells[1]

    @property
    def has_motion_T(self) -> np.ndarray:
        """Return True for frames with motion information (`Motion.informed_T`)."""
        return self.motion.informed_T

    @property
    def height(self) -> int:
        """Return the height of the frames that boxes refer to."""
        return (self.size or self.frames_THWC.shape[1:])[0]

    @property
    def width(self) -> int:
        """Return the width of the frames that boxes refer to."""
        return (self.size or self.frames_THWC.shape[1:])[1]

    @property
    def nbytes(self) -> int:
        """Return the number of bytes of all arrays."""
        motion = self.motion
        arrays = motion.vectors_THW2, motion.distance_THW, motion.informed_T
        return sum(array.nbytes for array in (self.frames_THWC, *arrays))

    def cut(self, box: Box, size: int) -> "Clip":
        """Cut a box out of the frames, and scale it to `size` x `size` pixels.

        The motion is in pixels of the new size, on size // 8 cells per side.
        """
        on_frame = box.on(self.frames_THWC.shape[1:3], self.size)
        frames_THWC = cut_frames(self.frames_THWC, on_frame, size)
        if self.box:
            box = box.within(self.box, self.frames_THWC.shape[1])
        return Clip(frames_THWC, self.motion, box)

    def cut_to(self, size: int) -> "Clip":
        """Cut the largest square out of the middle, and scale it to `size` x `size` pixels."""
        side = min(self.height, self.width)
        top, left = (self.height - side) // 2, (self.width - side) // 2
        return self.cut(Box(top, left, side, side), size)

    def magnitude(
        self,
        tubelet: int,
        distance: Distance = "estimated",
        compensate: Compensate = "none",
        cells: Cells = "centre",
    ) -> np.ndarray:
        """Return the magnitude of each slot's motion for masks, (S, H, W) float32.

        `Mask.distance`, `Mask.compensate` and `Mask.cells` describe the arguments.
        """
        motion, below = self.motion, self._under if cells == "max" else None
        vectors_THW2, distance_THW = self._cells
        if below:
            vectors_THW2 = motion.vectors_THW2[below.part] * below.scale
            distance_THW = motion.distance_THW[below.part]
        divisor_THW = _divisor(distance_THW, distance)
        if compensate != "none":
            vectors_THW2 = compensated(vectors_THW2, divisor_THW, compensate)
        magnitude_SHW = slot_magnitude(vectors_THW2, divisor_THW, motion.informed_T, tubelet)
        if below:
            # The largest of all cells under each of the clip's. reduceat takes pairs of bounds,
            # which must be less than the length.
            slots, rows, columns = magnitude_SHW.shape
            padded_SHW = np.zeros((slots, rows + 1, columns + 1), np.float32)
            padded_SHW[:, :-1, :-1] = magnitude_SHW
            rows_SHW = np.maximum.reduceat(padded_SHW, below.bounds[0], 1)[:, ::2]
            magnitude_SHW = np.maximum.reduceat(rows_SHW, below.bounds[1], 2)[:, :, ::2]
        return magnitude_SHW

    def displacement(self, tubelet: int, stride: int, distance: Distance) -> np.ndarray:
        """Return each slot's `motion.slot_displacement`, (S, H, W, 2).

        dx is in units of the width, dy in units of the height.
        """
        divisor_THW = _divisor(self.distance_THW, distance)
        moved = self.motion_THW2, divisor_THW, self.has_motion_T
        sides = np.array([self.width, self.height], np.float32)
        return slot_displacement(*moved, tubelet, stride) / sides


def _divisor(distance_THW: np.ndarray, distance: Distance) -> np.ndarray:
    return distance_THW if distance == "estimated" else np.ones_like(distance_THW)


def cut_frames(frames_THWC: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Apply a box to frames, as `Clip.cut` does."""
    # An optional package, which takes seconds to import.
    import torch

    if box.scaled:
        tall, wide, top, left = box.scaled
        scaled_THWC = resize(frames_THWC, tall, wide, antialias=False)
        cut_THWC = scaled_THWC[:, top : top + size, left : left + size]
    else:
        top, left, height, width = map(int, (box.top, box.left, box.height, box.width))
        part_THWC = frames_THWC[:, top : top + height, left : left + width]
        cut_THWC = resize(part_THWC, size, size, box.antialias)
    # NumPy would copy a mirrored view pixel by pixel, which takes longer than decoding JPEG.
    return torch.from_numpy(cut_THWC).flip(2).numpy() if box.flip else cut_THWC


def resize(frames_THWC: np.ndarray, height: int, width: int, antialias: bool) -> np.ndarray:
    """Scale uint8 frames to `height` x `width`, bilinearly."""
    import torch

    if frames_THWC.shape[1:3] == (height, width):
        return frames_THWC
    # PyTorch has a fast path for tensors with channels last in memory.
    frames_TCHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
    scaled_TCHW = torch.nn.functional.interpolate(
        frames_TCHW, size=(height, width), mode="bilinear", antialias=antialias
    )
    return scaled_TCHW.permute(0, 2, 3, 1).numpy()
