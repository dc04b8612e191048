"""Motion-guided masking (3.3, eqs. 6-7): a box that follows the largest motion."""

import torch
from torch import Tensor

from mgm.masking import prng
from mgm.masking.boxes import Boxes, constant_size, first_centre, first_size
from mgm.masking.choose import sort_key
from mgm.masking.clips import Clips

JITTER = 0.1  # largest change of a side from slot to slot, in sides; the paper gives no range


def mgm(clips: Clips) -> Boxes:
    """Slot 0's box at a random place inside the frame, unless its start is guided; later ones
    centred on the cell of largest motion.

    Eq. 6 upsamples the map to pixels by nearest neighbour, so all pixels of a cell tie: the box
    goes to the cell's centre. Of tied cells the one nearest the last centre is taken. A last centre
    is one that motion gave: slot 0's is not, so the first guided slot takes one of its tied cells
    at random. A slot without motion holds the last centre, be it slot 0's.
    """
    return Boxes(*_follow(clips), *(jittered_size(clips) if clips.jitter else constant_size(clips)))


def _follow(clips: Clips) -> tuple[Tensor, Tensor]:
    assert clips.motion_BSHW is not None
    _, slots, rows, columns = clips.motion_BSHW.shape
    cell_x_N, cell_y_N = _cell_centres(clips, rows, columns)
    order_BN = clips.bits(prng.TIES, rows * columns)  # a random order of the cells, for ties
    motion_BSN = clips.motion_BSHW.flatten(2)
    largest_BS1 = motion_BSN.amax(2, keepdim=True)
    smaller_BSN = motion_BSN < largest_BS1

    x_B, y_B = first_centre(clips)
    centres = [] if clips.guided_start else [torch.stack([x_B, y_B])]
    guided_B = torch.zeros_like(x_B, dtype=torch.bool)  # whether motion gave the last centre
    for slot in range(len(centres), slots):
        moves_B = largest_BS1[:, slot, 0] > 0
        distance_BN = (cell_x_N - x_B[:, None]).square() + (cell_y_N - y_B[:, None]).square()
        tied_BN = (distance_BN * guided_B[:, None]).masked_fill_(smaller_BSN[:, slot], torch.inf)
        cell_B = sort_key(tied_BN, order_BN).argmin(1)
        x_B = torch.where(moves_B, cell_x_N[cell_B], x_B)
        y_B = torch.where(moves_B, cell_y_N[cell_B], y_B)
        guided_B = guided_B | moves_B
        centres.append(torch.stack([x_B, y_B]))
    x_BS, y_BS = torch.stack(centres, 2)
    return x_BS, y_BS


def _cell_centres(clips: Clips, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Centres of the map's cells, in patches, row by row."""
    device = clips.seed_B.device
    y_H = (torch.arange(rows, device=device) + 0.5) * (clips.grid.height / rows)
    x_W = (torch.arange(columns, device=device) + 0.5) * (clips.grid.width / columns)
    return x_W.repeat(rows), y_H.repeat_interleave(columns)


def jittered_size(clips: Clips) -> tuple[Tensor, Tensor]:
    """w_t = w_{t-1} + sx_t and h_t = h_{t-1} + sy_t, with jitters that sum to zero (eq. 7), uniform
    in +-JITTER before that.

    A side stays between half and twice the first and at least one patch: bounds for small boxes and
    for clips of more than 11 slots.
    """
    steps = clips.grid.slots - 1
    steps_B2N = (2 * clips.uniform(prng.SIZES, 2 * steps).unflatten(1, (2, steps)) - 1) * JITTER
    width, height = first_size(clips.ratio, clips.grid)
    return _zero_sum_walk(steps_B2N[:, 0] * width, width), _zero_sum_walk(
        steps_B2N[:, 1] * height, height
    )


def _zero_sum_walk(step_BN: Tensor, first: float) -> Tensor:
    sides = [step_BN.new_full((len(step_BN),), first)]
    steps = step_BN.unbind(1)
    mean_B = sum(steps) * (
        1 / max(1, len(steps))
    )  # in the order of slots: a reduction's order depends on the device
    for step_B in steps:
        sides.append(sides[-1] + (step_B - mean_B))
    return torch.stack(sides, 1).clamp(max(1.0, first / 2), first * 2)
