"""Dense masks: one box per slot, and the patches nearest to it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mgm.masking import draws
from mgm.masking.draws import sort_key, topk_mask
from mgm.masking.inputs import Grid, MaskInput


@dataclass(frozen=True)
class Boxes:
    """Centres and sizes in patches, each (B, S) float32."""

    x_BS: Tensor
    y_BS: Tensor
    width_BS: Tensor
    height_BS: Tensor


def first_size(ratio: float, grid: Grid) -> tuple[float, float]:
    """Return width and height of the first box: w_0 = h_0 = sqrt(ratio * H' * W') (3.2, 3.3).

    On a grid too narrow for that square, the box is a rectangle of the same area that fits.
    """
    area = ratio * grid.patches
    height = min(max(math.sqrt(area), area / grid.width), grid.height)
    return area / height, height


def first_centre(clips: MaskInput) -> tuple[Tensor, Tensor]:
    """Draw the centre of the first box uniformly, with the box inside the frame.

    x_0, y_0 in rand(0, side of the frame - side of the box) (3.2, 3.3).
    """
    width, height = first_size(clips.mask.ratio, clips.grid)
    x_B, y_B = clips.uniform(draws.START, 2).unbind(1)
    return (
        x_B * (clips.grid.width - width) + width / 2,
        y_B * (clips.grid.height - height) + height / 2,
    )


def constant_size(clips: MaskInput) -> tuple[Tensor, Tensor]:
    """Return the first box's width and height for every slot."""
    width, height = first_size(clips.mask.ratio, clips.grid)
    ones_BS = torch.ones(len(clips.seed_B), clips.grid.slots, device=clips.seed_B.device)
    return ones_BS * width, ones_BS * height


def clamped(boxes: Boxes, grid: Grid) -> Boxes:
    """Move the boxes inside the frame. A box that is wider than the frame is centred."""
    return Boxes(
        _inside(boxes.x_BS, boxes.width_BS, grid.width),
        _inside(boxes.y_BS, boxes.height_BS, grid.height),
        boxes.width_BS,
        boxes.height_BS,
    )


def _inside(centre_BS: Tensor, size_BS: Tensor, frame: int) -> Tensor:
    margin_BS = (size_BS / 2).clamp(max=frame / 2)
    return torch.minimum(torch.maximum(centre_BS, margin_BS), frame - margin_BS)


def nearest(clips: MaskInput, boxes: Boxes) -> Tensor:
    """Hide the K patches nearest to each slot's box: (B, S, patches) bool.

    The distance is the box-scaled Chebyshev distance max(|x - cx| / w, |y - cy| / h). Ties are
    broken at random. So the part of a box outside the frame is hidden on the other side (grow).
    With clamp, boxes are inside already. For a box inside, both are the same. All slots of a clip
    have the same random order, so a static box always hides the same patches.
    """
    ties_B1N = clips.bits(draws.TIES, clips.grid.patches)[:, None]
    return topk_mask(sort_key(distance(boxes, clips.grid), ties_B1N), clips.hidden)


def distance(boxes: Boxes, grid: Grid) -> Tensor:
    """Return the box-scaled Chebyshev distance of every patch's centre from the box's centre.

    Returns:
        (B, S, patches) float32, 0.5 on the box's outline.
    """
    row_H = torch.arange(grid.height, device=boxes.y_BS.device) + 0.5
    column_W = torch.arange(grid.width, device=boxes.x_BS.device) + 0.5
    y_BSH = (row_H - boxes.y_BS[:, :, None]).abs() / boxes.height_BS[:, :, None]
    x_BSW = (column_W - boxes.x_BS[:, :, None]).abs() / boxes.width_BS[:, :, None]
    return torch.maximum(y_BSH[:, :, :, None], x_BSW[:, :, None, :]).flatten(2)
