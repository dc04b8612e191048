"""Dense pattern: the K patches nearest the box's centre."""

import torch
from torch import Tensor

from mgm.masking import prng
from mgm.masking.boxes import Boxes
from mgm.masking.choose import sort_key, topk_mask
from mgm.masking.clips import Clips, Grid


def nearest(clips: Clips, boxes: Boxes) -> Tensor:
    """(B, S, patches): hide, in every slot, the K patches nearest its box.

    Nearest in the box-scaled Chebyshev distance max(|x - cx| / w, |y - cy| / h), ties at random.
    What lies beyond the edge of the frame is hidden on the other side (grow) or at random places
    (spill); under clamp the boxes are inside already. The three agree where the box lies inside.
    Random orders are drawn once a clip, so a box that holds still hides the same patches in all
    slots.
    """
    ties_B1N = clips.bits(prng.TIES, clips.grid.patches)[:, None]
    key_BSN = sort_key(distance(boxes, clips.grid), ties_B1N)
    if clips.edge == "spill":
        fill_B1N = clips.bits(prng.FILL, clips.grid.patches)[:, None]
        kept_BS1 = (clips.hidden * share_inside(boxes, clips.grid)).round()[:, :, None]
        key_BSN = torch.where(key_BSN.argsort(-1).argsort(-1) < kept_BS1, -1, fill_B1N)
    return topk_mask(key_BSN, clips.hidden)


def distance(boxes: Boxes, grid: Grid) -> Tensor:
    """Box-scaled Chebyshev distance of every patch's centre from the box's:

    (B, S, patches) float32, 0.5 on the box's outline.
    """
    row_H = torch.arange(grid.height, device=boxes.y_BS.device) + 0.5
    column_W = torch.arange(grid.width, device=boxes.x_BS.device) + 0.5
    y_BSH = (row_H - boxes.y_BS[:, :, None]).abs() / boxes.height_BS[:, :, None]
    x_BSW = (column_W - boxes.x_BS[:, :, None]).abs() / boxes.width_BS[:, :, None]
    return torch.maximum(y_BSH[:, :, :, None], x_BSW[:, :, None, :]).flatten(2)


def share_inside(boxes: Boxes, grid: Grid) -> Tensor:
    """The share of each box's area that lies in the frame: (B, S)."""
    return _share(boxes.x_BS, boxes.width_BS, grid.width) * _share(
        boxes.y_BS, boxes.height_BS, grid.height
    )


def _share(centre_BS: Tensor, size_BS: Tensor, frame: int) -> Tensor:
    low_BS, high_BS = centre_BS - size_BS / 2, centre_BS + size_BS / 2
    return (high_BS.clamp(max=frame) - low_BS.clamp(min=0)) / size_BS
