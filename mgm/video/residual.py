"""Residuals: a decoded picture minus its prediction from the reference pictures, by its vectors.

A codec stores vectors and what they do not explain. FFmpeg exports the vectors but not the rest, so
it is computed from decoded pictures. Brightness only (the luma plane, 8 bits).

The residual equals the codec's where vectors are whole pixels and the reference is the nearest one
(`motion.reference_distance`), up to the codec's deblocking of the picture. Between pixels the
reference is interpolated bilinearly: MPEG-1, 2, 4 and H.263 do so too at half pixels; H.264 and
MPEG-4's quarter pixels have longer filters. Weighted prediction is not exported.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgm.video.container import DecodedFrame, open_video
from mgm.video.motion import CELL, rasterise


@dataclass(frozen=True)
class Residual:
    """The residual of a picture.

    Args:
        index: its number in presentation order.
        kind: its type, "P" or "B".
        luma_HW: int16, decoded minus predicted brightness, upright. Zero where nothing is
            predicted.
        predicted_HW: True where a block has a vector. Blocks without one are coded without
            prediction from other pictures.
    """

    index: int
    kind: str
    luma_HW: np.ndarray
    predicted_HW: np.ndarray


def read_residuals(path: str | Path) -> Iterator[Residual]:
    """Yield the residual of each picture with motion information, in presentation order.

    A B-picture after the last reference picture has no future reference. Its blocks that need one
    count as not predicted.

    Raises:
        NoVectors: the codec has no motion vectors.
        UserError: the file cannot be read.
    """
    past: np.ndarray | None = None
    waiting = list[tuple[DecodedFrame, np.ndarray, np.ndarray | None]]()
    with open_video(path) as video:
        for picture in video.pictures():
            luma_HW = _luma(picture)
            # Copy the vectors, since FFmpeg reuses the buffer.
            vectors = None if picture.vectors is None else picture.vectors.copy()
            if not picture.is_reference:
                waiting.append((picture, luma_HW, vectors))
                continue
            for b_picture in waiting:
                yield from _residual(*b_picture, past, luma_HW)
            waiting.clear()
            yield from _residual(picture, luma_HW, vectors, past, None)
            past = luma_HW
        for b_picture in waiting:
            yield from _residual(*b_picture, past, None)


def _luma(picture: DecodedFrame) -> np.ndarray:
    """Return the picture's brightness as coded, without rotation."""
    frame = picture.frame
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        frame = frame.reformat(format="yuv420p")
    plane = frame.planes[0]
    lines_HX = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return lines_HX[:, : plane.width].copy()


def _residual(
    picture: DecodedFrame,
    luma_HW: np.ndarray,
    vectors: np.ndarray | None,
    past_HW: np.ndarray | None,
    future_HW: np.ndarray | None,
) -> Iterator[Residual]:
    if vectors is None:
        return
    height, width = luma_HW.shape
    sum_HW = np.zeros((height, width), np.float32)
    count_HW = np.zeros((height, width), np.int8)
    for reference_HW, own in ((past_HW, vectors["source"] < 0), (future_HW, vectors["source"] > 0)):
        if reference_HW is None or reference_HW.shape != luma_HW.shape or not own.any():
            continue
        shift_HW2, covered_HW = _shifts(vectors[own], height, width)
        sum_HW += np.where(covered_HW, compensate(reference_HW, shift_HW2), 0)
        count_HW += covered_HW
    predicted_HW = count_HW > 0
    # Codecs round the mean of two predictions up.
    prediction_HW = np.floor(sum_HW / np.maximum(count_HW, 1) + 0.5).astype(np.int16)
    residual_HW = np.where(predicted_HW, luma_HW - prediction_HW, 0).astype(np.int16)
    turns = picture.rotation
    yield Residual(
        picture.index, picture.kind, np.rot90(residual_HW, turns), np.rot90(predicted_HW, turns)
    )


def _shifts(vectors: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's (dx, dy) to its source, and where a block has a vector.

    Args:
        vectors: blocks with references on one side.
    """
    # With a vector of one pixel in each block, only cells without a block stay zero.
    marks = vectors.copy()
    marks["motion_x"], marks["motion_scale"] = 1, 1
    both = np.concatenate([vectors, marks])
    cells_2HW2, _ = rasterise(both, [len(vectors)] * 2, height, width)
    pixels_2HW2 = cells_2HW2.repeat(CELL, 1).repeat(CELL, 2)[:, :height, :width]
    # `rasterise` turns vectors forward in time, and those to the past point backward.
    sign = -1 if vectors["source"][0] < 0 else 1
    return sign * pixels_2HW2[0], pixels_2HW2[1, ..., 0] != 0


def compensate(reference_HW: np.ndarray, shift_HW2: np.ndarray) -> np.ndarray:
    """Return the reference's brightness at each pixel plus its shift, bilinearly.

    Outside the frame, the edge's pixels continue, as in codecs.

    Args:
        reference_HW: uint8.
        shift_HW2: (dx, dy) in pixels.

    Returns:
        (H, W) float32, rounded to whole steps.
    """
    height, width = reference_HW.shape
    # Flat positions in int32: twice as fast as indexing rows and columns.
    x_HW, y_HW = (shift_HW2[..., axis] for axis in (0, 1))
    left_HW, top_HW = np.floor(x_HW), np.floor(y_HW)
    right_HW, low_HW = x_HW - left_HW, y_HW - top_HW
    left_HW = left_HW.astype(np.int32) + np.arange(width, dtype=np.int32)
    top_HW = top_HW.astype(np.int32) + np.arange(height, dtype=np.int32)[:, None]
    columns = [(left_HW + side).clip(0, width - 1) for side in (0, 1)]
    rows = [(top_HW + side).clip(0, height - 1) * width for side in (0, 1)]
    flat_L = reference_HW.astype(np.float32).ravel()
    near_HW = flat_L.take(rows[0] + columns[0])
    if not (right_HW.any() or low_HW.any()):
        return near_HW
    upper_HW = near_HW + right_HW * (flat_L.take(rows[0] + columns[1]) - near_HW)
    below_HW = flat_L.take(rows[1] + columns[0])
    lower_HW = below_HW + right_HW * (flat_L.take(rows[1] + columns[1]) - below_HW)
    return np.floor(upper_HW + low_HW * (lower_HW - upper_HW) + 0.5)
