"""Turn the motion of a clip into the guidance of a mask: for training, measurements and figures."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from mgm.masking import Grid, SlotMotion, make_mask
from mgm.spec import MASKS, Clips, Mask, Model, StoredMotion
from mgm.video.clip import Clip
from mgm.video.loader import BatchOptions
from mgm.video.motion import CELL, frame_difference


def stored_motion(mask: Mask) -> StoredMotion | None:
    """Return the motion that must be read with a clip's frames to guide a mask."""
    if not MASKS[mask.name].guided or mask.guidance == "difference":
        return None
    return "vectors" if mask.guidance == "shuffled" else mask.guidance


def slot_motion(clip: Clip, mask: Mask, tubelet: int, stride: int) -> SlotMotion:
    """Return the motion that guides a mask, of a batch of one clip.

    It is computed only here. With shuffled guidance, `clip` has the motion of another video.

    Args:
        stride: frames of the video from one frame of the clip to the next.
    """
    if mask.guidance == "difference":
        magnitude_SHW = frame_difference(clip.frames_THWC, tubelet)
    else:
        magnitude_SHW = clip.magnitude(tubelet, mask.distance, mask.compensate, mask.cells)
    magnitude_BSHW = torch.from_numpy(magnitude_SHW)[None]
    if not MASKS[mask.name].carried:
        return SlotMotion(magnitude_BSHW)
    shift_SHW2 = clip.displacement(tubelet, stride, mask.distance)
    return SlotMotion(magnitude_BSHW, torch.from_numpy(shift_SHW2)[None])


def mask_options(mask: Mask, clips: Clips, model: Model, **reading) -> BatchOptions:
    """Return the options of a loader whose batches are masked."""
    shuffled = MASKS[mask.name].guided and mask.guidance == "shuffled"
    masks = partial(masked, mask, clips, model)
    return BatchOptions(stored_motion(mask), shuffled, masks, **reading)


def masked(
    mask: Mask, clips: Clips, model: Model, read_clips: Sequence[Clip | None], seeds: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """Return the mask of a batch of clips (B, L), and the magnitude that guides it, if any does.

    Args:
        read_clips: None for a clip that could not be read, which counts as still.
        seeds: of the clips.
    """
    side = clips.size // model.patch
    grid, motion = Grid(clips.frames // model.tubelet, side, side), None
    if MASKS[mask.name].guided:
        cells = max(clips.size // CELL, 1)
        still = torch.zeros(1, grid.slots, cells, cells)
        motions = [
            slot_motion(clip, mask, model.tubelet, clips.stride)
            if clip
            else SlotMotion(still, still[..., None].expand(-1, -1, -1, -1, 2))
            for clip in read_clips
        ]
        motion = SlotMotion(
            torch.cat([own.magnitude_BSHW for own in motions]),
            torch.cat([moved for own in motions if (moved := own.displacement_BSHW2) is not None])
            if MASKS[mask.name].carried
            else None,
        )
    masked_BL = make_mask(mask, grid, motion, torch.tensor(seeds))
    return masked_BL, motion.magnitude_BSHW if motion else None
