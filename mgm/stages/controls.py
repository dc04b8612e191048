"""Controls: what a linear probe learns from features that need no trained model.

The accuracy of a model shows video understanding only if it is higher than these. `CONTROLS` lists
them. There are four kinds:

    file      facts about the file: its length, size and picture size
    picture   small pictures: the middle frame, the mean frame, the mean difference of frames
    motion    statistics of the codec's motion vectors
    model     an encoder with random weights, of the same size as the trained ones

Labels, splits, groups and the classifier are those of a probe with the same seed.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader

from mgm.data.index import Video
from mgm.spec import CONTROLS, Measure, Probe
from mgm.stages.evaluate import merged
from mgm.stages.probe import classify, features
from mgm.stages.run import RunContext
from mgm.video.motion import Motion
from mgm.video.store import read_clips
from mgm.video.track import Track

SIDE = 12  # rows and columns of a small picture
POINTS = 16  # points of a trajectory
# Edges of a histogram's 9 bins per axis, in pixels per frame of a video of short side 64.
# Codecs search in quarters of a pixel, so the middle bin is "still".
EDGES = (-4.0, -2.0, -1.0, -0.25, 0.25, 1.0, 2.0, 4.0)
SHORT_SIDE = 64
BINS = len(EDGES) + 1
MOST_FRAMES = 300  # of a video, from its middle: 10 s at Kinetics' 30 frames per second


def controls(spec: Measure, run: RunContext) -> dict[str, float]:
    """Classify the test videos by each control.

    Returns:
        The top-1 accuracy of each control in per cent, and that of the most frequent test class,
        `chance`.
    """
    # Random weights, and the measurement's clips.
    names = ("data", "clips", "model", "seed", "train_clips", "views")
    probe = Probe(**{name: getattr(spec, name) for name in names})
    videos, test = run.training_videos(probe), run.index.test
    label_N = np.array([video.label for video in test])
    chance = 100 * np.bincount(label_N).max() / len(label_N)
    train_of, test_of = model_free(videos, test, run.workers)
    metrics = {"chance": float(chance)}
    for control in CONTROLS:
        if control.kind == "model":
            (x_ND, sample_N), (query_MD, sample_M) = features(probe, run, videos)
        else:
            x_ND, query_MD = train_of[control.name], test_of[control.name]
            sample_N, sample_M = np.arange(len(videos)), np.arange(len(test))
        classes, threads = len(run.index.classes), run.options.threads
        score_MC, _ = classify(videos, x_ND, sample_N, query_MD, classes, spec.seed, threads)
        right_N = merged(score_MC, sample_M).argmax(axis=1) == label_N
        metrics[control.name] = 100 * float(right_N.mean())
    return metrics


def model_free(
    train: Sequence[Video], test: Sequence[Video], workers: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return {control: (videos, numbers)} of training and of test videos, without the model's."""
    parts = []
    for videos in (train, test):
        # A list is a dataset, and `collate_fn` runs in the workers.
        given: dict[str, Any] = {"dataset": videos, "collate_fn": _features}
        rows = list(DataLoader(batch_size=None, num_workers=workers, **given))
        parts.append({name: np.stack([row[name] for row in rows]) for name in rows[0]})
    for control in CONTROLS:
        if control.kind == "file" and control.name != "file_facts":
            known_NF = parts[0][control.name]
            for own in reversed(parts):
                own[control.name] = binned(known_NF, own[control.name])
    for own in parts:
        facts = ("frames", "duration", "bytes", "picture_size")
        own["file_facts"] = np.concatenate([own[name] for name in facts], axis=1)
    return parts[0], parts[1]


def _features(video: Video) -> dict[str, np.ndarray]:
    """Return the features of a video, which is decoded once."""
    track = Track(video.track())
    count = min(video.frames, MOST_FRAMES)
    index_T = np.arange(count) + (video.frames - count) // 2
    facts = {
        "frames": [video.frames],
        "duration": [video.frames / video.fps if video.fps else 0.0],
        "bytes": [video.source_bytes or video.bytes],  # a drawn video has no source
        "picture_size": [track.facts.source_width, track.facts.source_height],
    }
    return (
        {name: np.array(numbers, float) for name, numbers in facts.items()}
        | picture_features(read_clips(video.path, track, index_T[None], None, 0)[0])
        | motion_features(track.motion(index_T))
    )


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
    grey_THW = [cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY) for frame_HWC in frames_THWC]
    changes = [cv2.absdiff(*pair) for pair in pairwise(grey_THW)]
    pictures = {
        "middle_frame": frames_THWC[len(frames_THWC) // 2].astype(np.float32),
        "mean_frame": frames_THWC.mean(axis=0, dtype=np.float32),
        "frame_difference": np.mean(changes or [0 * grey_THW[0]], axis=0, dtype=np.float32),
    }
    return {
        name: cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel() / 255
        for name, picture in pictures.items()
    }


def motion_features(motion: Motion) -> dict[str, np.ndarray]:
    """Return statistics of motion vectors; zeros if no frame has motion information.

    Vectors are divided by their estimated reference distance, and scaled to a short side of 64
    pixels, so that videos of different sizes are comparable.
    """
    has_mv_T, scale = motion.has_mv_T, SHORT_SIDE / min(motion.frame)
    distance_THW1 = motion.distance_THW[has_mv_T][..., None]
    speed_THW2 = scale * motion.vectors_THW2[has_mv_T] / distance_THW1
    if not len(speed_THW2):
        speed_THW2 = np.zeros((1, *motion.vectors_THW2.shape[1:]), np.float32)
    positive = np.maximum(speed_THW2, 0).mean((0, 1, 2))
    negative = np.maximum(-speed_THW2, 0).mean((0, 1, 2))
    bin_THW2 = np.searchsorted(EDGES, speed_THW2)
    bin_THW = BINS * bin_THW2[..., 1] + bin_THW2[..., 0]
    height, width = bin_THW.shape[1:]
    quadrant_HW = 2 * (2 * np.arange(height) >= height)[:, None] + (2 * np.arange(width) >= width)
    counts_QB = np.bincount(
        (BINS**2 * quadrant_HW + bin_THW).ravel(), minlength=4 * BINS**2
    ).reshape(4, -1)
    share_QB = counts_QB / np.maximum(counts_QB.sum(1, keepdims=True), 1)
    # Take square roots, since nearly all cells are static, and rare motions must have an effect.
    return {
        "vector_mean": positive - negative,
        "vector_four": np.concatenate([positive, negative]),
        "vector_histogram": np.sqrt(counts_QB.sum(0) / bin_THW.size),
        "vector_quadrants": np.sqrt(share_QB).ravel(),
        "vector_trajectory": trajectory(speed_THW2),
    }


def trajectory(speed_THW2: np.ndarray) -> np.ndarray:
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
