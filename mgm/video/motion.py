"""Turn FFmpeg's motion vectors into one vector per 8 x 8 cell and one magnitude per time slot.

A vector points to the block's position in its *reference* frame. The reference may be several
frames away, in the past or in the future. `rasterise` turns vectors forward in time.
`reference_distance` estimates the distance to the reference in frames. `slot_magnitude` divides the
vector's length by that distance. This module needs only NumPy.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from mgm.video.clip import Crop

CELL = 8  # pixels: the smallest block for which FFmpeg exports a vector


def cells(pixels: int) -> int:
    """Return the number of cells along an axis. The last cell may reach beyond the edge."""
    return -(-pixels // CELL)


@dataclass(frozen=True, repr=False)
class Motion:
    """The motion of frames, in cells of 8 x 8 pixels.

    Args:
        vectors_THW2: float32 (dx, dy) in pixels from the reference frame, forward in time. Zero
            without a vector. H = ceil(height / 8), W = ceil(width / 8).
        distance_THW: float32, estimated distance to the reference frame in frames, at least 1.
        has_mv_T: True for frames with motion information. I-frames have none. B-frames of MPEG-4
            have none, since FFmpeg exports zeros for them. A P-frame with zero vectors has motion
            information: nothing moved.
        frame: height and width of the frames whose pixels the vectors are in.
        crop: the part of these frames that counts. None: all.
        size: side of the crop after scaling, in pixels.
    """

    vectors_THW2: np.ndarray
    distance_THW: np.ndarray
    has_mv_T: np.ndarray
    frame: tuple[int, int]
    crop: "Crop | None" = None
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
        (height, width), count = self.frame, int(self.has_mv_T.sum())
        return f"Motion({count} of {len(self)} frames of {height} x {width} pixels)"

    def __getitem__(self, index: Any) -> "Motion":
        """Return the motion of some of the frames."""
        parts = self.vectors_THW2[index], self.distance_THW[index], self.has_mv_T[index]
        return Motion(*parts, self.frame, self.crop, self.size)

    @property
    def speed(self) -> np.ndarray:
        """Return the vectors' lengths / distances, (T, H, W) float32: pixels per frame."""
        return np.hypot(self.vectors_THW2[..., 0], self.vectors_THW2[..., 1]) / self.distance_THW

    def under(self, crop: "Crop", size: int, frame: tuple[int, int] | None = None) -> "Motion":
        """Return the motion under a crop that is scaled to `size` x `size` pixels.

        Args:
            frame: height and width of the frames in whose pixels the crop is. Default: the frames
                of the vectors.
        """
        height, width = frame or self.frame
        down, across = self.frame[0] / height, self.frame[1] / width
        own = replace(crop, top=crop.top * down, left=crop.left * across)
        own = replace(own, height=crop.height * down, width=crop.width * across)
        return replace(self, crop=own, size=size)

    @property
    def scale(self) -> np.ndarray:
        """Pixels of the scaled crop per pixel of the video, in x and y. Mirrored: x is negative."""
        assert self.crop
        across = -self.size if self.crop.flip else self.size
        return np.array([across / self.crop.width, self.size / self.crop.height], np.float32)

    @cached_property
    def at_centres(self) -> "Motion":
        """The motion at the centre of each of the crop's cells, in pixels of the scaled crop."""
        if not (crop := self.crop):
            return self
        count = max(self.size // CELL, 1)
        centre = (np.arange(count) + 0.5) / count
        row_H = (crop.top + centre * crop.height).astype(np.int64) // CELL
        column_W = (crop.left + centre * crop.width).astype(np.int64) // CELL
        part = np.s_[:, row_H[:, None], column_W[::-1] if crop.flip else column_W]
        moved = self.vectors_THW2[part] * self.scale, self.distance_THW[part]
        return Motion(*moved, self.has_mv_T, (self.size, self.size))

    def magnitude(self, tubelet: int) -> np.ndarray:
        """Return the magnitude of each slot's motion for masks, (S, H, W) float32.

        Under a crop, it is the largest of the video's cells under each of the crop's cells (eq. 6).
        A crop of a large frame has more cells than the scaled crop.
        """
        if not (crop := self.crop):
            return slot_magnitude(self.vectors_THW2, self.distance_THW, self.has_mv_T, tubelet)
        rows, columns = self.distance_THW.shape[1:]
        row_H2 = covered_cells(crop.top, crop.height, self.size, rows)
        column_W2 = covered_cells(crop.left, crop.width, self.size, columns)
        if crop.flip:
            column_W2 = column_W2[::-1]
        part = np.s_[:, row_H2.min() : row_H2.max(), column_W2.min() : column_W2.max()]
        moved = self.vectors_THW2[part] * self.scale, self.distance_THW[part], self.has_mv_T
        magnitude_SHW = largest(slot_magnitude(*moved, tubelet), row_H2 - row_H2.min(), 1)
        return largest(magnitude_SHW, column_W2 - column_W2.min(), 2)

    def displacement(self, tubelet: int, stride: int) -> np.ndarray:
        """Return how far each slot's content has moved since the previous slot, forward in time.

        The content is assumed to move at the mean speed of the slot's frames.

        Args:
            tubelet: frames per slot. Divides T.
            stride: frames of the video from one frame of the clip to the next.

        Returns:
            (S, H, W, 2) float32: dx in units of the width, dy in units of the height. A slot
            without motion information is all zero.
        """
        moved, has_mv_T111 = self.at_centres, self.has_mv_T[:, None, None, None]
        speed_THW2 = moved.vectors_THW2 / moved.distance_THW[..., None] * has_mv_T111
        sum_SHW2 = speed_THW2.reshape(-1, tubelet, *speed_THW2.shape[1:]).sum(1, dtype=np.float32)
        has_mv_S = np.maximum(self.has_mv_T.reshape(-1, tubelet).sum(1), 1)
        frames_S = np.float32(tubelet * stride) / has_mv_S.astype(np.float32)
        height, width = moved.frame
        return sum_SHW2 * frames_S[:, None, None, None] / np.array([width, height], np.float32)


def largest(values: np.ndarray, ranges_N2: np.ndarray, axis: int) -> np.ndarray:
    """Return the largest value of each range along an axis."""
    first_N, last_N = ranges_N2[:, 0], ranges_N2[:, 1] - 1
    found = values.take(first_N, axis)
    for step in range(1, (last_N - first_N).max() + 1):
        np.maximum(found, values.take(np.minimum(first_N + step, last_N), axis), out=found)
    return found


# Clips of one size often have one crop.
@lru_cache(1000)
def covered_cells(start: float, length: float, size: int, cells: int) -> np.ndarray:
    """Return the first cell of the video, and the end, under each cell of a crop's axis: (N, 2).

    An overlap of a billionth of a cell is a rounding error.

    Args:
        start, length: of the crop, in pixels.
        size: its side once scaled, in pixels.
        cells: of the video.
    """
    count = max(size // CELL, 1)
    edge_N = (start + np.arange(count + 1) * length / count) / CELL
    first_N = np.floor(edge_N[:-1] + 1e-9).astype(np.int64).clip(0, cells - 1)
    end_N = np.ceil(edge_N[1:] - 1e-9).astype(np.int64).clip(max=cells)
    return np.stack([first_N, np.maximum(end_N, first_N + 1)], 1)


class Rotation(NamedTuple):
    """How a picture is turned and mirrored to be shown.

    Args:
        swapped: rows become columns, first.
        down, across: then the picture is mirrored top to bottom, and left to right.
    """

    swapped: bool
    down: bool
    across: bool

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Return a view of a picture, (H, W, ...), as shown."""
        shown = picture.swapaxes(0, 1) if self.swapped else picture
        return shown[:: -1 if self.down else 1, :: -1 if self.across else 1]


UPRIGHT = Rotation(False, False, False)


def rasterise(
    vectors: np.ndarray, height: int, width: int, rotation: Rotation = UPRIGHT
) -> tuple[np.ndarray, np.ndarray]:
    """Rasterise the motion vectors of a frame into cells, and turn them upright.

    A bi-predicted block has two vectors. The one with the past reference is used (the paper does
    not specify this). Blocks are cut off at the frame's edge.

    Args:
        vectors: as FFmpeg's `AVMotionVector`. A block's centre is (dst_x, dst_y), and
            its source is at dst + motion / motion_scale.
        height, width: of the frame as coded, in pixels.
        rotation: how the frame is shown.

    Returns:
        motion_HW2: (dx, dy) in pixels, forward in time. Zero without a vector.
        future_HW: True if the vector refers to a future frame.
    """
    rows, columns = cells(height), cells(width)
    # A margin of two cells on each side takes the parts of blocks outside the frame.
    line = columns + 4
    width_N, height_N = vectors["w"].astype(np.int32), vectors["h"].astype(np.int32)
    # The cell whose centre is in the block's first 8 x 8 pixels. In a cropped picture, blocks may
    # begin between cells.
    row_N = (vectors["dst_y"] - (height_N >> 1) + CELL // 2 - 1) // CELL
    column_N = (vectors["dst_x"] - (width_N >> 1) + CELL // 2 - 1) // CELL
    cell_N = (row_N.clip(-2, rows) + 2) * line + column_N.clip(-2, columns) + 2
    wide_N, tall_N, future_N = width_N > CELL, height_N > CELL, vectors["source"] > 0
    block_N, none = np.arange(len(vectors)), len(vectors)
    owner_L = np.full((rows + 4) * line, none)
    # Past references come last, so that they overwrite future ones.
    for chosen_N in (future_N, ~future_N) if future_N.any() else (slice(None),):
        cell, block = cell_N[chosen_N], block_N[chosen_N]
        wide, tall = wide_N[chosen_N], tall_N[chosen_N]
        both = wide & tall
        owner_L[cell] = block
        owner_L[cell[wide] + 1] = block[wide]
        owner_L[cell[tall] + line] = block[tall]
        owner_L[cell[both] + line + 1] = block[both]
    owner_HW = owner_L.reshape(-1, line)[2:-2, 2:-2]
    scale_N = np.maximum(vectors["motion_scale"], 1).astype(np.float32)
    # A block with a past reference to its left has moved to the right.
    scale_N[~future_N] *= -1
    # The last entry is for cells that no block covers.
    shift_N2 = np.zeros((none + 1, 2), np.float32)
    np.divide(vectors["motion_x"], scale_N, out=shift_N2[:-1, 0], casting="same_kind")
    np.divide(vectors["motion_y"], scale_N, out=shift_N2[:-1, 1], casting="same_kind")
    shift_N2 += 0  # turns -0 into 0
    motion_HW2, future_HW = shift_N2[owner_HW], np.append(future_N, False)[owner_HW]
    return rotated(motion_HW2, future_HW, height, width, rotation)


def rotated(
    motion_HW2: np.ndarray, future_HW: np.ndarray, height: int, width: int, rotation: Rotation
) -> tuple[np.ndarray, np.ndarray]:
    """Turn the cells of a frame as `Rotation.apply` turns a frame of `height` x `width` pixels.

    Cells are counted from the top left corner, before and after. If a side is not a multiple of 8,
    each new cell takes the vector of the old cell at its centre.
    """
    if rotation == UPRIGHT:
        return motion_HW2, future_HW
    cell_HW = np.arange(future_HW.size).reshape(future_HW.shape)
    cell_HW = rotation.apply(cell_HW.repeat(CELL, 0).repeat(CELL, 1)[:height, :width])
    centres = [
        np.minimum(np.arange(0, side, CELL) + CELL // 2, side - 1)
        for side in map(int, cell_HW.shape)
    ]
    cell_HW = cell_HW[np.ix_(*centres)]
    turned_HW2 = motion_HW2.reshape(-1, 2)[cell_HW]
    if rotation.swapped:
        turned_HW2 = turned_HW2[..., ::-1]
    signs = np.array([-1 if rotation.across else 1, -1 if rotation.down else 1], np.float32)
    return turned_HW2 * signs, future_HW.ravel()[cell_HW]


def reference_distance(is_reference_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the distance, in frames, from each frame to the references of its vectors.

    FFmpeg does not export it. The past reference is taken to be the last I- or P-picture before
    the frame in presentation order. The future reference is taken to be the first after it. The
    estimate is wrong if a B-picture is a reference, or if a P-picture refers further back.

    Args:
        is_reference_T: True for I- and P-pictures.

    Returns:
        past_T, future_T: 1 if there is no such picture.
    """
    index_T, references = np.arange(len(is_reference_T)), np.flatnonzero(is_reference_T)
    before = np.searchsorted(references, index_T) - 1
    after = np.searchsorted(references, index_T, side="right")
    padded = np.append(references, 0)  # position -1 and one past the end
    past_T = np.where(before >= 0, index_T - padded[before], 1)
    future_T = np.where(after < len(references), padded[after] - index_T, 1)
    return past_T, future_T


def slot_magnitude(
    motion_THW2: np.ndarray, distance_THW: np.ndarray, has_motion_T: np.ndarray, tubelet: int
) -> np.ndarray:
    """Return each slot's motion: the sum over its frames of |motion| / reference distance.

    The paper does not specify how the frames of a slot are combined. We sum them.

    Args:
        motion_THW2: pixels from the reference frame.
        distance_THW: frames to the reference frame, >= 1.
        has_motion_T: frames with motion information. The others add nothing.
        tubelet: frames per slot. Divides T.

    Returns:
        (S, H, W) float32, pixels per frame, summed over `tubelet` frames. A slot without motion
        information is all zero.
    """
    dx_THW, dy_THW = motion_THW2[..., 0], motion_THW2[..., 1]
    magnitude_THW = np.sqrt(dx_THW * dx_THW + dy_THW * dy_THW)
    speed_THW = magnitude_THW / distance_THW * has_motion_T[:, None, None]
    return speed_THW.reshape(-1, tubelet, *speed_THW.shape[1:]).sum(1, dtype=np.float32)
