"""Features of a video that need no model: file facts, small pictures, statistics of its vectors.

They are the inputs of the controls (`mgm.stages.measure.controls`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from mgm.data.index import Video
from mgm.spec import Method
from mgm.video.clip import Motion
from mgm.video.motion import CELL
from mgm.video.read import read
from mgm.video.ring import read_batches

SIDE = 12  # rows and columns of a small picture
POINTS = 16  # points of a trajectory
# Edges of a histogram's 9 bins per axis, in pixels per frame of a video of short side 64.
# Codecs search in quarters of a pixel, so the middle bin is "still".
EDGES = (-4.0, -2.0, -1.0, -0.25, 0.25, 1.0, 2.0, 4.0)
SHORT_SIDE = 64
BINS = len(EDGES) + 1
MAX_FRAMES = 300  # of a video, from its middle: 10 s at Kinetics' 30 frames per second
MAX_BYTES = 400e6  # of decoded frames that are held at once


def read_all(videos: Sequence[Video], workers: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Decode each video once, and yield its features by name."""

    def features(_: Any, k: int, part: int) -> dict[str, np.ndarray]:
        video = videos[k]
        method: Method | None = "codec" if video.has_vectors else None
        (clip,) = read(video, [window(video)], None, 0, method)
        motion = motion_features(clip.known) if video.has_vectors else still_motion()
        return picture_features(clip.frames_THWC) | motion

    for _, answers in read_batches(features, range(len(videos)), 1, 0, {}, workers):
        yield answers[0]


def window(video: Video) -> np.ndarray:
    """Return the frames that are read: all, or the middle frames of a long or large video."""
    fits = int(MAX_BYTES // max(3 * video.width * video.height, 1))
    count = min(video.frames, MAX_FRAMES, max(fits, 2))
    return np.arange(count) + (video.frames - count) // 2


def file_facts(videos: Sequence[Video]) -> dict[str, np.ndarray]:
    """Return {fact: (N, numbers)} of the index's columns, without decoding a frame."""
    facts = {
        "frames": [[video.frames] for video in videos],
        "duration": [[video.frames / video.fps if video.fps else 0.0] for video in videos],
        "bytes": [[video.bytes] for video in videos],
        "picture_size": [[video.width, video.height] for video in videos],
    }
    return {name: np.array(rows, float).reshape(len(videos), -1) for name, rows in facts.items()}


def binned(train_NF: np.ndarray, values_MF: np.ndarray) -> np.ndarray:
    """Return each number's logarithm, and its decile of the training videos as one-hot.

    With the number alone, a linear probe could only assign one interval to each class.
    """
    parts = [np.log1p(np.abs(values_MF))]
    for train_N, values_M in zip(train_NF.T, values_MF.T, strict=True):
        edges = np.unique(np.quantile(train_N, np.arange(1, 10) / 10))
        parts.append(np.eye(len(edges) + 1)[np.searchsorted(edges, values_M)])
    return np.concatenate(parts, axis=1)


def picture_features(frames_THWC: np.ndarray) -> dict[str, np.ndarray]:
    """Return the middle frame, the mean frame and the mean |frame difference|, 12 x 12 each."""
    sum_HWC = np.zeros(frames_THWC.shape[1:], np.float32)
    moved_HW = np.zeros(frames_THWC.shape[1:3], np.float32)
    before_HW = None
    for frame_HWC in map(np.ascontiguousarray, frames_THWC):
        cv2.accumulate(frame_HWC, sum_HWC)
        grey_HW = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
        if before_HW is not None:
            cv2.accumulate(cv2.absdiff(grey_HW, before_HW), moved_HW)
        before_HW = grey_HW
    middle_HWC = frames_THWC[len(frames_THWC) // 2].astype(np.float32)
    return {
        "middle_frame": _small(middle_HWC),
        "mean_frame": _small(sum_HWC / len(frames_THWC)),
        "frame_difference": _small(moved_HW / max(len(frames_THWC) - 1, 1)),
    }


def _small(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() / 255


def motion_features(motion: Motion) -> dict[str, np.ndarray]:
    """Return statistics of motion vectors; zeros if no frame has motion information.

    Vectors are divided by their estimated reference distance, and scaled to a short side of 64
    pixels, so that videos of different sizes are comparable.
    """
    has_mv_T, (vectors_THW2, distance_THW) = motion.has_mv_T, motion.in_cells
    scale = SHORT_SIDE / min(motion.frame)
    speed_THW2 = scale * vectors_THW2[has_mv_T] / distance_THW[has_mv_T][..., None]
    if not len(speed_THW2):
        speed_THW2 = np.zeros((1, *vectors_THW2.shape[1:]), np.float32)
    positive = np.maximum(speed_THW2, 0).mean((0, 1, 2))
    negative = np.maximum(-speed_THW2, 0).mean((0, 1, 2))
    bin_THW2 = np.searchsorted(EDGES, speed_THW2)
    bin_THW = BINS * bin_THW2[..., 1] + bin_THW2[..., 0]
    height, width = bin_THW.shape[1:]
    quadrant_HW = 2 * (2 * np.arange(height) >= height)[:, None] + (2 * np.arange(width) >= width)
    counts_QB = np.bincount(
        (BINS**2 * quadrant_HW + bin_THW).ravel(), minlength=4 * BINS**2
    ).reshape(4, -1)
    # Take square roots, since nearly all cells are static, and rare motions must have an effect.
    return {
        "vector_mean": positive - negative,
        "vector_four": np.concatenate([positive, negative]),
        "vector_histogram": np.sqrt(counts_QB.sum(0) / bin_THW.size),
        "vector_quadrants": np.sqrt(
            counts_QB / np.maximum(counts_QB.sum(1, keepdims=True), 1)
        ).ravel(),
        "vector_trajectory": _trajectory(speed_THW2),
    }


def _trajectory(speed_THW2: np.ndarray) -> np.ndarray:
    """Return position and vector of the largest motion at `POINTS` times.

    The position is the mean of the cells with the largest magnitude. If nothing moves, it is the
    last position.
    """
    speed_THW = np.hypot(speed_THW2[..., 0], speed_THW2[..., 1])
    height, width = speed_THW.shape[1:]
    path_T4 = []
    last = (0.5, 0.5)
    for magnitude_HW, vector_HW2 in zip(speed_THW, speed_THW2, strict=True):
        row, column = np.nonzero(magnitude_HW == magnitude_HW.max())
        if magnitude_HW.max() > 0:
            last = ((column.mean() + 0.5) / width, (row.mean() + 0.5) / height)
        path_T4.append([*last, *vector_HW2[row, column].mean(0)])
    moments = np.linspace(0, len(path_T4) - 1, POINTS)
    return np.concatenate(
        [np.interp(moments, np.arange(len(path_T4)), part) for part in np.array(path_T4).T]
    )


def still_motion() -> dict[str, np.ndarray]:
    """Return the `motion_features` of a video whose vectors are all zero."""
    cells = np.zeros((1, 2, 2, 2), np.float32)
    distance_1HW = np.ones((1, 2, 2), np.float32)
    return motion_features(Motion(cells, distance_1HW, np.ones(1, bool), (2 * CELL, 2 * CELL)))
