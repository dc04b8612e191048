"""One box per slot: what the dense masks follow."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mgm.masking import prng
from mgm.masking.clips import Clips, Grid


@dataclass(frozen=True)
class Boxes:
    """Centres and sizes in patches, each (B, S) float32."""

    x_BS: Tensor
    y_BS: Tensor
    width_BS: Tensor
    height_BS: Tensor


def first_size(ratio: float, grid: Grid) -> tuple[float, float]:
    """w_0 = h_0 = sqrt(ratio * H' * W') (3.2, 3.3).

    On a grid too narrow for that square, a rectangle of the same area that fits.
    """
    area = ratio * grid.patches
    height = min(max(math.sqrt(area), area / grid.width), grid.height)
    return area / height, height


def first_centre(clips: Clips) -> tuple[Tensor, Tensor]:
    """The centre of a box drawn uniformly inside the frame:

    x_0, y_0 in rand(0, side of the frame - side of the box) (3.2, 3.3).
    """
    width, height = first_size(clips.ratio, clips.grid)
    x_B, y_B = clips.uniform(prng.START, 2).unbind(1)
    return x_B * (clips.grid.width - width) + width / 2, y_B * (
        clips.grid.height - height
    ) + height / 2


def constant_size(clips: Clips) -> tuple[Tensor, Tensor]:
    """The first size in every slot."""
    width, height = first_size(clips.ratio, clips.grid)
    ones_BS = torch.ones(len(clips.seed_B), clips.grid.slots, device=clips.seed_B.device)
    return ones_BS * width, ones_BS * height


def clamped(boxes: Boxes, grid: Grid) -> Boxes:
    """The boxes moved inside the frame; one wider than the frame is centred in it."""
    return Boxes(
        _inside(boxes.x_BS, boxes.width_BS, grid.width),
        _inside(boxes.y_BS, boxes.height_BS, grid.height),
        boxes.width_BS,
        boxes.height_BS,
    )


def _inside(centre_BS: Tensor, size_BS: Tensor, frame: int) -> Tensor:
    margin_BS = (size_BS / 2).clamp(max=frame / 2)
    return torch.minimum(torch.maximum(centre_BS, margin_BS), frame - margin_BS)
