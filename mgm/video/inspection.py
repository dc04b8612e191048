"""What `mgm inspect` says of a video file:

what it holds, and how well its motion vectors could guide a mask.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mgm.errors import UserError
from mgm.video.decode import VideoInfo, probe_video
from mgm.video.vectors import read_vectors


@dataclass(frozen=True)
class Inspection:
    """One file, decoded to its end.

    Attributes: info: as `probe_video` gives it. pictures: how many of each picture type ("I", "P",
        "B") were decoded. informed: share of frames that carry motion information. coverage: share
        of cells with a nonzero vector, mean over those frames. concentration: share of the motion
        that lies in the tenth of the cells that move most, mean over the frames in which anything
            moves: 0.1 where motion is spread evenly (a pan), 1 where it is all in one place. It
            stands in for the paper's saliency score (section 1: motion inside annotated boxes over
            motion outside), which needs boxes.
        speed: pixels a frame of the cells that move, mean; vectors divided by their estimated
            reference distance.
    """

    path: str
    info: VideoInfo
    pictures: dict[str, int]
    informed: float
    coverage: float
    concentration: float
    speed: float

    def describe(self) -> str:
        """A few lines of text."""
        info = self.info
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.pictures.items()))
        rate = f"{info.frames} frames, {info.fps:.4g} a second, {info.duration_s:.1f} s"
        lines = [
            self.path,
            f"  video     {info.codec}, {info.width} x {info.height}, {rate}",
            f"  pictures  {kinds}",
        ]
        if not info.has_vectors:
            lines.append(
                f"  vectors   none: FFmpeg exports none for {info.codec}; transcode to H.264, or use a mask without motion guidance"
            )
        else:
            lines.append(
                f"  vectors   on {self.informed:.0%} of frames; nonzero in {self.coverage:.0%} of their cells"
            )
            lines.append(
                f"  motion    {self.speed:.1f} pixels a frame where it moves; {self.concentration:.0%} of it in a tenth of the cells"
            )
        return "\n".join(lines)


def inspect_video(path: str | Path) -> Inspection:
    """Decode a whole file and measure its motion vectors.

    Raises:
        UserError: the file cannot be read.
    """
    info, vectors = probe_video(path), read_vectors(path)
    kinds, informed = Counter(vectors.kinds_T), len(vectors.index_N)
    if not kinds:
        raise UserError(f"{path}: no frame decodes; replace the file or leave it out")
    if not informed:
        return Inspection(str(path), info, dict(kinds), 0.0, 0.0, 0.0, 0.0)
    speed_NL = vectors.speed.reshape(informed, -1)
    total_N, tenth = speed_NL.sum(1), max(speed_NL.shape[1] // 10, 1)
    top_N = np.sort(speed_NL, 1)[:, -tenth:].sum(1)
    return Inspection(
        path=str(path),
        info=info,
        pictures=dict(kinds),
        informed=informed / kinds.total(),
        coverage=float((speed_NL > 0).mean()),
        concentration=float((top_N[total_N > 0] / total_N[total_N > 0]).mean())
        if total_N.any()
        else 0.0,
        speed=float(speed_NL[speed_NL > 0].mean()) if total_N.any() else 0.0,
    )
