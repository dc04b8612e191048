"""How much moves in each video: the numbers that static and shaky clips are sorted out by.

They are of the motion vectors that a file or a track already has, and of a few frames of a file.
"""

import csv
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mgm.console import progress, show
from mgm.data.folder import Files
from mgm.data.index import read_index
from mgm.errors import UserError
from mgm.files import write_csv
from mgm.processes import as_done, cores
from mgm.video.track import Track

MOVES = 0.5  # pixels per frame. Less is noise, since codecs search in quarters of a pixel
FRAMES = 256  # that are in memory at a time
SAMPLED = 8  # frames of a video whose residual is estimated


class Row(NamedTuple):
    """The motion of a video. Pixels are those of the source's frames.

    Args:
        mean_speed: over all cells of frames with motion information, in pixels per frame. NaN, as
            the next three, if there are none.
        moving: share of these cells that move at least `MOVES` pixels per frame.
        pan_x, pan_y: the mean over frames of the median vector of the cells, in pixels per frame.
        i_frames: share of frames that are I-frames.
        seconds: from the first picture to the end of the last.
        residual: share of the change between frames that vectors do not predict: the mean size of
            the residual over that of the difference from the frame before, the median of 8 frames.
            NaN: a track has no pixels.
    """

    video: str
    mean_speed: float
    moving: float
    pan_x: float
    pan_y: float
    i_frames: float
    seconds: float
    residual: float = float("nan")


def measure(task: tuple[str, str]) -> Row | UserError:
    """Return the motion of a (name, file), a video or a track (.npz), or why it has none."""
    name, path = task
    try:
        if path.endswith(".npz"):
            return _row(name, Track(path))
        # A prepared folder needs no PyAV.
        from mgm.video.decode import residual_share, source_track

        known = source_track(path)
        told = np.flatnonzero(known.has_mv_T)
        chosen = told[np.linspace(0, len(told) - 1, SAMPLED, dtype=int)] if len(told) else told
        return _row(name, known)._replace(residual=residual_share(path, {*chosen.tolist()}))
    except UserError as error:
        return error


def _row(name: str, known: Track) -> Row:
    """Return the row of a track."""
    count, cells = 0, 0
    speed, moving, pan_2 = 0.0, 0, np.zeros(2)
    facts = known.facts
    scale_2 = np.array([facts.source_width, facts.source_height]) / facts.size[::-1]
    # The pixels of vectors may be those of a smaller copy.
    told = np.flatnonzero(known.has_mv_T)
    for start in range(0, len(told), FRAMES):
        velocity_THW2 = known.motion(told[start : start + FRAMES]).velocity_THW2 * scale_2
        speed_THW = np.hypot(velocity_THW2[..., 0], velocity_THW2[..., 1])
        speed += float(speed_THW.sum())
        moving += int((speed_THW >= MOVES).sum())
        pan_2 += np.median(velocity_THW2, axis=(1, 2)).sum(0)
        count, cells = count + len(velocity_THW2), cells + speed_THW.size
    shown = known.time_T[np.isfinite(known.time_T)]
    seconds = float(np.ptp(shown)) + 1 / known.fps if len(shown) else len(known) / known.fps
    i_frames = float((known.kind_T == "I").mean())
    if not count:
        return Row(name, *4 * (float("nan"),), i_frames, seconds)
    pan_x, pan_y = (pan_2 / count).tolist()
    return Row(name, speed / cells, moving / cells, pan_x, pan_y, i_frames, seconds)


def table(source: Path, out: Path | None) -> list[str]:
    """Measure the videos of a folder, and write a CSV, to stdout if `out` is None.

    Args:
        source: a folder that `mgm prepare` wrote, whose tracks are read; or a video, or any folder
            of videos, which are decoded. Files without motion vectors are named and left out.

    Returns:
        lines that say what was written.
    """
    tasks = _tasks(source)
    rows, without = list[Row](), 0
    for found in progress(as_done(measure, tasks, cores()), "measuring", len(tasks)):
        if isinstance(found, UserError):
            show(f"mgm: {found}")
            without += 1
        else:
            rows.append(found)
    if not rows:
        raise UserError(f"{source}: none of {len(tasks)} files has motion vectors")
    rows.sort()
    # Six digits are finer than the vectors.
    lines: list[list[str]] = [[*Row._fields]]
    lines += [[f"{x:.6g}" if isinstance(x, float) else x for x in row] for row in rows]
    if out is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(lines)
        return []
    write_csv(out, lines)
    left = f"; {without} without motion are left out" if without else ""
    return [f"wrote {out}: {len(rows)} videos{left}"]


def _tasks(source: Path) -> list[tuple[str, str]]:
    """Return (name, file) of what is measured."""
    if not source.is_dir():
        return [(source.name, str(source))]
    if (source / "index.json").is_file():
        return [(video.name, video.track()) for video in read_index(source).videos]
    files = [(path, str(source / path)) for path in Files(source).paths]
    if not files:
        raise UserError(f"{source}: has no videos, and is not from `mgm prepare`")
    return files
