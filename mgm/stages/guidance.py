"""Turn the motion of a clip into the guidance of a mask: for training, measurements and figures."""

from functools import partial

import torch
from torch import Tensor

from mgm.masking import Grid, SlotMotion, make_mask
from mgm.spec import MASKS, Mask, StoredMotion
from mgm.stages.job import motion_of
from mgm.video import Batch, BatchOptions
from mgm.video.clip import Clip
from mgm.video.motion import frame_difference


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


def mask_options(mask: Mask, grid: Grid, **reading) -> BatchOptions:
    """Return the options of a loader whose batches are masked."""
    guided, carried = MASKS[mask.name].guided, MASKS[mask.name].carried
    return BatchOptions(
        mask.guidance if guided else None,
        mask.distance,
        mask.compensate,
        mask.cells,
        directions=carried,
        masks=partial(_masked, mask, grid),
        **reading,
    )


def _masked(mask: Mask, grid: Grid, batch: Batch) -> Tensor:
    return make_mask(mask, grid, motion_of(batch), batch.seed_B)
