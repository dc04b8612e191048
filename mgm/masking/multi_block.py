"""V-JEPA's multi-block mask: the union of large blocks, the same in every slot (Bardes et al.,
2024).

Read in its code (facebookresearch/jepa: src/masks/multiblock3d.py, configs/pretrain/vitl16.yaml): 8
short-range blocks of 15 % of the frame or 2 long-range ones of 70 %, aspect ratio 0.75 to 1.5,
whole slots of time. There a clip gets both masks; here one, by a fair coin.
"""

import torch
from torch import Tensor

from mgm.masking import prng
from mgm.masking.boxes import Boxes
from mgm.masking.choose import sort_key, topk_mask
from mgm.masking.clips import Clips
from mgm.masking.dense import distance

KINDS = ((8, 0.15), (2, 0.7))  # blocks, and the share of the frame that each covers
ASPECT = (0.75, 1.5)


def multi_block(clips: Clips) -> Tensor:
    """Hide the patches nearest the union of a clip's blocks, ties at random:

    blocks grow, or shrink, alike until K are hidden.
    """
    long_B = clips.bits(prng.START, 1)[:, 0] % 2 == 1
    keys = [
        sort_key(_to_nearest(clips, *kind), clips.bits(prng.TIES, clips.grid.patches))
        for kind in KINDS
    ]
    key_BN = torch.where(long_B[:, None], keys[1], keys[0])
    return topk_mask(key_BN, clips.hidden)[:, None].expand(-1, clips.grid.slots, -1)


def _to_nearest(clips: Clips, blocks: int, scale: float) -> Tensor:
    """(B, patches):

    box-scaled distance to the nearest of a clip's blocks, which are of one size and lie on whole
    patches.
    """
    grid = clips.grid
    aspect_B1 = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * clips.uniform(prng.SIZES, 1)
    area = int(scale * grid.patches)
    height_B1 = (area * aspect_B1).sqrt().round().clamp(1, grid.height)
    width_B1 = (area / aspect_B1).sqrt().round().clamp(1, grid.width)
    place_BK2 = clips.uniform(prng.PLACES, 2 * blocks).unflatten(1, (blocks, 2))
    top_BK = (place_BK2[..., 0] * (grid.height - height_B1 + 1)).floor()
    left_BK = (place_BK2[..., 1] * (grid.width - width_B1 + 1)).floor()
    sizes = (width_B1.expand_as(left_BK), height_B1.expand_as(top_BK))
    return distance(Boxes(left_BK + width_B1 / 2, top_BK + height_B1 / 2, *sizes), grid).amin(1)
