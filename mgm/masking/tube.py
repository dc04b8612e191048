"""Random tube (VideoMAE): one random set of patches, hidden in every slot."""

from torch import Tensor

from mgm.masking import prng
from mgm.masking.choose import topk_mask
from mgm.masking.clips import Clips


def tube(clips: Clips) -> Tensor:
    hidden_BN = topk_mask(clips.bits(prng.SET, clips.grid.patches), clips.hidden)
    return hidden_BN[:, None].expand(-1, clips.grid.slots, -1)
