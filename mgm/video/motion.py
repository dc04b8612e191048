"""Turn FFmpeg's motion vectors into one vector per 8 x 8 cell and one magnitude per time slot.

A vector points to the block's position in its *reference* frame. The reference may be several
frames away, in the past or in the future. `rasterise` turns vectors forward in time.
`reference_distance` estimates the distance to the reference in frames. `slot_magnitude` divides the
vector's length by that distance. This module needs only NumPy.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mgm.spec import Compensate

VECTOR = np.dtype(
    [
        (name, np.int32)
        for name in ("source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
    ]
)
CELL = 8  # pixels: the smallest block for which FFmpeg exports a vector


def cells(pixels: int) -> int:
    """Return the number of cells along an axis. The last cell may reach beyond the edge."""
    return -(-pixels // CELL)


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
    counts_T: Sequence[int],
    height: int,
    width: int,
    rotation: Rotation = UPRIGHT,
) -> tuple[np.ndarray, np.ndarray]:
    """Rasterise the motion vectors of frames into cells, and turn them upright.

    A bi-predicted block has two vectors. The one with the past reference is used (the paper does
    not specify this). Blocks are cut off at the frame's edge.

    Args:
        vectors: all vectors, frame by frame, as FFmpeg's `AVMotionVector` (`VECTOR`). A block's
            centre is (dst_x, dst_y), and its source is at dst + motion / motion_scale.
        counts_T: the number of vectors of each frame.
        height, width: of the frames as coded, in pixels.
        rotation: how the frames are shown.

    Returns:
        motion_THW2: (dx, dy) in pixels, forward in time. Zero without a vector.
        future_THW: True if the vector refers to a future frame.
    """
    rows, columns = cells(height), cells(width)
    # A margin of two cells on each side takes the parts of blocks outside the frame.
    line = columns + 4
    width_N, height_N = vectors["w"].astype(np.int32), vectors["h"].astype(np.int32)
    # The cell whose centre is in the block's first 8 x 8 pixels. In a cropped picture, blocks may
    # begin between cells.
    row_N = (vectors["dst_y"] - (height_N >> 1) + CELL // 2 - 1) // CELL
    column_N = (vectors["dst_x"] - (width_N >> 1) + CELL // 2 - 1) // CELL
    row_N = row_N.clip(-2, rows) + np.repeat(np.arange(len(counts_T)) * (rows + 4) + 2, counts_T)
    cell_N = row_N * line + column_N.clip(-2, columns) + 2
    wide_N, tall_N, future_N = width_N > CELL, height_N > CELL, vectors["source"] > 0
    block_N, none = np.arange(len(vectors)), len(vectors)
    owner_L = np.full(len(counts_T) * (rows + 4) * line, none)
    # Past references come last, so that they overwrite future ones.
    for chosen_N in (future_N, ~future_N) if future_N.any() else (slice(None),):
        cell, block = cell_N[chosen_N], block_N[chosen_N]
        wide, tall = wide_N[chosen_N], tall_N[chosen_N]
        both = wide & tall
        owner_L[cell] = block
        owner_L[cell[wide] + 1] = block[wide]
        owner_L[cell[tall] + line] = block[tall]
        owner_L[cell[both] + line + 1] = block[both]
    owner_THW = owner_L.reshape(-1, rows + 4, line)[:, 2:-2, 2:-2]
    scale_N = np.maximum(vectors["motion_scale"], 1).astype(np.float32)
    # A block with a past reference to its left has moved to the right.
    scale_N[~future_N] *= -1
    # The last entry is for cells that no block covers.
    shift_N2 = np.zeros((none + 1, 2), np.float32)
    np.divide(vectors["motion_x"], scale_N, out=shift_N2[:-1, 0], casting="same_kind")
    np.divide(vectors["motion_y"], scale_N, out=shift_N2[:-1, 1], casting="same_kind")
    shift_N2 += 0  # turns -0 into 0
    return rotated(
        shift_N2.take(owner_THW, 0),
        np.append(future_N, False).take(owner_THW),
        height,
        width,
        rotation,
    )


def rotated(
    motion_THW2: np.ndarray, future_THW: np.ndarray, height: int, width: int, rotation: Rotation
) -> tuple[np.ndarray, np.ndarray]:
    """Turn the cells of frames as `Rotation.apply` turns frames of `height` x `width` pixels.

    Cells are counted from the top left corner, before and after. If a side is not a multiple of 8,
    each new cell takes the vector of the old cell at its centre.
    """
    if rotation == UPRIGHT:
        return motion_THW2, future_THW
    frames, rows, columns = future_THW.shape
    cell_HW = np.arange(rows * columns).reshape(rows, columns).repeat(CELL, 0).repeat(CELL, 1)
    cell_HW = rotation.apply(cell_HW[:height, :width])
    centres = [np.minimum(np.arange(0, side, CELL) + CELL // 2, side - 1) for side in cell_HW.shape]
    cell_HW = cell_HW[np.ix_(*centres)]
    motion_THW2 = motion_THW2.reshape(frames, -1, 2)[:, cell_HW]
    if rotation.swapped:
        motion_THW2 = motion_THW2[..., ::-1]
    signs = np.array([-1 if rotation.across else 1, -1 if rotation.down else 1], np.float32)
    return motion_THW2 * signs, future_THW.reshape(frames, -1)[:, cell_HW]


def reference_distance(
    index_T: np.ndarray, references: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the distance, in frames, from a frame to the references of its vectors.

    FFmpeg does not export it. The past reference is taken to be the last I- or P-picture before
    the frame in presentation order. The future reference is taken to be the first after it. The
    estimate is wrong if a B-picture is a reference, or if a P-picture refers further back.

    Args:
        index_T: indices of frames.
        references: sorted indices of all I- and P-pictures around them.

    Returns:
        past_T, future_T: 1 if no such picture is known.
    """
    index_T, references = np.asarray(index_T), np.asarray(references)
    before = np.searchsorted(references, index_T) - 1
    after = np.searchsorted(references, index_T, side="right")
    padded = np.append(references, 0)  # position -1 and one past the end
    past_T = np.where(before >= 0, index_T - padded[before], 1)
    future_T = np.where(after < len(references), padded[after] - index_T, 1)
    return past_T, future_T


def cell_distance(future_NHW: np.ndarray, past_N: np.ndarray, future_N: np.ndarray) -> np.ndarray:
    """Return the distance to the reference frame of each cell's vector, (N, H, W) float32.

    Args:
        future_NHW: True if the vector refers to a future frame.
        past_N, future_N: the frames' distances (`reference_distance`).
    """
    distance_NHW = np.where(future_NHW, future_N[:, None, None], past_N[:, None, None])
    return distance_NHW.astype(np.float32)


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


def frame_difference(frames_THWC: np.ndarray, tubelet: int) -> np.ndarray:
    """Return how much the brightness of each cell changes, per slot.

    It is the mean of |frame - previous frame of the clip| over a cell's pixels (ITU-R BT.601),
    summed over the slot's frames. The first frame adds nothing. A side of n pixels has n // 8
    cells, at least one. They divide it as evenly as pixels allow.

    Args:
        frames_THWC: uint8 RGB.
        tubelet: frames per slot. Divides T.

    Returns:
        (S, H, W) float32, in steps of 8 bits.
    """
    grey_THW = frames_THWC @ np.array([0.299, 0.587, 0.114], np.float32)
    change_THW = np.abs(np.diff(grey_THW, axis=0, prepend=grey_THW[:1]))
    for axis in (1, 2):
        side = change_THW.shape[axis]
        cells = max(side // CELL, 1)
        starts = np.arange(cells) * side // cells
        widths = np.diff(starts, append=side).astype(np.float32)
        shape = [-1 if other == axis else 1 for other in range(3)]
        change_THW = np.add.reduceat(change_THW, starts, axis) / widths.reshape(shape)
    return change_THW.reshape(-1, tubelet, *change_THW.shape[1:]).sum(1, dtype=np.float32)


def slot_displacement(
    motion_THW2: np.ndarray,
    distance_THW: np.ndarray,
    has_motion_T: np.ndarray,
    tubelet: int,
    stride: int,
) -> np.ndarray:
    """Return how far each slot's content has moved since the previous slot.

    The content is assumed to move at the mean speed of the slot's frames.

    Args:
        motion_THW2, distance_THW, has_motion_T: as for `slot_magnitude`.
        tubelet: frames per slot. Divides T.
        stride: frames of the video from one frame of the clip to the next.

    Returns:
        (S, H, W, 2) float32, (dx, dy) in pixels, forward in time. A slot without motion information
        is all zero.
    """
    speed_THW2 = motion_THW2 / distance_THW[..., None] * has_motion_T[:, None, None, None]
    has_mv_S = np.maximum(has_motion_T.reshape(-1, tubelet).sum(1), 1)
    sum_SHW2 = speed_THW2.reshape(-1, tubelet, *speed_THW2.shape[1:]).sum(1, dtype=np.float32)
    frames_S = np.float32(tubelet * stride) / has_mv_S.astype(np.float32)
    return sum_SHW2 * frames_S[:, None, None, None]


# --- The camera's motion ---

ROUNDS = 8  # of reweighting
NOISE = 0.1  # pixels per frame: the smallest spread of vectors around the camera's motion
# Pixels per frame. Shorter residuals are rounding errors, since codecs store quarters of a pixel.
NOTHING = 0.01
RIDGE_33 = 1e-9 * np.eye(3)  # for grids of one row or column


def compensated(
    motion_THW2: np.ndarray, distance_THW: np.ndarray, method: Compensate
) -> np.ndarray:
    """Subtract the camera's motion from each frame's vectors.

    The camera's motion is estimated from most cells. An affine fit finds it while moving objects
    cover less than 25 % of the frame. A cell without a vector counts as static. Vectors of one
    frame may refer to different frames, so they are compared as velocities.

    Args:
        motion_THW2: pixels from the reference frame.
        distance_THW: frames to the reference frame, >= 1.
        method: "median" subtracts the median velocity of each frame, which removes a pan. "affine"
            subtracts a robust fit of v = a + b x + c y, which removes zoom and rotation too.

    Returns:
        The residual vectors, like motion_THW2. Residuals shorter than `NOTHING` are zero.
    """
    frames, rows, columns, _ = motion_THW2.shape
    velocity_THW2 = motion_THW2.astype(np.float64) / distance_THW[..., None]
    velocity_TN2 = velocity_THW2.reshape(frames, -1, 2)
    camera_TN2 = np.median(velocity_TN2, axis=1, keepdims=True)
    if method == "affine":
        camera_TN2 = _affine_fit(velocity_TN2, camera_TN2, rows, columns)
    residual_TN2 = velocity_TN2 - camera_TN2
    residual_TN2[np.linalg.norm(residual_TN2, axis=2) < NOTHING] = 0
    residual_THW2 = residual_TN2.reshape(motion_THW2.shape) * distance_THW[..., None]
    return residual_THW2.astype(np.float32)


def _affine_fit(
    velocity_TN2: np.ndarray, camera_TN2: np.ndarray, rows: int, columns: int
) -> np.ndarray:
    """Fit v = a + b x + c y to each frame by iteratively reweighted least squares.

    Let r be a cell's distance from the last fit. Let s be the frame's spread, 1.48 times the median
    of r. For normal errors, s is their standard deviation. The cell's weight is that of Geman and
    McClure, (1 + r^2 / s^2)^-2. So the weights of moving objects soon approach zero.

    Args:
        camera_TN2: the first fit.
    """
    terms_N3 = _affine_terms(rows, columns)
    pairs_N9 = (terms_N3[:, :, None] * terms_N3[:, None]).reshape(-1, 9)
    for _ in range(ROUNDS):
        away_TN = np.linalg.norm(velocity_TN2 - camera_TN2, axis=2)
        spread_T1 = np.maximum(1.48 * np.median(away_TN, axis=1, keepdims=True), NOISE)
        weight_TN = (1 + (away_TN / spread_T1) ** 2) ** -2
        normal_T33 = (weight_TN @ pairs_N9).reshape(-1, 3, 3)
        right_T32 = terms_N3.T @ (weight_TN[..., None] * velocity_TN2)
        camera_TN2 = terms_N3 @ np.linalg.solve(normal_T33 + RIDGE_33, right_T32)
    return camera_TN2


def _affine_terms(rows: int, columns: int) -> np.ndarray:
    """Return 1, x and y of each cell, (N, 3), with x and y from -1 to 1."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    return np.stack([np.ones(x.size), x.ravel(), y.ravel()], 1)
