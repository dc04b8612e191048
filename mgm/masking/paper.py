"""The masks of the paper: three baselines (tube, block, ST-MAE's), simulated motion, and MGM.

A function takes the mask's settings, the token grid and a batch's seeds, and of guided masks the
motion. It returns the hidden patches, (B, S, patches) bool, or the boxes whose nearest patches are
hidden.

Lengths are in patches: patch (row, column) covers [column, column + 1] x [row, row + 1].
"""

import math

import numpy as np

from mgm.masking import draws
from mgm.masking.boxes import Boxes, Grid
from mgm.masking.cells import largest_motion
from mgm.masking.draws import sort_key, topk_mask
from mgm.spec.masks import Mask

# The paper has no range for the next two numbers.
SPEED = 1 / 7  # largest velocity, in frame sides per slot (2 of 14 patches)
JITTER = 0.1  # largest change of a box's side from slot to slot, in units of the side


# --- The first box ---


def first_size(ratio: float, grid: Grid) -> tuple[float, float]:
    """Return width and height of the first box: w_0 = h_0 = sqrt(ratio * H' * W') (3.2, 3.3).

    On a grid too narrow for that square, the box is a rectangle of the same area that fits.
    """
    area = ratio * grid.patches
    height = min(max(math.sqrt(area), area / grid.width), grid.height)
    return area / height, height


def first_centre(mask: Mask, grid: Grid, seed_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw the centre of the first box uniformly, with the box inside the frame.

    x_0, y_0 in rand(0, side of the frame - side of the box) (3.2, 3.3).
    """
    width, height = first_size(mask.ratio, grid)
    x_B, y_B = draws.uniform(seed_B, draws.START, 2).T
    return x_B * (grid.width - width) + width / 2, y_B * (grid.height - height) + height / 2


def constant_size(mask: Mask, grid: Grid, seed_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first box's width and height for every slot."""
    width, height = first_size(mask.ratio, grid)
    ones_BS = np.ones((len(seed_B), grid.slots), np.float32)
    return ones_BS * width, ones_BS * height


# --- Baselines ---


def agnostic(mask: Mask, grid: Grid, seed_B: np.ndarray) -> np.ndarray:
    """Hide a random set of patches over the whole clip (ST-MAE).

    The number of hidden patches is the same in every clip, but varies between slots.
    """
    slots, patches = grid.slots, grid.patches
    hidden_BL = topk_mask(
        draws.bits(seed_B, draws.SET, slots * patches), slots * mask.hidden(grid.patches)
    )
    return hidden_BL.reshape(-1, slots, patches)


def tube(mask: Mask, grid: Grid, seed_B: np.ndarray) -> np.ndarray:
    """Hide one random set of patches in every slot (random tube; VideoMAE)."""
    hidden_BN = topk_mask(draws.bits(seed_B, draws.SET, grid.patches), mask.hidden(grid.patches))
    return hidden_BN[:, None].repeat(grid.slots, 1)


def block(mask: Mask, grid: Grid, seed_B: np.ndarray) -> Boxes:
    """Place a static box at random (random block)."""
    x_B, y_B = first_centre(mask, grid, seed_B)
    width_BS, height_BS = constant_size(mask, grid, seed_B)
    x_BS, y_BS = (centre_B[:, None].repeat(grid.slots, 1) for centre_B in (x_B, y_B))
    return Boxes(x_BS, y_BS, width_BS, height_BS)


# --- Simulated motion (3.2) ---


def smm(mask: Mask, grid: Grid, seed_B: np.ndarray) -> Boxes:
    """Move a box by random velocities (eq. 5).

    The scaling s_t of eq. 5 keeps w = h. It has no effect here and is left out, since K patches are
    hidden whatever the box's size. The paper does not specify the motion at the edge. Here the
    centre bounces off the frame's border.
    """
    sides = (grid.width, grid.height)
    x_BS, y_BS = map(
        _bouncing_walk, first_centre(mask, grid, seed_B), _velocities(mask, grid, seed_B), sides
    )
    return Boxes(x_BS, y_BS, *constant_size(mask, grid, seed_B))


def smm_sparse(mask: Mask, grid: Grid, seed_B: np.ndarray) -> np.ndarray:
    """Move tube's random set by SMM's velocities.

    The paper does not define "sparse", so this is our reading. The set moves by the velocities'
    sum, rounded to whole patches. It wraps around at the border, which keeps the count.
    """
    height, width = grid.height, grid.width
    row_H1, column_W = np.arange(height)[:, None], np.arange(width)
    hidden_BN = tube(mask, grid, seed_B)[:, 0]
    x_B = y_B = np.zeros(len(seed_B), np.float32)
    slots = [hidden_BN]
    for step_x_B, step_y_B in zip(*(step_BN.T for step_BN in _velocities(mask, grid, seed_B))):
        x_B, y_B = x_B + step_x_B, y_B + step_y_B
        down_B, right_B = (np.rint(moved_B).astype(np.int64) for moved_B in (y_B, x_B))
        from_row_BH1 = (row_H1 - down_B[:, None, None]) % height
        from_column_B1W = (column_W - right_B[:, None, None]) % width
        from_BHW = from_row_BH1 * width + from_column_B1W
        slots.append(np.take_along_axis(hidden_BN, from_BHW.reshape(hidden_BN.shape), 1))
    return np.stack(slots, 1)


def _velocities(mask: Mask, grid: Grid, seed_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw v_x and v_y of slots 1, 2, ..., each (B, S - 1), uniform in +-SPEED.

    Every slot has its own draw, since eq. 5 indexes velocities by slot.
    """
    steps = grid.slots - 1
    steps_B2N = (
        2 * draws.uniform(seed_B, draws.VELOCITIES, 2 * steps).reshape(len(seed_B), 2, steps) - 1
    )
    speed_x, speed_y = SPEED * grid.width, SPEED * grid.height
    return steps_B2N[:, 0] * speed_x, steps_B2N[:, 1] * speed_y


def _bouncing_walk(start_B: np.ndarray, step_BN: np.ndarray, side: int) -> np.ndarray:
    positions = [start_B]
    for step_B in step_BN.T:
        # Bounce off 0, then off the far side.
        bounced_B = np.abs(positions[-1] + step_B)
        positions.append(side - np.abs(side - bounced_B))
    return np.stack(positions, 1)


# --- Motion-guided masking (3.3) ---


def mgm(mask: Mask, grid: Grid, seed_B: np.ndarray, magnitude_BSHW: np.ndarray) -> Boxes:
    """Move a box to the largest motion of each slot (eqs. 6 and 7).

    The box of slot 0 is at a random position inside the frame. Eq. 6 upsamples the map to pixels by
    nearest neighbour, so all pixels of a cell have the same motion. The box moves to the cell's
    centre. Of cells with equal motion, the one nearest to the last guided centre is taken. Slot 0's
    random centre does not count as guided, so the first guided slot takes one of them at random. A
    slot without motion keeps the last centre, guided or not.
    """
    _, slots, rows, columns = magnitude_BSHW.shape
    # Centres of the map's cells in patches, row by row.
    y_H = (np.arange(rows, dtype=np.float32) + 0.5) * (grid.height / rows)
    x_W = (np.arange(columns, dtype=np.float32) + 0.5) * (grid.width / columns)
    cell_x_N, cell_y_N = np.tile(x_W, rows), y_H.repeat(columns)
    # A random order of the cells, to break ties.
    order_BN = draws.bits(seed_B, draws.TIES, rows * columns)
    motion_BSN = magnitude_BSHW.reshape(-1, slots, rows * columns)
    largest_BS1 = motion_BSN.max(2, keepdims=True)
    smaller_BSN = motion_BSN < largest_BS1

    x_B, y_B = first_centre(mask, grid, seed_B)
    centres = [(x_B, y_B)]
    guided_B = np.zeros(len(x_B), bool)  # whether motion set the last centre
    for slot in range(1, slots):
        moves_B = largest_BS1[:, slot, 0] > 0
        distance_BN = np.square(cell_x_N - x_B[:, None]) + np.square(cell_y_N - y_B[:, None])
        tied_BN = distance_BN * guided_B[:, None]
        tied_BN[smaller_BSN[:, slot]] = np.inf
        cell_B = sort_key(tied_BN, order_BN).argmin(1)
        x_B = np.where(moves_B, cell_x_N[cell_B], x_B)
        y_B = np.where(moves_B, cell_y_N[cell_B], y_B)
        guided_B = guided_B | moves_B
        centres.append((x_B, y_B))
    x_BS, y_BS = np.array(centres).transpose(1, 2, 0)
    size = _jittered_size if mask.jitter else constant_size
    return Boxes(x_BS, y_BS, *size(mask, grid, seed_B))


def mgm_sparse(
    mask: Mask, grid: Grid, seed_B: np.ndarray, magnitude_BSHW: np.ndarray
) -> np.ndarray:
    """Hide the patches with the largest motion.

    The paper does not define "sparse", so this is our reading. A patch has the motion of its
    fastest cell (top-1, as in eq. 7). Ties are broken at random, also among patches without motion
    if fewer than K patches move. A slot without motion keeps the previous slot's set. In slot 0,
    such a set is random.
    """
    motion_BSN = largest_motion(grid, magnitude_BSHW)
    ties_BSN = draws.bits(seed_B, draws.TIES, grid.slots * grid.patches).reshape(motion_BSN.shape)
    hidden_BSN = topk_mask(-sort_key(motion_BSN, ties_BSN), mask.hidden(grid.patches))
    slots = [hidden_BSN[:, 0]]
    for slot in range(1, grid.slots):
        moves_B1 = (motion_BSN[:, slot] > 0).any(1, keepdims=True)
        slots.append(np.where(moves_B1, hidden_BSN[:, slot], slots[-1]))
    return np.stack(slots, 1)


def _jittered_size(mask: Mask, grid: Grid, seed_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return widths and heights that change from slot to slot (eq. 7).

    w_t = w_{t-1} + sx_t and h_t = h_{t-1} + sy_t. The jitters sx and sy are uniform in +-JITTER
    minus their mean, so that they sum to zero. A side stays between half and twice the first side,
    and is at least one patch. Only small boxes, and clips of more than 11 slots, reach these
    bounds.
    """
    steps = grid.slots - 1
    first_2 = np.array(first_size(mask.ratio, grid), np.float32)
    draw_B2N = draws.uniform(seed_B, draws.SIZES, 2 * steps).reshape(len(seed_B), 2, steps)
    step_NB2 = np.moveaxis((2 * draw_B2N - 1) * JITTER, 2, 0) * first_2
    # Python's sum adds slots in order. The order of an array's sum depends on its shape.
    mean_B2 = sum(step_NB2) * (1 / max(1, steps))
    sides = [np.broadcast_to(first_2, (len(seed_B), 2))]
    for step_B2 in step_NB2:
        sides.append(sides[-1] + (step_B2 - mean_B2))
    side_2BS = np.stack(sides, 1).clip(np.maximum(1, first_2 / 2), first_2 * 2).transpose(2, 0, 1)
    return side_2BS[0], side_2BS[1]
