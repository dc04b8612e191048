"""`mgm show VIDEO --out PNG`: what the masks see in a video, in one picture."""

from pathlib import Path

from mgm.jobs.visualise import masks_on_a_clip
from mgm.masking import MASKS, Grid
from mgm.report.figures.draw import masks_on_a_clip as draw
from mgm.report.figures.style import write
from mgm.spec import Clips
from mgm.video import probe_video


def show(video: Path, out: Path, seed: int = 0) -> None:
    """Draw 16 frames from the middle of a video, their motion, and the masks of Table 4e on the grid of the paper's ViT-B.

    The frames are 4 apart, as in the paper on K400, or less in a video that is too short for that.

    Raises:
        UserError: the video cannot be read, or has no motion vectors.
    """
    frames = probe_video(video).frames
    clips = Clips(frames=16, size=224, stride=min(max((frames - 1) // 15, 1), 4))
    names = [name for name, mask in MASKS.items() if mask.row]
    arrays = masks_on_a_clip(video, frames, clips, tubelet=2, grid=Grid(8, 14, 14), names=names, seed=seed)
    write(draw(arrays), out)
