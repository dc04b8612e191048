"""Sparse MGM (Table 4e):

the patches that move most. The paper leaves "sparse" open; this is our reading.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mgm.masking import prng
from mgm.masking.choose import sort_key, topk_mask
from mgm.masking.clips import Clips


def mgm_sparse(clips: Clips) -> Tensor:
    """A patch moves as much as its largest cell (top-1, as eq. 7). Ties, and so the rest where
    fewer than K move, at random.

    A slot without motion keeps the last slot's set; slot 0 draws one.
    """
    assert clips.motion_BSHW is not None
    motion_BSN = F.adaptive_max_pool2d(
        clips.motion_BSHW, (clips.grid.height, clips.grid.width)
    ).flatten(2)
    ties_BSN = clips.bits(prng.TIES, clips.grid.slots * clips.grid.patches).view(motion_BSN.shape)
    hidden_BSN = topk_mask(-sort_key(motion_BSN, ties_BSN), clips.hidden)
    slots = [hidden_BSN[:, 0]]
    for slot in range(1, clips.grid.slots):
        moves_B1 = (motion_BSN[:, slot] > 0).any(1, keepdim=True)
        slots.append(torch.where(moves_B1, hidden_BSN[:, slot], slots[-1]))
    return torch.stack(slots, 1)
