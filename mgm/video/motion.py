"""Motion vectors as FFmpeg exports them, turned into one vector per 8 x 8 cell and one magnitude
per slot.

Numpy only. A vector says where a block came from in its *reference* frame, which may lie several
frames away and in the future; `rasterise` signs it forward in time, `reference_distance` estimates
how far away the reference was, `slot_magnitude` puts the two together.
"""

from collections.abc import Sequence

import numpy as np

VECTOR = np.dtype(
    [
        (name, np.int32)
        for name in ("source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
    ]
)
CELL = 8  # pixels: the smallest block FFmpeg exports a vector for


def cells(pixels: int) -> int:
    """Cells along an axis of `pixels`; the last one may hang over the edge."""
    return -(-pixels // CELL)


def rasterise(
    vectors: np.ndarray, counts_T: Sequence[int], height: int, width: int, rotation: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rasterise frames' motion vectors into cells, all frames in one go, and rotate them upright.

    A bi-predicted block has two vectors; the past reference's wins (the paper is silent). Blocks
    are cut off at the frame's edge.

    Args:
        vectors: structured, with the fields of FFmpeg's `AVMotionVector` that `VECTOR` names; those
            of one frame after those of another. (dst_x, dst_y) is a block's centre, and its source
            lies at dst + motion / motion_scale.
        counts_T: how many vectors each frame has.
        height, width: of the frames as coded, in pixels.
        rotation: quarter rotation counter-clockwise to show them upright.

    Returns:
        motion_THW2: (dx, dy) in pixels, forward in time; zero where no vector is.
        future_THW: True where the vector refers to a future frame.
    """
    rows, columns = cells(height), cells(width)
    line = columns + 4  # two cells of margin on each side take what lies outside
    width_N, height_N = vectors["w"].astype(np.int32), vectors["h"].astype(np.int32)
    row_N = (vectors["dst_y"] - (height_N >> 1)) // CELL
    column_N = (vectors["dst_x"] - (width_N >> 1)) // CELL
    row_N = row_N.clip(-2, rows) + np.repeat(np.arange(len(counts_T)) * (rows + 4) + 2, counts_T)
    cell_N = row_N * line + column_N.clip(-2, columns) + 2
    wide_N, tall_N, future_N = width_N > CELL, height_N > CELL, vectors["source"] > 0
    block_N, none = np.arange(len(vectors)), len(vectors)
    owner_L = np.full(len(counts_T) * (rows + 4) * line, none)
    for chosen_N in (
        (future_N, ~future_N) if future_N.any() else (slice(None),)
    ):  # past references last, so that they overwrite
        cell, block, wide, tall = (
            cell_N[chosen_N],
            block_N[chosen_N],
            wide_N[chosen_N],
            tall_N[chosen_N],
        )
        both = wide & tall
        owner_L[cell] = block
        owner_L[cell[wide] + 1] = block[wide]
        owner_L[cell[tall] + line] = block[tall]
        owner_L[cell[both] + line + 1] = block[both]
    owner_THW = owner_L.reshape(-1, rows + 4, line)[:, 2:-2, 2:-2]
    scale_N = np.maximum(vectors["motion_scale"], 1).astype(np.float32)
    scale_N[~future_N] *= -1  # a block that came from the left has moved to the right
    shift_N2 = np.zeros((none + 1, 2), np.float32)  # the last one is for cells that no block covers
    np.divide(vectors["motion_x"], scale_N, out=shift_N2[:-1, 0], casting="same_kind")
    np.divide(vectors["motion_y"], scale_N, out=shift_N2[:-1, 1], casting="same_kind")
    shift_N2 += 0  # no -0
    return rotate(
        shift_N2.take(owner_THW, 0),
        np.append(future_N, False).take(owner_THW),
        height,
        width,
        rotation,
    )


def rotate(
    motion_THW2: np.ndarray, future_THW: np.ndarray, height: int, width: int, rotation: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rotate frames' cells by `rotation` quarter turns counter-clockwise, as `np.rot90` turns a
    frame of `height` x `width` pixels.

    Cells are counted from the top left corner before and after, so where a side is no multiple of 8
    each new cell takes the vector of the old cell that holds its centre.
    """
    if not rotation:
        return motion_THW2, future_THW
    frames, rows, columns = future_THW.shape
    cell_HW = (
        np.arange(rows * columns)
        .reshape(rows, columns)
        .repeat(CELL, 0)
        .repeat(CELL, 1)[:height, :width]
    )
    cell_HW = np.rot90(cell_HW, rotation)
    row, column = (
        np.minimum(np.arange(0, side, CELL) + CELL // 2, side - 1) for side in cell_HW.shape
    )
    cell_HW = cell_HW[row[:, None], column]
    motion_THW2 = motion_THW2.reshape(frames, -1, 2)[:, cell_HW]
    signs = np.array({1: (1, -1), 2: (-1, -1), 3: (-1, 1)}[rotation], np.float32)
    return (motion_THW2[..., ::-1] if rotation % 2 else motion_THW2) * signs, future_THW.reshape(
        frames, -1
    )[:, cell_HW]


def reference_distance(
    index_T: np.ndarray, references: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate how many frames lie between a frame and the pictures its vectors refer to.

    No codec exports the distance. In presentation order, a past reference is taken to be the last
    I- or P-picture before the frame and a future one the next after it. B-pictures that serve as
    references and P-pictures that refer further back break the estimate.

    Args:
        index_T: indices of frames.
        references: sorted indices of all I- and P-pictures around them.

    Returns:
        past_T, future_T: distances in frames; 1 where no such picture is known.
    """
    index_T, references = np.asarray(index_T), np.asarray(references)
    before = np.searchsorted(references, index_T) - 1
    after = np.searchsorted(references, index_T, side="right")
    padded = np.append(references, 0)  # position -1 and one past the end
    past_T = np.where(before >= 0, index_T - padded[before], 1)
    future_T = np.where(after < len(references), padded[after] - index_T, 1)
    return past_T, future_T


def slot_magnitude(
    motion_THW2: np.ndarray, distance_THW: np.ndarray, has_motion_T: np.ndarray, tubelet: int
) -> np.ndarray:
    """Motion of a slot: the sum over its frames of |motion| / reference distance (a reading; the
    paper leaves shared slots open).

    Args:
        motion_THW2: pixels from the reference frame.
        distance_THW: frames to the reference frame, >= 1.
        has_motion_T: frames that carry motion information; the others add nothing.
        tubelet: frames in a slot; divides T.

    Returns:
        (S, H, W) float32, pixels a frame summed over `tubelet` frames. A slot without motion
        information is all zero.
    """
    dx_THW, dy_THW = motion_THW2[..., 0], motion_THW2[..., 1]
    speed_THW = (
        np.sqrt(dx_THW * dx_THW + dy_THW * dy_THW) / distance_THW * has_motion_T[:, None, None]
    )
    return speed_THW.reshape(-1, tubelet, *speed_THW.shape[1:]).sum(1, dtype=np.float32)


def slot_displacement(
    motion_THW2: np.ndarray,
    distance_THW: np.ndarray,
    has_motion_T: np.ndarray,
    tubelet: int,
    stride: int,
) -> np.ndarray:
    """Where a slot's content came from in the slot before, if it moved all the way as it does in
    the slot's frames.

    Args:
        motion_THW2, distance_THW, has_motion_T: as for `slot_magnitude`.
        tubelet: frames in a slot; divides T.
        stride: frames of the video from one of the clip to the next.

    Returns:
        (S, H, W, 2) float32, (dx, dy) in pixels, forward in time. A slot without motion information
        is all zero.
    """
    speed_THW2 = motion_THW2 / distance_THW[..., None] * has_motion_T[:, None, None, None]
    informed_S = np.maximum(has_motion_T.reshape(-1, tubelet).sum(1), 1)
    sum_SHW2 = speed_THW2.reshape(-1, tubelet, *speed_THW2.shape[1:]).sum(1, dtype=np.float32)
    return (
        sum_SHW2
        * (np.float32(tubelet * stride) / informed_S.astype(np.float32))[:, None, None, None]
    )
