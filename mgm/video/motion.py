"""Turn FFmpeg's motion vectors into one vector per 8 x 8 cell and one magnitude per time slot.

A vector points to the block's position in its *reference* frame. The reference may be several
frames away, in the past or in the future. `rasterise` turns vectors forward in time.
`reference_distance` is the distance to the nearest I- and P-frames. `mgm.video.compensation` finds
the vectors that reach elsewhere. Vectors are divided by the distance. This module needs only NumPy.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np

from mgm.errors import UserError, require_count
from mgm.video.crop import Crop

CELL = 8  # pixels: the smallest block for which FFmpeg exports a vector
# Which of a video's cells under a cell of a scaled crop count: all, or the one at its centre.
How = Literal["largest", "centre"]


def cells(pixels: int) -> int:
    """Return the number of cells along an axis. The last cell may reach beyond the edge."""
    return -(-pixels // CELL)


@dataclass(frozen=True, repr=False)
class Motion:
    """The motion of frames, in cells of 8 x 8 pixels.

    Args:
        vectors_THW2: float32 (dx, dy) in pixels from the reference frame, forward in time. Zero
            without a vector. H = ceil(height / 8), W = ceil(width / 8). Under a crop, the cells
            that it touches, still in pixels of the frame.
        distance_THW: float32, distance to the reference frame in frames, at least 1.
        has_mv_T: True for frames with motion information. I-frames have none. B-frames of MPEG-4
            have none, since FFmpeg exports zeros for them. A P-frame with zero vectors has motion
            information: nothing moved.
        frame: height and width of the frames whose pixels the vectors are in.
        crop: the part of these frames that counts. None: all.
        size: side of the crop after scaling, in pixels.
        kind_T, time_T: picture types, and times in seconds (`mgm.video.track.Track`). None: not
            known.
    """

    vectors_THW2: np.ndarray
    distance_THW: np.ndarray
    has_mv_T: np.ndarray
    frame: tuple[int, int]
    crop: Crop | None = None
    size: int = 0
    kind_T: np.ndarray | None = None
    time_T: np.ndarray | None = None

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
        """Return the motion of some of the frames; of one, by its number."""
        index = [index] if isinstance(index, int | np.integer) else index
        names = "vectors_THW2", "distance_THW", "has_mv_T", "kind_T", "time_T"
        known: dict[str, Any] = {name: getattr(self, name) for name in names}
        return replace(self, **{name: x[index] for name, x in known.items() if x is not None})

    def under(self, crop: Crop, size: int, frame: tuple[int, int] | None = None) -> "Motion":
        """Return the motion under a crop that is scaled to `size` x `size` pixels.

        Args:
            frame: height and width of the frames in whose pixels the crop is. Default: the frames
                of the vectors.

        Raises:
            UserError: the crop is not in the frame, the motion is under a crop already, or the size
                is no number of pixels.
        """
        if self.crop:
            raise UserError("the motion is under a crop already; pass that of whole frames")
        frame = frame or self.frame
        require_count("size", size)
        crop.require_in(*frame)
        crop, part = touched(crop, size, frame, self.frame)
        vectors_THW2, distance_THW = self.vectors_THW2[part], self.distance_THW[part]
        where: dict[str, Any] = {"crop": crop, "size": size}
        return replace(self, vectors_THW2=vectors_THW2, distance_THW=distance_THW, **where)

    @property
    def velocity_THW2(self) -> np.ndarray:
        """Return vectors / distances, float32: pixels per frame. Zero without motion information.

        Under a crop, it is in pixels of the scaled crop.
        """
        has_mv_T111 = self.has_mv_T[:, None, None, None]
        return self._scaled(self.vectors_THW2) / self.distance_THW[..., None] * has_mv_T111

    @property
    def speed_THW(self) -> np.ndarray:
        """Return the length of the velocity, float32."""
        vectors_THW2 = self._scaled(self.vectors_THW2)
        dx_THW, dy_THW = vectors_THW2[..., 0], vectors_THW2[..., 1]
        length_THW = np.sqrt(dx_THW * dx_THW + dy_THW * dy_THW)
        return length_THW / self.distance_THW * self.has_mv_T[:, None, None]

    def _scaled(self, vectors_THW2: np.ndarray) -> np.ndarray:
        """Return vectors in pixels of the scaled crop. Mirrored: x is negative."""
        if not (crop := self.crop):
            return vectors_THW2
        across = -self.size if crop.flip else self.size
        return vectors_THW2 * np.array([across / crop.width, self.size / crop.height], np.float32)

    @cached_property
    def at_centres(self) -> "Motion":
        """The motion at the centre of each of the crop's cells, in pixels of the scaled crop."""
        if not self.crop:
            return self
        vectors_THW2 = self._scaled(sampled(self.vectors_THW2, self, "centre"))
        distance_THW = sampled(self.distance_THW, self, "centre")
        where: dict[str, Any] = {"frame": (self.size, self.size), "crop": None, "size": 0}
        return replace(self, vectors_THW2=vectors_THW2, distance_THW=distance_THW, **where)

    def magnitude(self, tubelet: int) -> np.ndarray:
        """Return the magnitude of each slot's motion for masks, (S, H, W) float32.

        It is the sum of the speeds of the slot's frames, in pixels per frame. The paper does not
        specify how frames are combined. A slot without motion information is all zero.

        Under a crop, it is the largest of the video's cells under each of the crop's cells (eq. 6).
        A crop of a large frame has more cells than the scaled crop.

        Args:
            tubelet: frames per slot. Divides T.
        """
        return sampled(per_slot(self.speed_THW, tubelet), self, "largest")

    def mean_velocity(self, tubelet: int) -> np.ndarray:
        """Return the mean velocity of each slot's frames with motion information, (S, H, W, 2).

        Under a crop, it is that at the centres of the crop's cells, in its pixels per frame.
        """
        count_S = per_slot(self.has_mv_T, tubelet).clip(min=1)
        velocity_SHW2 = per_slot(self.at_centres.velocity_THW2, tubelet)
        return velocity_SHW2 / count_S[:, None, None, None]

    def displacement(self, tubelet: int, stride: int) -> np.ndarray:
        """Return how far each slot's content has moved since the previous slot, forward in time.

        The content is assumed to move at the mean velocity of the slot's frames.

        Args:
            tubelet: frames per slot. Divides T.
            stride: frames of the video from one frame of the clip to the next.

        Returns:
            (S, H, W, 2) float32: dx in units of the width, dy in units of the height. A slot
            without motion information is all zero.
        """
        height, width = self.at_centres.frame
        moved_SHW2 = self.mean_velocity(tubelet) * np.float32(tubelet * stride)
        return moved_SHW2 / np.array([width, height], np.float32)


def per_slot(values_T: np.ndarray, tubelet: int) -> np.ndarray:
    """Return the sum over each slot's frames, float32."""
    return values_T.reshape(-1, tubelet, *values_T.shape[1:]).sum(1, dtype=np.float32)


# --- Cells under a crop ---


def touched(
    crop: Crop, size: int, frame: tuple[int, int], own: tuple[int, int]
) -> tuple[Crop, tuple[slice, slice, slice]]:
    """Return a crop in pixels of frames of size `own`, and the cells of each frame that it touches.

    Args:
        crop: in pixels of frames of size `frame`, (height, width).
        size: its side once scaled, in pixels.
    """
    down, across = own[0] / frame[0], own[1] / frame[1]
    top, left, height, width = crop.top, crop.left, crop.height, crop.width
    crop = Crop(top * down, left * across, height * down, width * across, crop.flip)
    row_N2 = cells_under("largest", crop.top, crop.height, size, cells(own[0]))
    column_N2 = cells_under("largest", crop.left, crop.width, size, cells(own[1]))
    return crop, np.s_[:, row_N2[0, 0] : row_N2[-1, 1], column_N2[0, 0] : column_N2[-1, 1]]


def sampled(values_NHW: np.ndarray, motion: Motion, how: How) -> np.ndarray:
    """Return a value per cell of the motion's scaled crop, from values per cell that it touches.

    Args:
        values_NHW: may have more axes.
    """
    if not (crop := motion.crop):
        return values_NHW
    axes = (crop.top, crop.height), (crop.left, crop.width)
    for axis, (start, length) in enumerate(axes, start=1):
        given = start, length, motion.size, cells(motion.frame[axis - 1])
        range_N2 = cells_under(how, *given)
        if axis == 2 and crop.flip:
            range_N2 = range_N2[::-1]
        range_N2 = range_N2 - cells_under("largest", *given)[0, 0]
        first_N, last_N = range_N2[:, 0], range_N2[:, 1] - 1
        part, values_NHW = values_NHW, values_NHW.take(first_N, axis)
        for step in range(1, (last_N - first_N).max() + 1):
            next_N = np.minimum(first_N + step, last_N)
            np.maximum(values_NHW, part.take(next_N, axis), out=values_NHW)
    return values_NHW


# Clips of one size often have one crop.
@lru_cache(1000)
def cells_under(how: How, start: float, length: float, size: int, cells: int) -> np.ndarray:
    """Return the first cell of the video, and the end, under each cell of a crop's axis: (N, 2).

    Args:
        start, length: of the crop, in pixels.
        size: its side once scaled, in pixels.
        cells: of the video.
    """
    count = max(size // CELL, 1)
    if how == "centre":
        centre_N = (np.arange(count) + 0.5) / count
        cell_N = (start + centre_N * length).astype(np.int64) // CELL
        return np.stack([cell_N, cell_N + 1], 1)
    edge_N = (start + np.arange(count + 1) * length / count) / CELL
    # An overlap of a billionth of a cell is a rounding error.
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
    vectors: np.ndarray,
    height: int,
    width: int,
    rotation: Rotation = UPRIGHT,
    reach_N: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rasterise the motion vectors of a frame into cells, and turn them upright.

    A bi-predicted block has two vectors. The one with the past reference is used (the paper does
    not specify this). Blocks are cut off at the frame's edge.

    Args:
        vectors: as FFmpeg's `AVMotionVector`. A block's centre is (dst_x, dst_y), and
            its source is at dst + motion / motion_scale.
        height, width: of the frame as coded, in pixels.
        rotation: how the frame is shown.
        reach_N: of each vector (below). None: 1 if it refers to a future frame, else 0.

    Returns:
        motion_HW2: (dx, dy) in pixels, forward in time. Zero without a vector.
        reach_HW: uint8, the frame that the vector refers to. 0: the nearest I- or P-frame of the
            past. 1: that of the future. n: one that is n - 1 frames away.
    """
    rows, columns = cells(height), cells(width)
    # A margin of two cells on each side takes the parts of blocks outside the frame.
    line = columns + 4
    width_N, height_N = vectors["w"].astype(np.int32), vectors["h"].astype(np.int32)
    # The cell whose centre is in the block's first 8 x 8 pixels. In a cropped picture, blocks may
    # begin between cells.
    row_N = (vectors["dst_y"] - (height_N >> 1) + CELL // 2 - 1) // CELL
    column_N = (vectors["dst_x"] - (width_N >> 1) + CELL // 2 - 1) // CELL
    # NumPy's clip of integers takes three times as long for few numbers.
    row_N = np.minimum(np.maximum(row_N, -2), rows)
    cell_N = (row_N + 2) * line + np.minimum(np.maximum(column_N, -2), columns) + 2
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
    reach_N = np.append(future_N if reach_N is None else reach_N, 0).astype(np.uint8)
    return rotated(shift_N2[owner_HW], reach_N[owner_HW], height, width, rotation)


def rotated(
    motion_HW2: np.ndarray, reach_HW: np.ndarray, height: int, width: int, rotation: Rotation
) -> tuple[np.ndarray, np.ndarray]:
    """Turn the cells of a frame as `Rotation.apply` turns a frame of `height` x `width` pixels.

    Cells are counted from the top left corner, before and after. If a side is not a multiple of 8,
    each new cell takes the vector of the old cell at its centre.
    """
    if rotation == UPRIGHT:
        return motion_HW2, reach_HW
    cell_HW = np.arange(reach_HW.size).reshape(reach_HW.shape)
    cell_HW = rotation.apply(cell_HW.repeat(CELL, 0).repeat(CELL, 1)[:height, :width])
    sides = map(int, cell_HW.shape)
    centres = [np.minimum(np.arange(0, n, CELL) + CELL // 2, n - 1) for n in sides]
    cell_HW = cell_HW[np.ix_(*centres)]
    turned_HW2 = motion_HW2.reshape(-1, 2)[cell_HW]
    if rotation.swapped:
        turned_HW2 = turned_HW2[..., ::-1]
    signs = np.array([-1 if rotation.across else 1, -1 if rotation.down else 1], np.float32)
    return turned_HW2 * signs, reach_HW.ravel()[cell_HW]


def reference_distance(is_reference_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance, in frames, from each frame to its nearest I- and P-pictures.

    These are the last one before the frame in presentation order, and the first one after it.

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
