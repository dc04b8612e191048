"""Spacetime-agnostic (ST-MAE):

a random set of patches over the whole clip; a slot's count varies, the clip's does not.
"""

from torch import Tensor

from mgm.masking import prng
from mgm.masking.choose import topk_mask
from mgm.masking.clips import Clips


def agnostic(clips: Clips) -> Tensor:
    slots, patches = clips.grid.slots, clips.grid.patches
    return topk_mask(clips.bits(prng.SET, slots * patches), slots * clips.hidden).unflatten(
        1, (slots, patches)
    )
