"""TrackMAE's mask: tubes, half of the visible ones where most moves, half where least does
(Vandeghen et al., CVPR 2026).

Read in its code (rvandeghen/TrackMAE: engine_for_pretraining_cotracker.py, rho_motion 0.5 of its
README). There a patch moves as far as the mean of the 2 x 2 tracks that start in it; here, as the
mean of what passes through its 2 x 2 quarters.
"""

import torch
from torch import Tensor

from mgm.masking import prng
from mgm.masking.choose import sort_key, topk_mask
from mgm.masking.clips import Clips, at_places
from mgm.masking.warped import FINE, sum_of_patches

FROM_HIGH = 0.5  # share of the visible patches that are of the bin of high motion


def motion_bins(clips: Clips) -> Tensor:
    """Patches are ranked by their motion over the clip, ties at random, and cut into two bins of
    equal size; each bin shows its share at random, the same in every slot."""
    assert clips.motion_BSHW is not None
    grid, patches = clips.grid, clips.grid.patches
    of_slots_BSN = sum_of_patches(
        at_places(clips.motion_BSHW, FINE * grid.height, FINE * grid.width)
    )
    motion_BN = sum(
        of_slots_BSN.unbind(1)
    )  # in the order of slots: a reduction's order depends on the device
    rank_BN = sort_key(motion_BN, clips.bits(prng.TIES, patches)).argsort(1).argsort(1)  # type: ignore[arg-type]
    high_BN = rank_BN >= patches // 2
    draw_BN = clips.bits(prng.SET, patches)
    shown = patches - clips.hidden
    of_high = int(FROM_HIGH * shown)
    last = 1 << 32  # after all draws of 32 bits
    shown_BN = topk_mask(torch.where(high_BN, draw_BN, last), of_high) | topk_mask(
        torch.where(high_BN, last, draw_BN), shown - of_high
    )
    return ~shown_BN[:, None].expand(-1, grid.slots, -1)
