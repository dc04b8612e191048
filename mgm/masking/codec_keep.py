"""Show the patches that move most, and hide the rest: the opposite of MGM."""

from torch import Tensor

from mgm.masking import draws
from mgm.masking.draws import sort_key, topk_mask
from mgm.masking.inputs import MaskInput
from mgm.masking.others import FINE, resampled, sum_per_patch


def codec_keep(clips: MaskInput) -> Tensor:
    """Hide the K patches of each slot that move least, with random tie-breaking.

    A patch's motion is the sum over its 2 x 2 quarters. Ties are broken in the same order in every
    slot, so a clip without motion has a tube mask.

    Source: OneVision-Encoder (Tang et al., 2026) encodes only the patches with large motion vectors
    and residuals. DEVIATIONS.md lists the differences.
    """
    grid = clips.grid
    rows, columns = FINE * grid.height, FINE * grid.width
    motion_BSN = sum_per_patch(resampled(clips.magnitude_BSHW, rows, columns))
    ties_B1N = clips.bits(draws.TIES, grid.patches)[:, None]
    return topk_mask(sort_key(motion_BSN, ties_B1N), clips.hidden)
