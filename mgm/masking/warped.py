"""MGMAE's mask: a base mask of the middle slot, carried to the others by motion (Huang et al., ICCV
2023, 3.2 and 3.3).

Read in the paper and its code (MCG-NJU/MGMAE: masking_generator.py, engine_for_mgmae.py);
DEVIATIONS says what differs here. Sums and products are in one order on every device, so that a
clip's mask is the same everywhere.
"""

import torch
from torch import Tensor

from mgm.masking import hidden_patches, prng
from mgm.masking.choose import sort_key, topk_mask
from mgm.masking.clips import Clips, at_places

FINE = 2  # places of the carried map along a patch's side


def warped(clips: Clips) -> Tensor:
    """Gaussian hills on random patches of the middle slot are carried from slot to slot; the
    patches that are highest are visible.

    A place takes the value of where its content was in the neighbouring slot that is nearer to the
    middle (backward warping), or its value in the base map if that lies outside the frame.
    """
    assert clips.displacement_BSHW2 is not None
    grid, middle = clips.grid, clips.grid.slots // 2
    rows, columns = FINE * grid.height, FINE * grid.width
    # the displacement of each place, in places
    shift_BSHW2 = at_places(clips.displacement_BSHW2, rows, columns) * torch.tensor(
        [columns, rows], device=clips.seed_B.device
    )
    base_BHW = _hills(clips)
    maps = {middle: base_BHW}
    for slot in range(middle + 1, grid.slots):
        maps[slot] = _pulled(maps[slot - 1], -shift_BSHW2[:, slot], base_BHW)
    for slot in reversed(range(middle)):  # what lies here goes on as it came
        maps[slot] = _pulled(maps[slot + 1], shift_BSHW2[:, slot], base_BHW)
    height_BSHW = torch.stack([maps[slot] for slot in range(grid.slots)], 1)
    height_BSN = sum_of_patches(height_BSHW)
    ties_B1N = clips.bits(prng.TIES, grid.patches)[:, None]
    hidden = hidden_patches("warped", clips.ratio, grid.patches)
    return topk_mask(sort_key(height_BSN, ties_B1N), hidden)


def sum_of_patches(x_BSHW: Tensor) -> Tensor:
    """Sum the FINE x FINE places of each patch: (B, S, rows, columns) to (B, S, patches).

    The order of the sum is fixed, because a reduction's order depends on the device.
    """
    rows = [x_BSHW[:, :, i::FINE] for i in range(FINE)]
    return sum(row[..., j::FINE] for row in rows for j in range(FINE)).flatten(2)  # type: ignore[union-attr]


def _hills(clips: Clips) -> Tensor:
    """(B, rows, columns):

    the highest of exp(-distance^2), in patches, over a random set of visible patches.
    """
    grid = clips.grid
    hidden_BN = topk_mask(clips.bits(prng.SET, grid.patches), clips.hidden)
    shown_BHW = (~hidden_BN).float().unflatten(1, (grid.height, grid.width))
    over_columns_BHX = (shown_BHW[:, :, None] * _falloff(grid.width).to(shown_BHW)).amax(3)
    return (over_columns_BHX[:, None] * _falloff(grid.height).to(shown_BHW)[None, :, :, None]).amax(
        2
    )


def _falloff(patches: int) -> Tensor:
    """(places, patches):

    exp(-d^2) of the centres' distance along an axis; made on the CPU, whose exp is the one that
    counts.
    """
    place = (torch.arange(FINE * patches, device="cpu") + 0.5) / FINE
    patch = torch.arange(patches, device="cpu") + 0.5
    return (-(place[:, None] - patch).square()).exp()


def _pulled(map_BHW: Tensor, shift_BHW2: Tensor, base_BHW: Tensor) -> Tensor:
    """The map at each place plus its shift, between places bilinear;

    outside the frame, the base map.
    """
    _, rows, columns = map_BHW.shape
    x_BHW = shift_BHW2[..., 0] + torch.arange(columns, device=map_BHW.device)
    y_BHW = shift_BHW2[..., 1] + torch.arange(rows, device=map_BHW.device)[:, None]
    inside_BHW = (x_BHW > -0.5) & (x_BHW < columns - 0.5) & (y_BHW > -0.5) & (y_BHW < rows - 0.5)
    x_BHW, y_BHW = x_BHW.clamp(0, columns - 1), y_BHW.clamp(0, rows - 1)
    left_BHW, top_BHW = x_BHW.floor(), y_BHW.floor()
    share_x_BHW, share_y_BHW = x_BHW - left_BHW, y_BHW - top_BHW

    def at(row_BHW: Tensor, column_BHW: Tensor) -> Tensor:
        place_BHW = row_BHW.long().clamp(max=rows - 1) * columns + column_BHW.long().clamp(
            max=columns - 1
        )
        return map_BHW.flatten(1).gather(1, place_BHW.flatten(1)).view_as(map_BHW)

    upper_BHW = at(top_BHW, left_BHW) * (1 - share_x_BHW) + at(top_BHW, left_BHW + 1) * share_x_BHW
    lower_BHW = (
        at(top_BHW + 1, left_BHW) * (1 - share_x_BHW) + at(top_BHW + 1, left_BHW + 1) * share_x_BHW
    )
    return torch.where(
        inside_BHW, upper_BHW * (1 - share_y_BHW) + lower_BHW * share_y_BHW, base_BHW
    )
