"""Random tube (VideoMAE): one random set of patches, hidden in every slot."""

from torch import Tensor

from mgm.masking import random
from mgm.masking.choose import smallest
from mgm.masking.clips import Clips


def tube(clips: Clips) -> Tensor:
    hidden_BN = smallest(clips.bits(random.SET, clips.grid.patches), clips.hidden)
    return hidden_BN[:, None].expand(-1, clips.grid.slots, -1)
