"""Motion vectors as FFmpeg exports them, turned into one vector per 8 x 8 cell and one magnitude per slot.

Numpy only. A vector says where a block came from in its *reference* frame, which may lie several frames away and in the future;
`paint` signs it forward in time, `reference_distance` estimates how far away the reference was, `slot_magnitude` puts the two together.
"""

import numpy as np

VECTOR = np.dtype([(name, np.int32) for name in ("source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")])
CELL = 8  # pixels: the smallest block FFmpeg exports a vector for


def cells(pixels: int) -> int:
    """Cells along an axis of `pixels`; the last one may hang over the edge."""
    return -(-pixels // CELL)


def paint(vectors: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Paint a frame's motion vectors into cells.

    A bi-predicted block has two vectors; the past reference's wins (the paper is silent). Blocks are cut off at the frame's edge.

    Args:
        vectors: structured, with the fields of FFmpeg's `AVMotionVector` that `VECTOR` names. (dst_x, dst_y) is a block's centre, and
            its source lies at dst + motion / motion_scale.
        height, width: of the frame as coded, in pixels.

    Returns:
        motion_HW2: (dx, dy) in pixels, forward in time; zero where no vector is.
        future_HW: True where the vector refers to a future frame.
    """
    motion_HW2 = np.zeros((cells(height), cells(width), 2), np.float32)
    future_HW = np.zeros(motion_HW2.shape[:2], bool)
    future = vectors["source"] > 0
    shift_N2 = np.stack([vectors["motion_x"], vectors["motion_y"]], 1) / np.maximum(vectors["motion_scale"], 1)[:, None]
    shift_N2 = np.where(future[:, None], shift_N2, 0 - shift_N2)  # a block that came from the left has moved to the right
    down_41, right_41 = np.array([0, 0, 1, 1])[:, None], np.array([0, 1, 0, 1])[:, None]  # the cells of a block of 16 x 16
    width_N, height_N = vectors["w"].astype(int), vectors["h"].astype(int)
    row_4N = (vectors["dst_y"] - height_N // 2) // CELL + down_41
    column_4N = (vectors["dst_x"] - width_N // 2) // CELL + right_41
    inside_4N = (height_N > down_41 * CELL) & (row_4N >= 0) & (row_4N < future_HW.shape[0])
    inside_4N &= (width_N > right_41 * CELL) & (column_4N >= 0) & (column_4N < future_HW.shape[1])
    for chosen_N in (future, ~future):  # past references last, so that they overwrite
        painted_4N = inside_4N & chosen_N
        row, column, block = row_4N[painted_4N], column_4N[painted_4N], np.nonzero(painted_4N)[1]
        motion_HW2[row, column] = shift_N2[block]
        future_HW[row, column] = future[block]
    return motion_HW2, future_HW


def turn(motion_HW2: np.ndarray, future_HW: np.ndarray, height: int, width: int, turns: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn a frame's cells by `turns` quarter turns counter-clockwise, as `np.rot90` turns the frame of `height` x `width` pixels.

    Cells are counted from the top left corner before and after, so where a side is no multiple of 8 each new cell takes the vector
    of the old cell that holds its centre.
    """
    if not turns:
        return motion_HW2, future_HW
    rows, columns = np.arange(motion_HW2.shape[0]), np.arange(motion_HW2.shape[1])
    if turns in (2, 3):
        rows = _reversed(height)
    if turns in (1, 2):
        columns = _reversed(width)
    motion_HW2, future_HW = motion_HW2[rows][:, columns], future_HW[rows][:, columns]
    if turns in (1, 3):
        motion_HW2, future_HW = motion_HW2.transpose(1, 0, 2)[..., ::-1], future_HW.T
    signs = np.array({1: (1, -1), 2: (-1, -1), 3: (-1, 1)}[turns], np.float32)
    return motion_HW2 * signs, future_HW


def _reversed(pixels: int) -> np.ndarray:
    """For each cell of a reversed axis, the old cell that holds its centre."""
    centre = np.minimum(np.arange(0, pixels, CELL) + CELL // 2, pixels - 1)
    return (pixels - 1 - centre) // CELL


def reference_distance(index_T: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate how many frames lie between a frame and the pictures its vectors refer to.

    No codec exports the distance. In presentation order, a past reference is taken to be the last I- or P-picture before the frame and
    a future one the next after it. B-pictures that serve as references and P-pictures that refer further back break the estimate.

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


def slot_magnitude(motion_THW2: np.ndarray, distance_THW: np.ndarray, has_motion_T: np.ndarray, tubelet: int) -> np.ndarray:
    """Motion of a slot: the sum over its frames of |motion| / reference distance (a reading; the paper leaves shared slots open).

    Args:
        motion_THW2: pixels from the reference frame.
        distance_THW: frames to the reference frame, >= 1.
        has_motion_T: frames that carry motion information; the others add nothing.
        tubelet: frames in a slot; divides T.

    Returns:
        (S, H, W) float32, pixels a frame summed over `tubelet` frames. A slot without motion information is all zero.
    """
    speed_THW = np.sqrt(np.square(motion_THW2).sum(-1)) / distance_THW * has_motion_T[:, None, None]
    return speed_THW.reshape(-1, tubelet, *speed_THW.shape[1:]).sum(1, dtype=np.float32)
