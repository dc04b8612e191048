"""Masks of later papers, for comparison. The functions have the interface of those in `paper`.

Sums have a fixed order, since that of an array's sum depends on its shape. DEVIATIONS.md lists the
differences from the sources.
"""

from collections.abc import Callable
from functools import cache, partial
from math import exp

import numpy as np

from mgm.masking import draws
from mgm.masking.boxes import Boxes, Grid, distance
from mgm.masking.cells import FINE, resampled, sum_per_patch, summed_motion
from mgm.masking.draws import sort_key, topk_mask
from mgm.spec.masks import Mask

# --- MGMAE (Huang et al., ICCV 2023, 3.2 and 3.3) ---
# Source: MCG-NJU/MGMAE, masking_generator.py and engine_for_mgmae.py


def warped(
    mask: Mask,
    grid: Grid,
    seed_B: np.ndarray,
    magnitude_BSHW: np.ndarray,
    displacement_BSHW2: np.ndarray,
) -> np.ndarray:
    """Warp the middle slot's base map to other slots by motion, and show the highest patches.

    The base map has Gaussian hills on random patches. Slot by slot, a cell takes the value at its
    content's position in the neighbouring slot, on the side of the middle slot (backward warping).
    If that position is outside the frame, the cell keeps its value in the base map.
    """
    middle = grid.slots // 2
    rows, columns = FINE * grid.height, FINE * grid.width
    # The displacement of each fine cell, in fine cells.
    cells = np.array([columns, rows], np.float32)
    shift_BSHW2 = resampled(displacement_BSHW2, rows, columns) * cells
    base_BHW = _hills(mask, grid, seed_B)
    maps = {middle: base_BHW}
    for slot in range(middle + 1, grid.slots):
        maps[slot] = _pulled(maps[slot - 1], -shift_BSHW2[:, slot], base_BHW)
    # Backward in time, content is assumed to keep its velocity.
    for slot in reversed(range(middle)):
        maps[slot] = _pulled(maps[slot + 1], shift_BSHW2[:, slot], base_BHW)
    height_BSHW = np.stack([maps[slot] for slot in range(grid.slots)], 1)
    height_BSN = sum_per_patch(height_BSHW)
    ties_B1N = draws.bits(seed_B, draws.TIES, grid.patches)[:, None]
    return topk_mask(sort_key(height_BSN, ties_B1N), mask.hidden(grid.patches))


def _hills(mask: Mask, grid: Grid, seed_B: np.ndarray) -> np.ndarray:
    """Return the base map: the largest exp(-distance^2) over a random set of visible patches.

    Returns:
        (B, rows, columns), distances in patches.
    """
    # MGMAE draws its base map as VideoMAE does, with the number of hidden patches rounded down.
    hidden = int(mask.ratio * grid.patches)
    hidden_BN = topk_mask(draws.bits(seed_B, draws.SET, grid.patches), hidden)
    shown_BHW = (~hidden_BN).astype(np.float32).reshape(-1, grid.height, grid.width)
    across_XW, down_YH = _falloff(grid.width), _falloff(grid.height)
    over_columns_BHX = (shown_BHW[:, :, None] * across_XW).max(3)
    return (over_columns_BHX[:, None] * down_YH[None, :, :, None]).max(2)


def _falloff(patches: int) -> np.ndarray:
    """Return exp(-d^2) of the distance along an axis: (cells, patches) float32.

    It is rounded from float64, since exp of float32 differs between machines in its last bit.
    """
    cell = (np.arange(FINE * patches) + 0.5) / FINE
    patch = np.arange(patches) + 0.5
    return np.exp(-np.square(cell[:, None] - patch)).astype(np.float32)


def _pulled(map_BHW: np.ndarray, shift_BHW2: np.ndarray, base_BHW: np.ndarray) -> np.ndarray:
    """Sample the map at each cell plus its shift, bilinearly; outside the frame, the base map."""
    _, rows, columns = map_BHW.shape
    x_BHW = shift_BHW2[..., 0] + np.arange(columns, dtype=np.float32)
    y_BHW = shift_BHW2[..., 1] + np.arange(rows, dtype=np.float32)[:, None]
    inside_BHW = (x_BHW > -0.5) & (x_BHW < columns - 0.5) & (y_BHW > -0.5) & (y_BHW < rows - 0.5)
    x_BHW, y_BHW = x_BHW.clip(0, columns - 1), y_BHW.clip(0, rows - 1)
    left_BHW, top_BHW = np.floor(x_BHW), np.floor(y_BHW)
    right_share_BHW, low_share_BHW = x_BHW - left_BHW, y_BHW - top_BHW

    def at(row_BHW: np.ndarray, column_BHW: np.ndarray) -> np.ndarray:
        row_BHW = np.minimum(row_BHW.astype(np.int64), rows - 1)
        column_BHW = np.minimum(column_BHW.astype(np.int64), columns - 1)
        cell_BN = (row_BHW * columns + column_BHW).reshape(-1, rows * columns)
        return np.take_along_axis(map_BHW.reshape(cell_BN.shape), cell_BN, 1).reshape(map_BHW.shape)

    def across(row_BHW: np.ndarray) -> np.ndarray:
        left, right = at(row_BHW, left_BHW), at(row_BHW, left_BHW + 1)
        return left * (1 - right_share_BHW) + right * right_share_BHW

    upper_BHW, lower_BHW = across(top_BHW), across(top_BHW + 1)
    value_BHW = upper_BHW * (1 - low_share_BHW) + lower_BHW * low_share_BHW
    return np.where(inside_BHW, value_BHW, base_BHW)


# --- TrackMAE (Vandeghen et al., CVPR 2026) ---
# Source: rvandeghen/TrackMAE, engine_for_pretraining_cotracker.py, rho_motion 0.5 of its README.
# There a patch moves as far as the mean of the 2 x 2 tracks that start in it; here as the mean of
# the motion in its 2 x 2 quarters.

FROM_HIGH = 0.5  # share of the visible patches that come from the bin of high motion


def motion_bins(
    mask: Mask, grid: Grid, seed_B: np.ndarray, magnitude_BSHW: np.ndarray
) -> np.ndarray:
    """Show equal shares of the patches that move most and least, the same in every slot.

    Patches are ranked by their motion over the clip, with random ties, and cut into two bins of
    equal size. Each bin shows its share at random.
    """
    patches = grid.patches
    motion_BN = _motion_of_clip(grid, magnitude_BSHW)
    rank_BN = sort_key(motion_BN, draws.bits(seed_B, draws.TIES, patches)).argsort(1).argsort(1)
    high_BN = rank_BN >= patches // 2
    draw_BN = draws.bits(seed_B, draws.SET, patches)
    shown = patches - mask.hidden(grid.patches)
    from_high = int(FROM_HIGH * shown)
    last = 1 << 32  # after all draws of 32 bits
    high_shown_BN = topk_mask(np.where(high_BN, draw_BN, last), from_high)
    low_shown_BN = topk_mask(np.where(high_BN, last, draw_BN), shown - from_high)
    return ~(high_shown_BN | low_shown_BN)[:, None].repeat(grid.slots, 1)


def _motion_of_clip(grid: Grid, magnitude_BSHW: np.ndarray) -> np.ndarray:
    """Return the motion of each patch, summed over its quarters and over slots: (B, patches)."""
    motion_BSN = summed_motion(grid, magnitude_BSHW)
    return sum(motion_BSN.swapaxes(0, 1)[1:], start=motion_BSN[:, 0])


# --- V-JEPA (Bardes et al., 2024) ---
# Source: facebookresearch/jepa, src/masks/multiblock3d.py and configs/pretrain/vitl16.yaml. There a
# clip has both masks, short-range and long-range. Here it has one of them, each with probability
# 1/2.

KINDS = ((8, 0.15), (2, 0.7))  # blocks, and the share of the frame that each covers
ASPECT = (0.75, 1.5)


def multi_block(mask: Mask, grid: Grid, seed_B: np.ndarray) -> np.ndarray:
    """Hide the union of large blocks, the same in every slot.

    The K patches nearest to the union are hidden, with random tie-breaking. So all blocks grow or
    shrink by the same factor until K patches are hidden.
    """
    return _union(mask, grid, seed_B, _anywhere)


# Take the grid, the seeds, the number of blocks, and their heights and widths, each (B, 1). Return
# the blocks' top rows and left columns, each (B, blocks).
Places = Callable[..., tuple[np.ndarray, np.ndarray]]


def _union(mask: Mask, grid: Grid, seed_B: np.ndarray, places: Places) -> np.ndarray:
    long_B = draws.bits(seed_B, draws.START, 1)[:, 0] % 2 == 1
    ties_BN = draws.bits(seed_B, draws.TIES, grid.patches)
    short_BN, far_BN = (
        sort_key(_to_nearest(grid, seed_B, places, *kind), ties_BN) for kind in KINDS
    )
    key_BN = np.where(long_B[:, None], far_BN, short_BN)
    return topk_mask(key_BN, mask.hidden(grid.patches))[:, None].repeat(grid.slots, 1)


def _to_nearest(
    grid: Grid, seed_B: np.ndarray, places: Places, blocks: int, scale: float
) -> np.ndarray:
    """Return each patch's box-scaled distance to the nearest block: (B, patches).

    A clip's blocks have the same size, and cover whole patches.
    """
    aspect_B1 = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * draws.uniform(seed_B, draws.SIZES, 1)
    area = int(scale * grid.patches)
    height_B1 = np.rint(np.sqrt(area * aspect_B1)).clip(1, grid.height)
    width_B1 = np.rint(np.sqrt(area / aspect_B1)).clip(1, grid.width)
    top_BK, left_BK = places(grid, seed_B, blocks, height_B1, width_B1)
    sizes = (width_B1.repeat(blocks, 1), height_B1.repeat(blocks, 1))
    return distance(Boxes(left_BK + width_B1 / 2, top_BK + height_B1 / 2, *sizes), grid).min(1)


def _anywhere(
    grid: Grid, seed_B: np.ndarray, blocks: int, height_B1: np.ndarray, width_B1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    place_BK2 = draws.uniform(seed_B, draws.PLACES, 2 * blocks).reshape(-1, blocks, 2)
    top_BK = np.floor(place_BK2[..., 0] * (grid.height - height_B1 + 1))
    return top_BK, np.floor(place_BK2[..., 1] * (grid.width - width_B1 + 1))


# --- V-JEPA's blocks, drawn by motion ---
# Source: a public experiment with V-JEPA 2.1 (motion_guided_masking.py, 2026). Its modes
# block_motion_target and block_motion_context draw blocks by the softmax of the frame differences
# inside, or of their negative. Here motion takes the place of frame differences.

TEMPERATURE = 0.2  # ours, in units of the motion inside the clip's fastest block


def motion_blocks(
    mask: Mask, grid: Grid, seed_B: np.ndarray, magnitude_BSHW: np.ndarray
) -> np.ndarray:
    """Hide blocks as `multi_block` does, drawn by the softmax of the motion inside.

    A clip without motion has uniform places.
    """
    return _union(mask, grid, seed_B, partial(_by_motion, magnitude_BSHW, 1))


def static_blocks(
    mask: Mask, grid: Grid, seed_B: np.ndarray, magnitude_BSHW: np.ndarray
) -> np.ndarray:
    """Hide blocks as `motion_blocks` does, by the softmax of the negative motion."""
    return _union(mask, grid, seed_B, partial(_by_motion, magnitude_BSHW, -1))


def _by_motion(
    magnitude_BSHW: np.ndarray,
    sign: int,
    grid: Grid,
    seed_B: np.ndarray,
    blocks: int,
    height_B1: np.ndarray,
    width_B1: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    motion_BN = _motion_of_clip(grid, magnitude_BSHW)
    # Whole numbers, so that sums do not depend on their order.
    share_BN = motion_BN / np.maximum(motion_BN.max(1, keepdims=True), np.finfo(np.float32).tiny)
    units_BHW = np.rint(65536 * share_BN).astype(np.int64).reshape(-1, grid.height, grid.width)
    # The motion above and to the left of each corner of a patch.
    before_BHW = np.pad(units_BHW.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    top_N, left_N = np.divmod(np.arange(grid.patches), grid.width)
    end_BN, right_BN = top_N + height_B1.astype(int), left_N + width_B1.astype(int)
    fits_BN = (end_BN <= grid.height) & (right_BN <= grid.width)
    end_BN, right_BN = np.minimum(end_BN, grid.height), np.minimum(right_BN, grid.width)
    clip_B1 = np.arange(len(seed_B))[:, None]
    lower_BN = before_BHW[clip_B1, end_BN, right_BN] - before_BHW[clip_B1, end_BN, left_N]
    upper_BN = before_BHW[clip_B1, top_N, right_BN] - before_BHW[clip_B1, top_N, left_N]
    inside_BN = np.where(fits_BN, lower_BN - upper_BN, 0)
    score_BN = sign * inside_BN / np.maximum(inside_BN.max(1, keepdims=True), 1) / TEMPERATURE
    # The place of the largest score plus Gumbel noise is a draw from the scores' softmax.
    draw_BN = (draws.bits(seed_B, draws.PLACES, blocks * grid.patches) + 0.5) / 2**32
    noise_BKN = -np.log(-np.log(draw_BN)).reshape(-1, blocks, grid.patches)
    chosen_BK = np.where(fits_BN[:, None], score_BN[:, None] + noise_BKN, -np.inf).argmax(2)
    return top_N[chosen_BK].astype(np.float32), left_N[chosen_BK].astype(np.float32)


# --- Future frames ---
# Source: V-JEPA's option max_temporal_keep, which limits what the encoder sees to the first frames.


def future(mask: Mask, grid: Grid, seed_B: np.ndarray) -> np.ndarray:
    """Show the first slot and hide the rest.

    The clip hides K patches per slot on average. So as many patches as that leaves are shown in
    order of time. In the slot where they end, they are random.
    """
    later_L = np.arange(grid.slots, dtype=np.float32)[::-1].repeat(grid.patches)
    order_BL = draws.bits(seed_B, draws.SET, len(later_L))
    hidden_BL = topk_mask(sort_key(later_L, order_BL), grid.slots * mask.hidden(grid.patches))
    return hidden_BL.reshape(-1, grid.slots, grid.patches)


# --- Green3D noise (Bhowmik et al., 2025, after ColorMAE, Hinojosa et al., ECCV 2024) ---
# Source: carlosh93/ColorMAE, models/utils/masking_generator.py. The papers define green noise as
# the difference of two Gaussian blurs. Their widths are our choice. All numbers are integers, so
# that every machine agrees.

NARROW, WIDE = 1.0, 2.0  # standard deviations of the two blurs, in patches and slots
REACH = 6  # of the kernels: three times the wider standard deviation
UNIT = 1 << 8  # sum of a kernel


def green_noise(mask: Mask, grid: Grid, seed_B: np.ndarray) -> np.ndarray:
    """Show the patches with the highest values of white noise, band-passed in space and time.

    The noise extends beyond the clip by the filter's reach.
    """
    sides = [side + 2 * REACH for side in (grid.slots, grid.height, grid.width)]
    white_BN = draws.bits(seed_B, draws.NOISE, sides[0] * sides[1] * sides[2]) >> 8
    white_BSHW = white_BN.reshape(-1, *sides)
    green_BSHW = _blurred(white_BSHW, NARROW) - _blurred(white_BSHW, WIDE)
    return topk_mask(green_BSHW.reshape(-1, grid.slots, grid.patches), mask.hidden(grid.patches))


def _blurred(x_BSHW: np.ndarray, width: float) -> np.ndarray:
    """Blur along each axis in turn, and drop the margin. The result is scaled by UNIT**3."""
    for axis in (3, 2, 1):
        inner = x_BSHW.shape[axis] - 2 * REACH
        moved_BSHW = x_BSHW.swapaxes(axis, -1)
        weights = enumerate(_kernel(width))
        shifted = [w * moved_BSHW[..., shift : shift + inner] for shift, w in weights if w]
        x_BSHW = sum(shifted[1:], start=shifted[0]).swapaxes(axis, -1)
    return x_BSHW


@cache
def _kernel(width: float) -> list[int]:
    """Return a Gaussian in integers with sum UNIT. The middle takes the rounding error."""
    weights = [exp(-0.5 * (x / width) ** 2) for x in range(-REACH, REACH + 1)]
    whole = [round(UNIT * weight / sum(weights)) for weight in weights]
    whole[REACH] += UNIT - sum(whole)
    return whole


# --- OneVision-Encoder (Tang et al., 2026) ---
# It encodes only the patches with large motion vectors and residuals.


def codec_keep(
    mask: Mask, grid: Grid, seed_B: np.ndarray, magnitude_BSHW: np.ndarray
) -> np.ndarray:
    """Hide the K patches of each slot that move least, with random tie-breaking.

    A patch's motion is the sum over its 2 x 2 quarters. Ties are broken in the same order in every
    slot, so a clip without motion has a tube mask. It is the opposite of MGM.
    """
    motion_BSN = summed_motion(grid, magnitude_BSHW)
    ties_B1N = draws.bits(seed_B, draws.TIES, grid.patches)[:, None]
    return topk_mask(sort_key(motion_BSN, ties_B1N), mask.hidden(grid.patches))


def codec_clip(
    mask: Mask, grid: Grid, seed_B: np.ndarray, magnitude_BSHW: np.ndarray
) -> np.ndarray:
    """Show the first slot and the patches of the whole clip that move most.

    The first slot stands for the I-frame, of which OneVision-Encoder keeps every patch. The clip
    hides K patches per slot on average, with random tie-breaking. At a ratio that leaves less than
    a slot, part of the first slot is shown, at random. `mgm.spec.Pretrain` refuses such a ratio.
    """
    motion_BSN = summed_motion(grid, magnitude_BSHW)
    motion_BSN[:, 0] = np.inf
    motion_BL = motion_BSN.reshape(len(seed_B), -1)
    order_BL = draws.bits(seed_B, draws.TIES, motion_BL.shape[1])
    hidden_BL = topk_mask(sort_key(motion_BL, order_BL), grid.slots * mask.hidden(grid.patches))
    return hidden_BL.reshape(motion_BSN.shape)
