"""Turn the motion of a clip into the guidance of a mask: for training, measurements and figures."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from mgm.masking import Grid, make_mask
from mgm.spec import MASKS, Clips, Mask, Model
from mgm.study.recipes import MASK_RATIO
from mgm.video.clip import Clip, Motion
from mgm.video.motion import frame_difference


def slot_motion(
    mask: Mask,
    tubelet: int,
    stride: int,
    motions: Sequence[Motion],
    frames_BTHWC: Sequence[np.ndarray] | np.ndarray = (),
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return what guides a mask: magnitude_BSHW and displacement_BSHW2, None if it reads none.

    It is computed only here. With shuffled guidance, clips have the motion of other videos.

    Args:
        stride: frames of the video from one frame of the clip to the next.
        motions: of the clips. Guidance "difference" reads their frames instead.
    """
    if not MASKS[mask.name].guided:
        return None, None
    if mask.guidance == "difference":
        return np.stack([frame_difference(frames, tubelet) for frames in frames_BTHWC]), None
    how = mask.distance, mask.compensate, mask.cells
    magnitude_BSHW = np.stack([motion.magnitude(tubelet, *how) for motion in motions])
    if not MASKS[mask.name].directional:
        return magnitude_BSHW, None
    shifts = [motion.displacement(tubelet, stride, mask.distance) for motion in motions]
    return magnitude_BSHW, np.stack(shifts)


def guided(mask: Mask, clips: Clips, model: Model) -> dict[str, Any]:
    """Return the arguments of a training loader whose batches are masked."""
    guide = mask.guidance if MASKS[mask.name].guided else None
    return {"guide": guide, "mask": partial(masked, mask, clips, model)}


def masked(
    mask: Mask,
    clips: Clips,
    model: Model,
    motions: Sequence[Motion],
    frames_BTHWC: np.ndarray,
    seed_B: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mask of a batch of clips (B, L), and the magnitude that guides it, if any does."""
    side = clips.size // model.patch
    grid = Grid(clips.frames // model.tubelet, side, side)
    magnitude_BSHW, displacement_BSHW2 = slot_motion(
        mask, model.tubelet, clips.stride, motions, frames_BTHWC
    )
    return make_mask(mask, grid, magnitude_BSHW, seed_B, displacement_BSHW2), magnitude_BSHW


def clip_mask(
    clip: Clip, mask: Mask, grid: Grid, tubelet: int, stride: int, seed: int
) -> np.ndarray:
    """Return what a mask hides of a clip: (S, H, W) bool, True where hidden."""
    magnitude_1SHW, displacement_1SHW2 = slot_motion(
        mask, tubelet, stride, [clip.known], clip.frames_THWC[None]
    )
    masked_1L = make_mask(mask, grid, magnitude_1SHW, np.array([seed]), displacement_1SHW2)
    return masked_1L.reshape(grid.slots, grid.height, grid.width)


def hidden_pixels(masked_SHW: np.ndarray, frames: int, height: int, width: int) -> np.ndarray:
    """Return which pixels a mask hides: (frames, height, width) bool.

    A pixel is in the patch, or in the cell, of its top left corner. Slots divide the frames.
    """
    slots, rows, columns = masked_SHW.shape
    row_H, column_W = np.arange(height) * rows // height, np.arange(width) * columns // width
    return masked_SHW.repeat(frames // slots, 0)[:, row_H][:, :, column_W]


def every_mask(like: Mask) -> list[Mask]:
    """Return each mask, guided by vectors, at its usual ratio, with `like`'s other settings."""
    same = like.model_dump(exclude={"name", "ratio", "guidance", "version"})
    return [Mask(**same | {"name": name, "ratio": MASK_RATIO[name]}) for name in MASKS]
