"""Make a batch's masks: check the arguments, find the mask's file, hide what it says."""

from dataclasses import replace
from importlib import import_module

import torch
from torch import Tensor

from mgm.errors import UserError
from mgm.masking import EDGES, MASKS, Edge, hidden_patches
from mgm.masking.boxes import Boxes, clamped
from mgm.masking.clips import Clips, Grid
from mgm.masking.dense import nearest


def make_mask(
    name: str,
    grid: Grid,
    ratio: float,
    seed_B: Tensor,
    motion_BSHW: Tensor | None = None,
    edge: Edge = "grow",
    jitter: bool = True,
    guided_start: bool = False,
    displacement_BSHW2: Tensor | None = None,
) -> Tensor:
    """Which tokens of each clip are hidden.

    Args:
        name: one of MASKS.
        ratio: K = int(ratio * H' * W') patches are hidden in every slot (agnostic: S * K over the
            clip; warped: `hidden_patches`).
        seed_B: int64, one per clip; with the clip's motion it determines the clip's mask, whatever
            else is in the batch.
        motion_BSHW: magnitude of motion per slot at any resolution, on seed_B's device; all zero
            where a slot has no motion information, and negative counts as zero. The unguided masks
            ignore it.
        edge: what a box does at the edge of the frame: `grow` on the other side, `clamp` inside, or
            `spill` at random places.
        jitter: whether mgm's box changes its aspect ratio from slot to slot (eq. 7).
        guided_start: whether mgm's box follows the motion in slot 0 too, where the paper puts it at
            random (3.3).
        displacement_BSHW2: (dx, dy) of what lies in each cell of motion_BSHW, since the slot
            before, in sides of the frame. Only masks that motion carries need it.

    Returns:
        masked_BL: bool, slot-major, True where hidden.

    Raises:
        UserError: an unknown mask or edge, a ratio that hides nothing or everything, motion that is
            missing or of another shape.
    """
    clips = _checked(
        name,
        Clips(grid, ratio, seed_B, motion_BSHW, edge, jitter, guided_start, displacement_BSHW2),
    )
    made = _made(name, clips)
    return (nearest(clips, made) if isinstance(made, Boxes) else made).flatten(1)


def make_boxes(
    name: str,
    grid: Grid,
    ratio: float,
    seed_B: Tensor,
    motion_BSHW: Tensor | None = None,
    edge: Edge = "grow",
    jitter: bool = True,
    guided_start: bool = False,
    displacement_BSHW2: Tensor | None = None,
) -> Boxes | None:
    """The boxes behind `make_mask` of the same arguments, for figures and checks;

    None for a mask that has none.
    """
    clips = _checked(
        name,
        Clips(grid, ratio, seed_B, motion_BSHW, edge, jitter, guided_start, displacement_BSHW2),
    )
    made = _made(name, clips)
    return made if isinstance(made, Boxes) else None


def _made(name: str, clips: Clips) -> Tensor | Boxes:
    """What the function named like its file makes of the clips:

    a (B, S, patches) bool tensor, or the boxes of a dense mask.
    """
    file = name.replace("-", "_")
    made = getattr(import_module(f"mgm.masking.{file}"), file)(clips)
    return clamped(made, clips.grid) if isinstance(made, Boxes) and clips.edge == "clamp" else made


def _checked(name: str, clips: Clips) -> Clips:
    """The clips with what the mask needs of them, and no more."""
    grid, ratio, seed_B, motion_BSHW = clips.grid, clips.ratio, clips.seed_B, clips.motion_BSHW
    if name not in MASKS:
        raise UserError(f"mask {name!r} is unknown; choose one of {', '.join(MASKS)}")
    if clips.edge not in EDGES:
        raise UserError(f"mask edge {clips.edge!r} is unknown; choose one of {', '.join(EDGES)}")
    if min(grid.slots, grid.height, grid.width) < 1:
        raise UserError(
            f"mask grid {grid.slots} x {grid.height} x {grid.width} is empty; every side must be at least 1"
        )
    if not 0 < ratio < 1:
        raise UserError(f"mask ratio {ratio} is outside (0, 1); choose one between, such as 0.75")
    hidden = hidden_patches(name, ratio, grid.patches)
    if not 0 < hidden < grid.patches:
        raise UserError(
            f"mask ratio {ratio} hides {hidden} of {grid.patches} patches a slot; choose one that hides 1 to {grid.patches - 1}"
        )
    if seed_B.dtype != torch.int64 or seed_B.ndim != 1:
        raise UserError(
            f"seed_B is {seed_B.dtype} of shape {tuple(seed_B.shape)}; give one torch.int64 seed per clip"
        )
    if not MASKS[name].guided:
        return replace(clips, motion_BSHW=None, displacement_BSHW2=None)
    if motion_BSHW is None:
        unguided = ", ".join(other for other, info in MASKS.items() if not info.guided)
        raise UserError(
            f"mask {name!r} needs motion_BSHW, and none was given; give the motion of each slot, or choose one of {unguided}"
        )
    if (
        motion_BSHW.ndim != 4
        or motion_BSHW.shape[:2] != (len(seed_B), grid.slots)
        or 0 in motion_BSHW.shape[2:]
    ):
        raise UserError(
            f"motion_BSHW has shape {tuple(motion_BSHW.shape)}, but the mask is for {len(seed_B)} clips of {grid.slots} slots; "
            f"give ({len(seed_B)}, {grid.slots}, rows, columns)"
        )
    clips = replace(clips, motion_BSHW=motion_BSHW.float().clamp(min=0))
    if not MASKS[name].carried:
        return replace(clips, displacement_BSHW2=None)
    displacement_BSHW2 = clips.displacement_BSHW2
    if displacement_BSHW2 is None or displacement_BSHW2.shape != (*motion_BSHW.shape, 2):
        got = (
            "none was given"
            if displacement_BSHW2 is None
            else f"its shape is {tuple(displacement_BSHW2.shape)}"
        )
        raise UserError(
            f"mask {name!r} needs displacement_BSHW2 of shape {(*motion_BSHW.shape, 2)}, and {got}; give (dx, dy) of each cell"
        )
    return replace(clips, displacement_BSHW2=displacement_BSHW2.float())
