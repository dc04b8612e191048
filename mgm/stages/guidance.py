"""Turn the motion of a clip into the guidance of a mask: for training, measurements and figures."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mgm.masking import Grid, SlotMotion, make_mask
from mgm.spec import CODEC, MASKS, Clips, Mask, Method, Model
from mgm.study.recipes import MASK_RATIO
from mgm.video.clip import Clip
from mgm.video.motion import frame_difference

if TYPE_CHECKING:
    from mgm.video.loader import BatchOptions


def track_method(mask: Mask) -> Method | None:
    """Return the method of the track that guides a mask, if one does."""
    if not MASKS[mask.name].guided or mask.guidance == "difference":
        return None
    return "codec" if mask.guidance in CODEC else mask.guidance  # type: ignore[return-value]


def slot_motion(clips: Sequence[Clip], mask: Mask, tubelet: int, stride: int) -> SlotMotion:
    """Return the motion of a batch of clips that guides a mask.

    It is computed only here. With shuffled guidance, clips have the motion of other videos.

    Args:
        stride: frames of the video from one frame of the clip to the next.
    """
    if mask.guidance == "difference":
        magnitudes = [frame_difference(clip.frames_THWC, tubelet) for clip in clips]
    else:
        how = mask.distance, mask.compensate, mask.cells
        magnitudes = [clip.motion.magnitude(tubelet, *how) for clip in clips]
    magnitude_BSHW = np.stack(magnitudes)
    if not MASKS[mask.name].directional:
        return SlotMotion(magnitude_BSHW)
    shifts = [clip.motion.displacement(tubelet, stride, mask.distance) for clip in clips]
    return SlotMotion(magnitude_BSHW, np.stack(shifts))


def mask_options(mask: Mask, clips: Clips, model: Model, **reading) -> "BatchOptions":
    """Return the options of a loader whose batches are masked."""
    # Masks of single clips need no torch.
    from mgm.video.loader import BatchOptions

    shuffled = MASKS[mask.name].guided and mask.guidance == "shuffled"
    masks = partial(masked, mask, clips, model)
    return BatchOptions(track_method(mask), shuffled, masks, **reading)


def masked(
    mask: Mask, clips: Clips, model: Model, read_clips: Sequence[Clip], seeds: Sequence[int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mask of a batch of clips (B, L), and the magnitude that guides it, if any does.

    Args:
        seeds: of the clips.
    """
    side = clips.size // model.patch
    motion = None
    if MASKS[mask.name].guided:
        motion = slot_motion(read_clips, mask, model.tubelet, clips.stride)
    grid = Grid(clips.frames // model.tubelet, side, side)
    masked_BL = make_mask(mask, grid, motion, np.array(seeds, np.int64))
    return masked_BL, motion.magnitude_BSHW if motion else None


def clip_mask(
    clip: Clip, mask: Mask, grid: Grid, tubelet: int, stride: int, seed: int
) -> np.ndarray:
    """Return what a mask hides of a clip: (S, H, W) bool, True where hidden."""
    motion = slot_motion([clip], mask, tubelet, stride) if MASKS[mask.name].guided else None
    masked_BL = make_mask(mask, grid, motion, np.array([seed]))
    return masked_BL.reshape(grid.slots, grid.height, grid.width)


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
