"""`mgm visualise`: the arrays of the figures that show clips. `mgm.report.figures` draws them, on a machine without the data."""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mgm.errors import UserError
from mgm.experiments.recipes import MASK_RATIO
from mgm.masking import Grid, make_boxes, make_mask
from mgm.rng import clip_seed, generator
from mgm.spec import Clips, Visualise
from mgm.video import read_clip, slot_magnitude
from mgm.video.sample import view_indices
from mgm.video.transform import apply, view_box

if TYPE_CHECKING:
    from mgm.jobs.common import Job

FIGURE_5 = ("agnostic", "tube", "block", "smm-sparse", "smm", "mgm-sparse", "mgm")


def visualise(job: "Job[Visualise]") -> dict[str, Any]:
    """Write arrays.npz: every mask on the middle clip of one test video, which the run's seed chooses.

    Raises:
        UserError: no test video has motion vectors, or the chosen one cannot be read.
    """
    spec = job.spec
    guiding = [video for video in job.index.test if video.has_vectors]
    if not guiding:
        raise UserError(
            f"{spec.run_id}: none of the {len(job.index.test)} test videos has motion vectors; "
            "re-encode them to H.264 (ffmpeg -i IN -c:v libx264 OUT.mp4)"
        )
    seed = clip_seed(spec.seed, 0, -1)
    video = guiding[generator(seed, "sample").integers(len(guiding))]
    grid = Grid(*spec.grid)
    arrays = masks_on_a_clip(Path(video.path), video.frames, spec.clips, spec.model.tubelet, grid, FIGURE_5, seed)
    np.savez_compressed(job.folder / "arrays.npz", **arrays, source=job.index.name(video))
    return {}


def masks_on_a_clip(path: Path, frames: int, clips: Clips, tubelet: int, grid: Grid, names: Sequence[str], seed: int) -> dict[str, Any]:
    """The middle clip of a video, its centre crop, and each mask at the ratio it is trained with.

    Args:
        path, frames: the video, and how many frames it has.
        clips: frames, size and sampling of the clip.
        names: N masks.
        seed: of the masks.

    Returns:
        frames_SHWC: uint8, the first frame of each slot; index_S: its number in the video.
        motion_SHW2: (dx, dy) in pixels a frame, the mean over a slot's frames; magnitude_SHW: what guides the masks; has_motion_S.
        names_N, ratio_N, masked_NSHW, and boxes_NS4: (centre x, centre y, width, height) in patches, NaN for a mask without boxes.

    Raises:
        UserError: the video cannot be read, or has no motion vectors.
    """
    index_T = view_indices(clips, frames, view=0, views=1)
    clip = read_clip(path, index_T)
    height, width = clip.frames_THWC.shape[1:3]
    clip = apply(clip, view_box(height, width, 0, 1), clips.size, flip=False)
    magnitude_SHW = slot_magnitude(clip.motion_THW2, clip.distance_THW, clip.has_motion_T, tubelet)
    speed_THW2 = clip.motion_THW2 / clip.distance_THW[..., None] * clip.has_motion_T[:, None, None, None]

    seed_B, motion_BSHW = torch.tensor([seed]), torch.from_numpy(magnitude_SHW)[None]
    masks, boxes = [], []
    for name in names:
        masks.append(make_mask(name, grid, MASK_RATIO[name], seed_B, motion_BSHW)[0].view(grid.slots, grid.height, grid.width).numpy())
        found = make_boxes(name, grid, MASK_RATIO[name], seed_B, motion_BSHW)
        boxes.append(np.full((grid.slots, 4), np.nan, np.float32) if found is None else torch.cat(astuple(found)).T.numpy())
    return {
        "frames_SHWC": clip.frames_THWC[::tubelet],
        "index_S": index_T[::tubelet],
        "motion_SHW2": speed_THW2.reshape(grid.slots, tubelet, *speed_THW2.shape[1:]).mean(1, dtype=np.float32),
        "magnitude_SHW": magnitude_SHW,
        "has_motion_S": clip.has_motion_T.reshape(grid.slots, tubelet).any(1),
        "names_N": np.array(names),
        "ratio_N": np.array([MASK_RATIO[name] for name in names]),
        "masked_NSHW": np.stack(masks),
        "boxes_NS4": np.stack(boxes),
    }
