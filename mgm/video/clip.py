"""A crop of a video, and the motion and the pixels under it.

Reading whole frames needs only NumPy. Scaling frames needs torch, which takes seconds to import, so
`resize` imports it.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from numbers import Real
from typing import Literal

import numpy as np

from mgm.errors import WrongType, WrongValue, flag, valid, whole
from mgm.spec import Cells, Clips, Compensate, Distance
from mgm.video.motion import CELL, cells, compensated, slot_displacement, slot_magnitude
from mgm.video.videos import LARGEST_SIDE


@dataclass(frozen=True)
class Crop:
    """A part of a video's frames, in pixels. They are whole numbers except for a test view.

    Args:
        flip: mirror the crop, left to right.
        scaling: bilinear: "average" over all pixels when scaling down, or "plain". "first": only
            for a test view, where the whole frame is scaled before the crop, as in "plain".
    """

    top: float
    left: float
    height: float
    width: float
    flip: bool = False
    scaling: Literal["average", "plain", "first"] = "average"

    @classmethod
    def centre(cls, height: int, width: int) -> "Crop":
        """Return the largest square in the middle of a frame."""
        side = min(height, width)
        return cls((height - side) // 2, (width - side) // 2, side, side)

    def on(self, copy: tuple[int, ...], video: tuple[int, int]) -> "Crop":
        """Return the same crop on a smaller or larger copy of a video. It has at least a pixel.

        Args:
            copy, video: height and width of their frames.
        """
        if self.scaling == "first" or copy == video:
            return self
        down, across = copy[0] / video[0], copy[1] / video[1]
        top = min(round(self.top * down), copy[0] - 1)
        left = min(round(self.left * across), copy[1] - 1)
        bottom = round((self.top + self.height) * down)
        right = round((self.left + self.width) * across)
        height, width = max(bottom - top, 1), max(right - left, 1)
        return replace(self, top=top, left=left, height=height, width=width)

    def require_in(self, height: int, width: int, whole_pixels: bool = True) -> None:
        """Check that the crop is in a frame. A millionth of a pixel is a rounding error."""
        flag("flip", self.flip)
        parts = self.top, self.left, self.height, self.width
        if not all(isinstance(part, Real) for part in parts):
            raise WrongType(f"{self} has parts that are no numbers; pass pixels")
        bottom, right = self.top + self.height, self.left + self.width
        inside = min(self.top, self.left) >= 0 and bottom <= height + 1e-6 and right <= width + 1e-6
        rough = whole_pixels and self.scaling != "first" and any(part % 1 for part in parts)
        if rough or not (inside and min(self.height, self.width) > 0):
            pixels = "whole pixels" if whole_pixels else "pixels"
            raise WrongValue(f"{self} is not made of {pixels} of a frame of {height} x {width}")


@dataclass(frozen=True, repr=False)
class Motion:
    """The motion of frames, in cells of 8 x 8 pixels of the video, whole or cut by a crop.

    Args:
        vectors_THW2: float32 (dx, dy) in pixels from the reference frame, forward in time. Zero
            without a vector. H = ceil(height / 8), W = ceil(width / 8).
        distance_THW: float32, estimated distance to the reference frame in frames, at least 1
            (`motion.reference_distance`).
        has_mv_T: True for frames with motion information. I-frames have none. B-frames of MPEG-4
            have none, since FFmpeg exports zeros for them. A P-frame with zero vectors has motion
            information: nothing moved.
        frame: height and width of the video's frames.
        crop, size: the crop that `magnitude` and `displacement` are of, and its side in pixels.
    """

    vectors_THW2: np.ndarray
    distance_THW: np.ndarray
    has_mv_T: np.ndarray
    frame: tuple[int, int]
    crop: Crop | None = None
    size: int = 0

    @classmethod
    def none(cls, frames: int, height: int, width: int) -> "Motion":
        """Return the motion of frames that have no motion information."""
        shape = frames, cells(height), cells(width)
        vectors_THW2 = np.broadcast_to(np.float32(0), (*shape, 2))
        distance_THW = np.broadcast_to(np.float32(1), shape)
        return cls(vectors_THW2, distance_THW, np.zeros(frames, bool), (height, width))

    def __len__(self) -> int:
        return len(self.has_mv_T)

    def __repr__(self) -> str:
        height, width = (self.size, self.size) if self.crop else self.frame
        has_mv = int(self.has_mv_T.sum())
        return f"Motion({has_mv} of {len(self)} frames of {height} x {width} pixels)"

    def __getitem__(self, index) -> "Motion":
        """Return the motion of some of the frames."""
        return replace(
            self,
            vectors_THW2=self.vectors_THW2[index],
            distance_THW=self.distance_THW[index],
            has_mv_T=self.has_mv_T[index],
        )

    @property
    def speed(self) -> np.ndarray:
        """Return the vectors' lengths / distances, (T, H, W) float32: pixels per frame."""
        return np.hypot(self.vectors_THW2[..., 0], self.vectors_THW2[..., 1]) / self.distance_THW

    def cut(self, crop: Crop, size: int, video: tuple[int, int] | None = None) -> "Motion":
        """Return the motion under a crop that is scaled to `size` x `size` pixels.

        Args:
            video: height and width of the frames in whose pixels the crop is. Default: these.
        """
        if self.crop:
            raise WrongValue("the motion is cut already; cut that of whole frames")
        if video and video != self.frame:
            down, across = self.frame[0] / video[0], self.frame[1] / video[1]
            sides = crop.top * down, crop.left * across, crop.height * down, crop.width * across
            crop = Crop(*sides, crop.flip)
        return replace(self, crop=crop, size=size)

    @cached_property
    def in_cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors and distances in the crop's cells of 8 x 8 pixels, in its pixels.

        Each cell has the vector at its centre.
        """
        if self.crop is None:
            return self.vectors_THW2, self.distance_THW
        frames, *shape = self.distance_THW.shape
        cell_HW = centre_cells(self.crop, self.size, *shape)
        vectors_THW2 = self.vectors_THW2.reshape(frames, -1, 2).take(cell_HW, 1)
        distance_THW = self.distance_THW.reshape(frames, -1).take(cell_HW, 1)
        return vectors_THW2 * self._scale, distance_THW

    @property
    def _scale(self) -> np.ndarray:
        """Return pixels of the crop per pixel of the video, in x and y. Mirrored: x is negative."""
        assert self.crop
        across = -self.size if self.crop.flip else self.size
        return np.array([across / self.crop.width, self.size / self.crop.height], np.float32)

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
        largest = cells == "max" and self.crop is not None
        if largest:
            rows, columns = covered_cells(self.crop, self.size, *self.distance_THW.shape[1:])
            part = ..., slice(rows.min(), rows.max()), slice(columns.min(), columns.max())
            vectors_THW2 = self.vectors_THW2[(*part, slice(None))] * self._scale
            distance_THW = self.distance_THW[part]
        else:
            vectors_THW2, distance_THW = self.in_cells
        divisor_THW = distance_THW if distance == "estimated" else np.ones_like(distance_THW)
        if compensate != "none":
            vectors_THW2 = compensated(vectors_THW2, divisor_THW, compensate)
        magnitude_SHW = slot_magnitude(vectors_THW2, divisor_THW, self.has_mv_T, tubelet)
        if largest:
            # The largest of all cells under each of the crop's. reduceat takes pairs of bounds,
            # which must be less than the length.
            magnitude_SHW = np.pad(magnitude_SHW, ((0, 0), (0, 1), (0, 1)))
            for axis, bounds in ((1, rows), (2, columns)):
                every_SHW = np.maximum.reduceat(magnitude_SHW, bounds.ravel() - bounds.min(), axis)
                magnitude_SHW = every_SHW[:, ::2] if axis == 1 else every_SHW[:, :, ::2]
        return magnitude_SHW

    def displacement(self, tubelet: int, stride: int, distance: Distance) -> np.ndarray:
        """Return each slot's `motion.slot_displacement`, (S, H, W, 2).

        dx is in units of the width, dy in units of the height.
        """
        vectors_THW2, distance_THW = self.in_cells
        divisor_THW = distance_THW if distance == "estimated" else np.ones_like(distance_THW)
        moved = vectors_THW2, divisor_THW, self.has_mv_T
        height, width = (self.size, self.size) if self.crop else self.frame
        sides = np.array([width, height], np.float32)
        return slot_displacement(*moved, tubelet, stride) / sides


# Test views and centre crops have the same crops again and again.
@lru_cache(maxsize=256)
def centre_cells(crop: Crop, size: int, rows: int, columns: int) -> np.ndarray:
    """Return the number of the video's cell at the centre of each of a crop's cells, (H, W).

    Args:
        size: the crop's side in pixels.
        rows, columns: of the video's cells.
    """
    count = max(size // CELL, 1)
    centre = (np.arange(count) + 0.5) / count
    row = (crop.top + centre * crop.height).astype(np.int64) // CELL
    column = (crop.left + centre * crop.width).astype(np.int64) // CELL
    return row[:, None] * columns + (column[::-1] if crop.flip else column)


@lru_cache(maxsize=256)
def covered_cells(crop: Crop, size: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first cell of the video, and the end, under each row of a crop's cells: (H, 2).

    And the same of each column. An overlap of a billionth of a cell is a rounding error.
    """
    count, ranges = max(size // CELL, 1), list[np.ndarray]()
    for start, length, number in ((crop.top, crop.height, rows), (crop.left, crop.width, columns)):
        edge_N = (start + np.arange(count + 1) * length / count) / CELL
        first_N = np.floor(edge_N[:-1] + 1e-9).astype(np.int64).clip(0, number - 1)
        end_N = np.ceil(edge_N[1:] - 1e-9).astype(np.int64).clip(max=number)
        ranges.append(np.stack([first_N, np.maximum(end_N, first_N + 1)], 1))
    return ranges[0], ranges[1][::-1] if crop.flip else ranges[1]


@dataclass(frozen=True, repr=False)
class Clip:
    """Chosen frames of a video and their motion, as `mgm.read` returns them.

    Args:
        frames_THWC: uint8 RGB.
        motion: their motion, cut as the frames are. None: read without it.
    """

    frames_THWC: np.ndarray
    motion: Motion | None

    def __repr__(self) -> str:
        has_mv = int(self.has_motion_T.sum())
        frames = f"{len(self.frames_THWC)} frames of {self.height} x {self.width} pixels"
        return f"Clip({frames}, {has_mv} with motion)"

    def __getitem__(self, index) -> "Clip":
        """Return the clip of some of the frames."""
        return Clip(self.frames_THWC[index], self.motion and self.motion[index])

    @property
    def height(self) -> int:
        """Return the height of the frames in pixels."""
        return self.frames_THWC.shape[1]

    @property
    def width(self) -> int:
        """Return the width of the frames in pixels."""
        return self.frames_THWC.shape[2]

    @property
    def known(self) -> Motion:
        """Return the motion, without motion information if it was not read."""
        return self.motion or Motion.none(*self.frames_THWC.shape[:3])

    @property
    def motion_THW2(self) -> np.ndarray:
        """Return float32 (dx, dy) per cell of 8 x 8 pixels (`Motion.vectors_THW2`)."""
        return self.known.in_cells[0]

    @property
    def distance_THW(self) -> np.ndarray:
        """Return the distance to the reference frame in frames, at least 1."""
        return self.known.in_cells[1]

    @property
    def has_motion_T(self) -> np.ndarray:
        """Return True for frames with motion information (`Motion.has_mv_T`)."""
        return self.known.has_mv_T

    def cut(self, crop: Crop, size: int) -> "Clip":
        """Cut the frames, and scale them to `size` x `size` pixels. A clip is cut once.

        The motion is in pixels of the new size, on size // 8 cells per side.

        Raises:
            ValueError, TypeError: the crop is not in the frame, or the size is not possible.
        """
        size = whole("size", size, 1, LARGEST_SIDE)
        if not isinstance(crop, Crop):
            raise WrongType(f"crop is {crop!r}; pass an mgm.Crop")
        crop.require_in(self.height, self.width)
        motion = self.motion and self.motion.cut(crop, size, (self.height, self.width))
        return Clip(cut_frames(self.frames_THWC, crop, size), motion)

    def cut_to(self, size: int) -> "Clip":
        """Cut the largest square out of the middle, and scale it to `size` x `size` pixels."""
        return self.cut(Crop.centre(self.height, self.width), size)

    def cut_at_random(
        self,
        size: int,
        seed: int,
        crop: Literal["multiscale", "resized", "centre"] = "multiscale",
        flip: bool = True,
    ) -> "Clip":
        """Cut at a random place, mirrored half of the time, and scale to `size` x `size` pixels.

        Training draws the same crop for a clip of this seed.

        Args:
            seed: of the clip (`mgm.rng.clip_seed`).
            crop: how it is drawn: VideoMAE's in pretraining (multiscale) or in fine-tuning
                (resized), or the middle.
            flip: whether it may be mirrored.

        Raises:
            ValueError, TypeError: the size or the seed is not possible.
        """
        # It needs torch, an optional package.
        from mgm.video.transform import random_crop

        whole("seed", seed), whole("size", size, 1, LARGEST_SIDE)
        with valid(""):
            clips = Clips(size=max(size, 8), crop=crop, flip=flip)
        return self.cut(random_crop(clips, self.height, self.width, seed), size)


def cut_frames(
    frames_THWC: np.ndarray, crop: Crop, size: int, video: tuple[int, int] | None = None
) -> np.ndarray:
    """Cut frames, and scale them to `size` x `size` pixels.

    Args:
        video: height and width of the video in whose pixels the crop is, if these are a copy's.
    """
    # An optional package, which takes seconds to import.
    import torch

    frame = frames_THWC.shape[1:3]
    height, width = video or frame
    if crop.scaling == "first":
        tall, wide = round(size * height / crop.height), round(size * width / crop.width)
        top, left = round(crop.top * tall / height), round(crop.left * wide / width)
        scaled_THWC = resize(frames_THWC, tall, wide, antialias=False)
        cut_THWC = scaled_THWC[:, top : top + size, left : left + size]
    else:
        own = crop.on(frame, (height, width))
        top, left, height, width = map(int, (own.top, own.left, own.height, own.width))
        part_THWC = frames_THWC[:, top : top + height, left : left + width]
        cut_THWC = resize(part_THWC, size, size, crop.scaling == "average")
    # NumPy would copy a mirrored view pixel by pixel, which takes longer than decoding JPEG.
    return torch.from_numpy(cut_THWC).flip(2).numpy() if crop.flip else cut_THWC


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
