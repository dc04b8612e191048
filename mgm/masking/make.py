"""Make a batch's masks: check the arguments, then call the mask's function."""

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mgm.errors import UserError, valid
from mgm.masking import draws, others, paper
from mgm.masking.boxes import Boxes, Grid, distance
from mgm.masking.draws import sort_key, topk_mask
from mgm.spec.masks import WHOLE_CLIP, Mask, mask_info, own_mask

# A function takes the mask's settings, the token grid and the seeds of a batch; if guided, also the
# magnitude of motion; if directional, also its displacement (`make_mask`). It returns the hidden
# patches, (B, S, patches) bool, or `Boxes` whose nearest patches are hidden.
FUNCTIONS: dict[str, Callable[..., np.ndarray | Boxes]] = {
    "agnostic": paper.agnostic,
    "tube": paper.tube,
    "block": paper.block,
    "smm-sparse": paper.smm_sparse,
    "smm": paper.smm,
    "mgm-sparse": paper.mgm_sparse,
    "mgm": paper.mgm,
    "warped": others.warped,
    "motion-bins": others.motion_bins,
    "multi-block": others.multi_block,
    "green-noise": others.green_noise,
    "codec-keep": others.codec_keep,
    "codec-clip": others.codec_clip,
    "motion-blocks": others.motion_blocks,
    "static-blocks": others.static_blocks,
    "future": others.future,
}


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
    outside the frame is hidden on the other side. All slots of a clip have the same random order,
    so a static box always hides the same patches.

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
        UserError: the mask is unknown, its ratio hides nothing or everything, the motion is
            missing or has another shape, or a mask of your own does not hide K patches in every
            slot.
    """
    mask, drawn = _drawn(mask, grid, magnitude_BSHW, seed_B, displacement_BSHW2)
    hidden, shape = mask.hidden(grid.patches), (len(seed_B), grid.slots, grid.patches)
    if isinstance(drawn, Boxes):
        ties_B1N = draws.bits(seed_B, draws.TIES, grid.patches)[:, None]
        drawn = topk_mask(sort_key(distance(drawn, grid), ties_B1N), hidden)
    drawn = np.asarray(drawn)  # a mask of your own may return anything
    if drawn.dtype != bool or drawn.shape != shape:
        raise UserError(
            f"mask {mask.name}: returns {drawn.dtype} of shape {drawn.shape}, not bool of {shape}"
        )
    count_BS = drawn.sum(2)
    if mask.name in WHOLE_CLIP:
        count_BS = count_BS.mean(1, keepdims=True)
    if (count_BS != hidden).any():
        raise UserError(f"mask {mask.name}: does not hide {hidden} patches in every slot")
    return drawn.reshape(len(seed_B), -1)


def make_boxes(
    mask: Mask | str, grid: Grid, magnitude_BSHW: np.ndarray | None, seed_B: np.ndarray
) -> Boxes | None:
    """Return the boxes of `make_mask` with the same arguments, or None if the mask has none.

    It takes no displacement, since no directional mask has boxes.
    """
    _, drawn = _drawn(mask, grid, magnitude_BSHW, seed_B, None)
    return drawn if isinstance(drawn, Boxes) else None


def mask_clips(
    mask: Mask, grid: Grid, motions: Sequence[Any], seed_B: np.ndarray, tubelet: int, stride: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the masks of clips, (B, L), and the magnitude that guides them, None if unguided.

    Args:
        motions: the clips' motion under their crops (`mgm.video.motion`). Unguided: ignored.
        stride: frames of the video from one frame of a clip to the next.
    """
    info = mask_info(mask.name)
    magnitude_BSHW = displacement_BSHW2 = None
    if info.guided:
        magnitude_BSHW = np.stack([motion.magnitude(tubelet) for motion in motions])
    if info.directional:
        displacement_BSHW2 = np.stack([motion.displacement(tubelet, stride) for motion in motions])
    return make_mask(mask, grid, magnitude_BSHW, seed_B, displacement_BSHW2), magnitude_BSHW


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
    info = mask_info(mask.name)
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
    if function := FUNCTIONS.get(mask.name):
        return mask, function(mask, grid, seed_B, *motion)
    try:
        return mask, own_mask(mask.name)(mask, grid, seed_B, *motion)
    except UserError:
        raise
    except Exception as error:
        *_, place = traceback.extract_tb(error.__traceback__)[:2]
        sizes = ""
        if motion:
            rows, columns = motion[0].shape[2:4]
            sizes = (
                f"; the grid has {grid.height} x {grid.width} patches, and magnitude_BSHW "
                f"{rows} x {columns} cells (mgm.masking.largest_motion brings them to patches)"
            )
        raise UserError(
            f"mask {mask.name}: {place.filename}:{place.lineno}: "
            f"{type(error).__name__}: {error}{sizes}"
        ) from error
