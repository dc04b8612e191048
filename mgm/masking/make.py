"""Make a batch's masks: call the mask's function. What others give is checked before."""

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mgm.errors import UserError, valid
from mgm.masking import draws, others, paper
from mgm.masking.boxes import Boxes, Grid, distance
from mgm.masking.draws import sort_key, topk_mask
from mgm.spec.masks import Mask, mask_info, own_mask

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
    mask, motion = _checked(mask, grid, magnitude_BSHW, seed_B, displacement_BSHW2)
    return _hidden(mask, grid, seed_B, *motion)


def make_boxes(
    mask: Mask | str, grid: Grid, magnitude_BSHW: np.ndarray | None, seed_B: np.ndarray
) -> Boxes | None:
    """Return the boxes of `make_mask` with the same arguments, or None if the mask has none.

    It takes no displacement, since no directional mask has boxes.
    """
    mask, motion = _checked(mask, grid, magnitude_BSHW, seed_B, None)
    drawn = FUNCTIONS.get(mask.name, _own)(mask, grid, seed_B, *motion)
    return drawn if isinstance(drawn, Boxes) else None


def mask_clips(
    mask: Mask, grid: Grid, motions: Sequence[Any], seed_B: np.ndarray, tubelet: int, stride: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the masks of clips, (B, L), and the magnitude that guides them, None if unguided.

    The masks are those of `make_mask`. The arguments are not checked.

    Args:
        motions: the clips' motion under their crops (`mgm.video.motion`). Unguided: ignored.
        stride: frames of the video from one frame of a clip to the next.
    """
    info, motion = mask_info(mask.name), list[np.ndarray]()
    if info.guided:
        motion.append(np.stack([one.magnitude(tubelet) for one in motions]))
    if info.directional:
        motion.append(np.stack([one.displacement(tubelet, stride) for one in motions]))
    return _hidden(mask, grid, seed_B, *motion), motion[0] if motion else None


def require_hiding(mask: Mask, grid: Grid) -> None:
    """Check that a mask hides some patches of a grid, and not all."""
    if min(grid.slots, grid.height, grid.width) < 1:
        raise UserError(f"mask grid {grid.slots} x {grid.height} x {grid.width} is empty")
    hidden = mask.hidden(grid.patches)
    if not 0 < hidden < grid.patches:
        raise UserError(
            f"mask ratio {mask.ratio} hides {hidden} of {grid.patches} patches per slot"
        )


def _checked(
    mask: Mask | str,
    grid: Grid,
    magnitude_BSHW: np.ndarray | None,
    seed_B: np.ndarray,
    displacement_BSHW2: np.ndarray | None,
) -> tuple[Mask, list[np.ndarray]]:
    """Check the arguments. Return the mask's settings, and the motion that its function takes."""
    if not isinstance(mask, Mask):
        with valid("mask "):
            mask = Mask.model_validate(mask)
    require_hiding(mask, grid)
    if seed_B.dtype != np.int64 or seed_B.ndim != 1:
        raise UserError(f"seed_B is {seed_B.dtype} of shape {seed_B.shape}, not one int64 per clip")
    info, motion = mask_info(mask.name), list[np.ndarray]()
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
    return mask, motion


def _hidden(mask: Mask, grid: Grid, seed_B: np.ndarray, *motion: np.ndarray) -> np.ndarray:
    """Return the tokens that a mask hides, (B, L): of boxes, the patches nearest to them."""
    drawn = FUNCTIONS.get(mask.name, _own)(mask, grid, seed_B, *motion)
    if isinstance(drawn, Boxes):
        ties_B1N = draws.bits(seed_B, draws.TIES, grid.patches)[:, None]
        drawn = topk_mask(sort_key(distance(drawn, grid), ties_B1N), mask.hidden(grid.patches))
    return drawn.reshape(len(seed_B), -1)


def _own(mask: Mask, grid: Grid, seed_B: np.ndarray, *motion: np.ndarray) -> np.ndarray | Boxes:
    """Call a mask of the user's, and check what it returns."""
    try:
        # It may write into its arguments.
        drawn = own_mask(mask.name)(mask, grid, seed_B, *(x.copy() for x in motion))
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
    if isinstance(drawn, Boxes):
        return drawn
    drawn, shape = np.asarray(drawn), (len(seed_B), grid.slots, grid.patches)
    if drawn.dtype != bool or drawn.shape != shape:
        raise UserError(
            f"mask {mask.name}: returns {drawn.dtype} of shape {drawn.shape}, not bool of {shape}"
        )
    hidden = mask.hidden(grid.patches)
    if (drawn.sum(2) != hidden).any():
        raise UserError(f"mask {mask.name}: does not hide {hidden} patches in every slot")
    return drawn
