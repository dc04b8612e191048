"""Make a batch's masks: check the arguments, then call the mask's function."""

from pkgutil import resolve_name

import numpy as np

from mgm.errors import UserError, valid
from mgm.masking import draws
from mgm.masking.boxes import Boxes, clamped, distance
from mgm.masking.draws import sort_key, topk_mask
from mgm.masking.inputs import Grid
from mgm.spec import MASKS, Mask


def make_mask(
    mask: Mask | str,
    grid: Grid,
    magnitude_BSHW: np.ndarray | None,
    seed_B: np.ndarray,
    displacement_BSHW2: np.ndarray | None = None,
) -> np.ndarray:
    """Return the tokens to hide.

    A mask of boxes hides the K patches nearest to each slot's box, in the box-scaled Chebyshev
    distance max(|x - cx| / w, |y - cy| / h). Ties are broken at random. So the part of a box
    outside the frame is hidden on the other side (grow). With clamp, boxes are inside already. All
    slots of a clip have the same random order, so a static box always hides the same patches.

    Args:
        mask: the mask's settings, or the name of one with its default settings.
        grid: the clips' token grid.
        magnitude_BSHW: magnitude of the motion, at any resolution. A slot without motion
            information is all zero. Negative values count as zero. Unguided masks ignore it, so it
            may be None.
        seed_B: int64, one per clip. A clip's mask depends only on its seed and motion, not on other
            clips of the batch.
        displacement_BSHW2: (dx, dy) of each cell's content since the previous slot, in units of the
            frame's width and height. Only masks with `MaskInfo.directional` read it.

    Returns:
        masked_BL: bool, slot-major, True where hidden.

    Raises:
        UserError: the mask is unknown, its ratio hides nothing or everything, or the motion is
            missing or has another shape.
    """
    mask, masked_BSN = _drawn(mask, grid, magnitude_BSHW, seed_B, displacement_BSHW2)
    hidden = mask.hidden(grid.patches)
    if isinstance(masked_BSN, Boxes):
        ties_B1N = draws.bits(seed_B, draws.TIES, grid.patches)[:, None]
        masked_BSN = topk_mask(sort_key(distance(masked_BSN, grid), ties_B1N), hidden)
    masked_BL = masked_BSN.reshape(len(seed_B), -1)
    if (masked_BL.sum(1) != grid.slots * hidden).any():
        raise UserError(f"mask {mask.name!r} does not hide {grid.slots * hidden} tokens per clip")
    return masked_BL


def make_boxes(
    mask: Mask | str,
    grid: Grid,
    magnitude_BSHW: np.ndarray | None,
    seed_B: np.ndarray,
    displacement_BSHW2: np.ndarray | None = None,
) -> Boxes | None:
    """Return the boxes of `make_mask` with the same arguments, or None if the mask has none."""
    _, drawn = _drawn(mask, grid, magnitude_BSHW, seed_B, displacement_BSHW2)
    return drawn if isinstance(drawn, Boxes) else None


def _drawn(
    mask: Mask | str,
    grid: Grid,
    magnitude_BSHW: np.ndarray | None,
    seed_B: np.ndarray,
    displacement_BSHW2: np.ndarray | None,
) -> tuple[Mask, np.ndarray | Boxes]:
    """Check the arguments. Return the mask's settings, and what its function draws."""
    if not isinstance(mask, Mask):
        with valid("mask "):
            mask = Mask.model_validate(mask)
    info = MASKS[mask.name]
    if min(grid.slots, grid.height, grid.width) < 1:
        raise UserError(f"mask grid {grid.slots} x {grid.height} x {grid.width} is empty")
    hidden = mask.hidden(grid.patches)
    if not 0 < hidden < grid.patches:
        raise UserError(
            f"mask ratio {mask.ratio} hides {hidden} of {grid.patches} patches per slot"
        )
    if seed_B.dtype != np.int64 or seed_B.ndim != 1:
        raise UserError(f"seed_B is {seed_B.dtype} of shape {seed_B.shape}, not one int64 per clip")
    motion = list[np.ndarray]()
    if info.guided:
        if magnitude_BSHW is None:
            raise UserError(f"mask {mask.name!r} needs motion, and none was given")
        shape = magnitude_BSHW.shape
        if len(shape) != 4 or shape[:2] != (len(seed_B), grid.slots) or 0 in shape[2:]:
            raise UserError(
                f"magnitude_BSHW has shape {shape}, not ({len(seed_B)}, {grid.slots}, rows, "
                "columns)"
            )
        motion.append(np.maximum(magnitude_BSHW, 0).astype(np.float32))
        if info.directional:
            if displacement_BSHW2 is None or displacement_BSHW2.shape != (*shape, 2):
                raise UserError(f"mask {mask.name!r} needs displacement_BSHW2 of {(*shape, 2)}")
            motion.append(displacement_BSHW2.astype(np.float32))
    function = info.function or f"mgm.masking.{info.file or mask.name}:{mask.name}"
    drawn = resolve_name(function.replace("-", "_"))(mask, grid, seed_B, *motion)
    if isinstance(drawn, Boxes) and mask.edge == "clamp":
        drawn = clamped(drawn, grid)
    return mask, drawn
