"""Make a batch's masks: check the arguments, then call the mask's function."""

from dataclasses import replace
from pkgutil import resolve_name

import numpy as np

from mgm.errors import UserError, valid
from mgm.masking.boxes import Boxes, clamped, nearest
from mgm.masking.inputs import Grid, MaskInput, SlotMotion
from mgm.spec import MASKS, Mask


def make_mask(
    mask: Mask | str, grid: Grid, motion: SlotMotion | None, seed_B: np.ndarray
) -> np.ndarray:
    """Return the tokens to hide.

    Args:
        mask: the mask's settings, or the name of one with its default settings.
        grid: the clips' token grid.
        motion: the clips' motion. Unguided masks ignore it, so it may be None.
        seed_B: int64, one per clip. A clip's mask depends only on its seed and motion, not on other
            clips of the batch.

    Returns:
        masked_BL: bool, slot-major, True where hidden.

    Raises:
        UserError: the mask is unknown, its ratio hides nothing or everything, or the motion is
            missing or has another shape.
    """
    clips, drawn = _drawn(mask, grid, motion, seed_B)
    masked_BSN = nearest(clips, drawn) if isinstance(drawn, Boxes) else drawn
    masked_BL = masked_BSN.reshape(len(seed_B), -1)
    hidden = grid.slots * clips.hidden
    if (masked_BL.sum(1) != hidden).any():
        raise UserError(f"mask {clips.mask.name!r} does not hide {hidden} tokens in every clip")
    return masked_BL


def make_boxes(
    mask: Mask | str, grid: Grid, motion: SlotMotion | None, seed_B: np.ndarray
) -> Boxes | None:
    """Return the boxes of `make_mask` with the same arguments, or None if the mask has none."""
    _, drawn = _drawn(mask, grid, motion, seed_B)
    return drawn if isinstance(drawn, Boxes) else None


def _drawn(
    mask: Mask | str, grid: Grid, motion: SlotMotion | None, seed_B: np.ndarray
) -> tuple[MaskInput, np.ndarray | Boxes]:
    """Return the checked arguments, and what the mask's function draws."""
    with valid("mask "):
        mask = Mask.model_validate(mask)
    clips = _checked(MaskInput(mask, grid, motion, seed_B))
    name = mask.name.replace("-", "_")
    info = MASKS[mask.name]
    drawn = resolve_name(info.function or f"mgm.masking.{info.file or name}:{name}")(clips)
    if isinstance(drawn, Boxes) and mask.edge == "clamp":
        drawn = clamped(drawn, grid)
    return clips, drawn


def _checked(clips: MaskInput) -> MaskInput:
    """Check the arguments, and drop motion that the mask does not read."""
    name, grid, seed_B = clips.mask.name, clips.grid, clips.seed_B
    if min(grid.slots, grid.height, grid.width) < 1:
        raise UserError(f"mask grid {grid.slots} x {grid.height} x {grid.width} is empty")
    if not 0 < clips.hidden < grid.patches:
        raise UserError(
            f"mask ratio {clips.mask.ratio} hides {clips.hidden} of {grid.patches} patches per slot"
        )
    if seed_B.dtype != np.int64 or seed_B.ndim != 1:
        raise UserError(f"seed_B is {seed_B.dtype} of shape {seed_B.shape}, not one int64 per clip")
    if not MASKS[name].guided:
        return replace(clips, motion=None)
    if clips.motion is None:
        raise UserError(f"mask {name!r} needs motion, and none was given")
    magnitude_BSHW = clips.motion.magnitude_BSHW
    clip_slots = (len(seed_B), grid.slots)
    shape = magnitude_BSHW.shape
    if len(shape) != 4 or shape[:2] != clip_slots or 0 in shape[2:]:
        raise UserError(
            f"magnitude_BSHW has shape {shape}, not ({len(seed_B)}, {grid.slots}, rows, columns)"
        )
    magnitude_BSHW = np.maximum(magnitude_BSHW, 0).astype(np.float32)
    if not MASKS[name].directional:
        return replace(clips, motion=SlotMotion(magnitude_BSHW))
    displacement_BSHW2 = clips.motion.displacement_BSHW2
    if displacement_BSHW2 is None or displacement_BSHW2.shape != (*shape, 2):
        raise UserError(f"mask {name!r} needs displacement_BSHW2 of shape {(*shape, 2)}")
    return replace(clips, motion=SlotMotion(magnitude_BSHW, displacement_BSHW2.astype(np.float32)))
