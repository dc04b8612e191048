"""Motion compensation: which references vectors mean, and what is left of a picture.

FFmpeg exports no reference of a vector. Where a picture chooses from several, a block that moves by
more than a pixel refers to the one that fits its pixels best. All is of luma, from decoded pixels.
"""

from typing import Any

import av
import numpy as np

from mgm.video.motion import CELL, UPRIGHT, cells, rasterise
from mgm.video.references import References

# Pixels that are compared, from a block's centre, in eighths of its side.
PLACES = np.array([-3, -1, 1, 3])
BETTER = 0.9  # of the error at the nearest reference, below which another one is chosen
SIX = np.array([1, -5, 20, 20, -5, 1]) / 32  # H.264's filter of half pixels


def reach(vectors: np.ndarray, frame: av.VideoFrame, references: References) -> np.ndarray:
    """Return how far each vector of a picture reaches, uint8 (`References`).

    Args:
        vectors: as FFmpeg exports them, in pixels of the picture.
    """
    future_N = vectors["source"] > 0
    reach_N = future_N.astype(np.uint8)
    # Without a choice, all reach to the nearest I- or P-picture.
    if all(far < 2 for side in references for far, _ in side):
        return reach_N
    import cv2

    remap: Any = cv2.remap  # its types lack the None of one map
    luma_HW, scale_N = luma(frame), np.maximum(vectors["motion_scale"], 1)
    motion_N2 = np.empty((len(vectors), 2), np.float32)
    np.divide(vectors["motion_x"], scale_N, out=motion_N2[:, 0], casting="same_kind")
    np.divide(vectors["motion_y"], scale_N, out=motion_N2[:, 1], casting="same_kind")
    moves_N = np.einsum("ni,ni->n", motion_N2, motion_N2) > 1
    for side_N, found in zip((~future_N, future_N), references):
        if found:
            reach_N[side_N] = found[0][0]
        chosen = np.flatnonzero(side_N & moves_N) if len(found) > 1 else ()
        if not len(chosen):
            continue
        part, (height, width) = vectors[chosen], luma_HW.shape
        x_NX = part["dst_x"][:, None] + (part["w"] >> 3)[:, None].astype(np.int32) * PLACES
        y_NY = part["dst_y"][:, None] + (part["h"] >> 3)[:, None].astype(np.int32) * PLACES
        place_NYX2 = np.empty((len(part), len(PLACES), len(PLACES), 2), np.float32)
        place_NYX2[..., 0] = x_NX.clip(0, width - 1)[:, None]
        place_NYX2[..., 1] = y_NY.clip(0, height - 1)[:, :, None]
        place_NP2 = place_NYX2.reshape(len(part), -1, 2)
        own_NP = remap(luma_HW, place_NP2, None, cv2.INTER_NEAREST)
        place_NP2 += motion_N2[chosen, None]
        error_KN = np.empty((len(found), len(part)), np.float32)
        for error_N, (_, other) in zip(error_KN, found):
            how: Any = {"interpolation": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
            difference_NP = cv2.absdiff(own_NP, remap(luma(other), place_NP2, None, **how))
            error_N[:] = cv2.reduce(difference_NP, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0]
        error_KN[0] *= BETTER
        reach_N[chosen] = np.array([one for one, _ in found], np.uint8)[error_KN.argmin(0)]
    return reach_N


def residual(
    vectors: np.ndarray, frame: av.VideoFrame, references: References, half: bool
) -> np.ndarray:
    """Return what motion compensation leaves of a picture, (H, W) int16.

    A cell with a past and a future vector has the best of both, and of their mean. Of one without a
    vector, which is intra-coded, it is what differs from the cell's mean.

    Args:
        vectors: see `reach`.
        half: half pixels are those of H.264. Otherwise they are bilinear.
    """
    luma_HW, future_N = luma(frame), vectors["source"] > 0
    reach_N = reach(vectors, frame, references)
    (height, width), own_HW = luma_HW.shape, luma_HW.astype(np.float32)
    made = list[tuple[np.ndarray, np.ndarray]]()
    for side_N, found, sign in zip((~future_N, future_N), references, (-1, 1)):
        place = np.zeros(256, np.uint8)  # of each reach. 0: a cell has no vector of this side
        place[[far for far, _ in found]] = 1 + np.arange(len(found))
        side = vectors[side_N], height, width, UPRIGHT, place[reach_N[side_N]]
        moved_HW2, place_HW = rasterise(*side)
        predicted_HW = np.zeros_like(own_HW)
        for number, (_, other) in enumerate(found, start=1):
            if (here_HW := place_HW == number).any():
                other_HW = _moved(luma(other), sign * moved_HW2, half)
                np.copyto(predicted_HW, other_HW, where=_pixels(here_HW, luma_HW))
        made.append((predicted_HW, place_HW > 0))
    (past_HW, has_past_HW), (future_HW, has_future_HW) = made
    both_HW = has_past_HW & has_future_HW
    mean_HW = np.floor((past_HW + future_HW + 1) / 2)
    left_HW = own_HW - _pixels(np.rint(_means(own_HW)), luma_HW)
    least_HW = np.full(both_HW.shape, np.inf)
    for predicted_HW, has_HW in (*made, (mean_HW, both_HW)):
        if has_HW.any():
            difference_HW = own_HW - predicted_HW
            error_HW = _means(np.abs(difference_HW))
            better_HW = has_HW & (error_HW < least_HW)
            least_HW = np.where(better_HW, error_HW, least_HW)
            np.copyto(left_HW, difference_HW, where=_pixels(better_HW, luma_HW))
    return left_HW.astype(np.int16)


def _pixels(cells_HW: np.ndarray, luma_HW: np.ndarray) -> np.ndarray:
    """Return the cell's value at each pixel of a picture."""
    height, width = luma_HW.shape
    return cells_HW.repeat(CELL, 0).repeat(CELL, 1)[:height, :width]


def _means(pixels_HW: np.ndarray) -> np.ndarray:
    """Return the mean of each cell. The edge is repeated."""
    import cv2

    rows, columns = map(cells, pixels_HW.shape)
    down, across = CELL * rows - pixels_HW.shape[0], CELL * columns - pixels_HW.shape[1]
    whole_HW = cv2.copyMakeBorder(pixels_HW, 0, down, 0, across, cv2.BORDER_REPLICATE)
    return cv2.resize(whole_HW, (columns, rows), interpolation=cv2.INTER_AREA)


def _moved(luma_HW: np.ndarray, source_HW2: np.ndarray, half: bool) -> np.ndarray:
    """Return a picture whose cells are from elsewhere in `luma_HW`, by so many pixels."""
    import cv2

    remap: Any = cv2.remap
    y_HW, x_HW = np.indices(luma_HW.shape, np.float32)
    place_HW2 = _pixels(source_HW2, luma_HW) + np.stack([x_HW, y_HW], 2)
    if half:
        luma_HW, place_HW2 = _doubled(luma_HW), 2 * place_HW2
    return remap(luma_HW, place_HW2, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _doubled(luma_HW: np.ndarray) -> np.ndarray:
    """Return a picture of twice the size, with H.264's half pixels in between."""
    import cv2

    out, one = np.empty((2 * luma_HW.shape[0], 2 * luma_HW.shape[1]), np.uint8), np.ones(1)
    out[::2, ::2] = luma_HW
    for y, x in ((0, 1), (1, 0), (1, 1)):
        kernels, anchor = (SIX if x else one, SIX if y else one), (2 * x, 2 * y)
        out[y::2, x::2] = cv2.sepFilter2D(
            luma_HW, -1, *kernels, anchor=anchor, borderType=cv2.BORDER_REPLICATE
        )
    return out


def luma(frame: av.VideoFrame) -> np.ndarray:
    """Return the luma of a frame, (H, W) uint8, in FFmpeg's own buffer where it has 8 bits."""
    plane, deep = frame.planes[0], frame.format.components[0].bits - 8
    lines: Any = np.frombuffer(memoryview(plane), np.uint16 if deep > 0 else np.uint8)
    lines = lines.reshape(plane.height, -1)[:, : plane.width]
    return (lines >> deep).astype(np.uint8) if deep > 0 else lines
