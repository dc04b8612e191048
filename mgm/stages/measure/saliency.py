"""Compute the saliency score: mean motion inside bounding boxes divided by that outside.

Source: paper, section 1.

Boxes are next to the index, in one of two files. boxes.csv is used if both exist:

    boxes.csv   path,frame,top,left,bottom,right     a line per box: the video's path below the
                                                     index's root (as in index.csv), the frame
                                                     counted from 0, and edges in pixels of the
                                                     decoded frame, right and bottom exclusive
    boxes.npz   of a generated set (`mgm.data.synthetic.generator.load_boxes`)

Frames without a line in boxes.csv are not annotated and do not count.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mgm.data.index import Index, Video
from mgm.data.synthetic.generator import load_boxes
from mgm.errors import UserError
from mgm.reading import read_table
from mgm.spec import Measure
from mgm.stages.job import Job
from mgm.stages.measure import choose
from mgm.video.motion import CELL
from mgm.video.track import Track, track_path

COLUMNS = ["path", "frame", "top", "left", "bottom", "right"]


def saliency_score(index: Index, folder: Path, videos: Sequence[Video]) -> dict[str, Any]:
    """Return the score over all frames that are annotated and have motion vectors.

    `saliency` is the ratio of two means over the pixels of all videos. The mean of the videos'
    ratios is another reading of the paper. It is unbounded if a camera is static, since then
    nothing moves outside the boxes.

    Returns:
        saliency; inside, outside: mean motion in pixels per frame; videos: number of annotated
            videos.
    """
    boxes = read_boxes(folder, index)
    motion, pixels, counted = np.zeros(2), np.zeros(2), 0  # outside, inside
    for video in videos:
        annotated = boxes.get(index.name(video), {})
        if not annotated:
            continue
        counted += 1
        track = Track(track_path(video.track, "codec"))
        height, width = track.size
        frames = [t for t in np.flatnonzero(track.has_mv_T).tolist() if t in annotated]
        for frame, speed_HW in zip(frames, track[frames].speed):
            within_PQ = inside(annotated[frame], height, width)
            speed_PQ = speed_HW.repeat(CELL, 0).repeat(CELL, 1)[:height, :width]
            motion += np.bincount(within_PQ.ravel(), speed_PQ.ravel(), minlength=2)
            pixels += np.bincount(within_PQ.ravel(), minlength=2)
    if not counted:
        raise UserError(f"{folder}: none of the {len(videos)} videos with vectors has boxes")
    if not pixels.all() or not motion[0]:
        raise UserError(
            f"{folder}: {pixels[1]:.0f} pixels lie inside boxes and {pixels[0]:.0f} outside, where "
            f"the motion sums to {motion[0]:.4g}; annotate videos with both, and with motion "
            "outside"
        )
    outside_mean, inside_mean = (motion / pixels).tolist()
    return {
        "saliency": inside_mean / outside_mean,
        "inside": inside_mean,
        "outside": outside_mean,
        "videos": counted,
    }


def inside(boxes_K4: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (height, width) bool, True if a pixel's centre is in a box."""
    top_K, left_K, bottom_K, right_K = boxes_K4.T[..., None]
    row_P, column_Q = np.arange(height) + 0.5, np.arange(width) + 0.5
    row_KP = (top_K <= row_P) & (row_P < bottom_K)
    column_KQ = (left_K <= column_Q) & (column_Q < right_K)
    return (row_KP[:, :, None] & column_KQ[:, None, :]).any(0)


def read_boxes(folder: Path, index: Index) -> Mapping[str, Mapping[int, np.ndarray]]:
    """Read the boxes next to an index, by path below its root and by frame.

    Boxes are (K, 4): top, left, bottom, right.
    """
    if (folder / "boxes.csv").is_file():
        return _read_csv(folder / "boxes.csv", index)
    if (folder / "boxes.npz").is_file():
        drawn = load_boxes(folder)
        return {
            index.name(video): dict(enumerate(drawn[Path(video.path).stem])) for video in index.test
        }
    raise UserError(
        f"no boxes: neither {folder / 'boxes.csv'} nor {folder / 'boxes.npz'} (of generated sets) "
        f"exists; write the first, with columns {','.join(COLUMNS)}"
    )


def _read_csv(path: Path, index: Index) -> dict[str, dict[int, np.ndarray]]:
    frames_of = {index.name(video): video.frames for video in index.videos} | {
        name: 0 for name, _ in index.excluded
    }
    boxes: dict[str, dict[int, list[list[float]]]] = {}
    rows = read_table(path)
    _, header = next(rows, (0, []))
    if header != COLUMNS:
        raise UserError(f"{path}: its first line is {','.join(header)}; write {','.join(COLUMNS)}")
    for line, row in rows:
        try:
            name, frame, *edges = row
            box = [float(edge) for edge in edges]
            number = int(frame)
            top, left, bottom, right = box
        except ValueError:
            raise UserError(
                f"{path}: line {line} is {','.join(row)}; write a path and five numbers"
            ) from None
        if name not in frames_of:
            raise UserError(f"{path}: line {line}: {name} is not a video of the index")
        frames = frames_of[name]
        if frames and not 0 <= number < frames:
            raise UserError(f"{path}: line {line}: {name} has {frames} frames, no frame {number}")
        if not (top <= bottom and left <= right):
            raise UserError(f"{path}: line {line}: the box ends before it begins")
        boxes.setdefault(name, {}).setdefault(number, []).append(box)
    return {
        name: {frame: np.array(boxes_of_frame) for frame, boxes_of_frame in frames.items()}
        for name, frames in boxes.items()
    }


def measure(job: Job[Measure]) -> dict[str, Any]:
    """Measure saliency on the run's test videos."""
    return saliency_score(
        job.index, job.workplace.data[job.spec.data.dataset], choose(job.index, job.spec.videos)
    )
