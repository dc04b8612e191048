"""Saliency: mean motion inside bounding boxes divided by that outside.

Source: paper, section 1.

The boxes are in boxes.csv next to the index, with the columns of `COLUMNS` and a line per box:
the video's name, the frame counted from 0, and edges in pixels of the source's frame as shown,
right and bottom exclusive. Frames without a line are not annotated and do not count. The boxes of a
generated set are known without a file.
"""

import csv
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mgm.data.index import Index, spread
from mgm.drawn.sets import load_boxes
from mgm.errors import UserError
from mgm.spec import Measure
from mgm.video.motion import CELL

if TYPE_CHECKING:
    from mgm.stages.run import RunContext

COLUMNS = ["path", "frame", "top", "left", "bottom", "right"]


def saliency(spec: Measure, run: "RunContext") -> dict[str, float]:
    """Return the score over all frames that are annotated and have motion vectors.

    `saliency` is the ratio of two means over the pixels of all videos. The mean of the videos'
    ratios is another reading of the paper. It is unbounded if a camera is static, since then
    nothing moves outside the boxes.

    Returns:
        saliency; inside, outside: mean motion in pixels per frame; videos: number of annotated
            videos.
    """
    boxes = read_boxes(run.index)
    motion, pixels, counted = np.zeros(2), np.zeros(2), 0  # outside, inside
    for video in spread(run.index.test, spec.videos or len(run.index.test)):
        annotated = boxes.get(video.name, {})
        counted += bool(annotated)
        track = video.read_track()
        # Vectors of an encoding of the store are in its smaller pixels.
        source = track.facts.source_height, track.facts.source_width
        scale_4 = np.tile(np.divide(track.facts.size, source), 2)
        height, width = track.facts.size
        frames = [t for t in np.flatnonzero(track.has_mv_T).tolist() if t in annotated]
        for frame, speed_HW in zip(frames, track[frames].speed_THW if frames else ()):
            within_PQ = inside(annotated[frame] * scale_4, height, width)
            speed_PQ = speed_HW.repeat(CELL, 0).repeat(CELL, 1)[:height, :width]
            motion += np.bincount(within_PQ.ravel(), speed_PQ.ravel(), minlength=2)
            pixels += np.bincount(within_PQ.ravel(), minlength=2)
    if not pixels.all() or not motion[0]:
        raise UserError(
            f"{run.index.root}: boxes.csv has boxes of {counted} videos, and nothing moves outside "
            "them; annotate videos with motion inside and outside"
        )
    outside_mean, inside_mean = (motion / pixels).tolist()
    score = inside_mean / outside_mean
    means = {"inside": inside_mean, "outside": outside_mean}
    return {"saliency": score, **means, "videos": float(counted)}


def inside(boxes_K4: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (height, width) bool, True if a pixel's centre is in a box."""
    top_K, left_K, bottom_K, right_K = boxes_K4.T[..., None]
    row_P, column_Q = np.arange(height) + 0.5, np.arange(width) + 0.5
    row_KP = (top_K <= row_P) & (row_P < bottom_K)
    column_KQ = (left_K <= column_Q) & (column_Q < right_K)
    return (row_KP[:, :, None] & column_KQ[:, None, :]).any(0)


def read_boxes(index: Index) -> Mapping[str, Mapping[int, np.ndarray]]:
    """Return the boxes of a prepared dataset, {video: {frame: (K, 4)}}.

    A box is top, left, bottom and right.
    """
    path = index.root / "boxes.csv"
    if index.drawn and not path.is_file():
        return {name: dict(enumerate(of_T)) for name, of_T in load_boxes(index.root).items()}
    if not path.is_file():
        raise UserError(f"{path}: no such file; write it, with columns {','.join(COLUMNS)}")
    boxes: dict[str, dict[int, list[list[float]]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        try:
            for row in csv.DictReader(file):
                of_frame = boxes.setdefault(row["path"], {}).setdefault(int(row["frame"]), [])
                of_frame.append([float(row[edge]) for edge in COLUMNS[2:]])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: {error}; its columns are {','.join(COLUMNS)}") from None
    return {
        name: {frame: np.array(own) for frame, own in frames.items()}
        for name, frames in boxes.items()
    }
