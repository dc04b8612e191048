"""VideoMAE V2's running cells: in each cell of 2 x 2 patches the hidden ones go round from slot to
slot (Wang et al., CVPR 2023, 3.2).

Read in its code (OpenGVLab/VideoMAEv2: dataset/masking_generator.py), where it is the decoder's
mask alone, of half of the patches.
"""

import torch
from torch import Tensor

from mgm.masking import prng
from mgm.masking.choose import sort_key, topk_mask
from mgm.masking.clips import Clips, Grid


def running_cell(clips: Clips) -> Tensor:
    """Cells fill one place after another, from a place that moves on by one each slot;

    what does not fill all alike is random.
    """
    return topk_mask(
        sort_key(_turn(clips.grid, clips.seed_B).float(), _ties(clips.grid, clips.seed_B)),
        clips.hidden,
    )


def predicted(masked_BL: Tensor, grid: Grid, seed_B: Tensor) -> Tensor:
    """The second mask: True at half of each slot's hidden tokens, those that the decoder is to
    predict (the others it never sees).

    Those in the places that running cells of one half show come first; more of the hidden, or
    fewer, at random to make the count exact.

    Args:
        masked_BL: from `make_mask`, with equally many hidden tokens in every slot.
        seed_B: as for `make_mask`.
    """
    masked_BSN = masked_BL.unflatten(1, (grid.slots, grid.patches))
    count = int(masked_BSN[0, 0].sum()) // 2
    order_BSN = (_turn(grid, seed_B) < 2).long() + 2 * (
        ~masked_BSN
    ).long()  # V2 shows the places 2 and 3 of a turn
    return topk_mask(sort_key(order_BSN.float(), _ties(grid, seed_B)), count).flatten(1)


def _turn(grid: Grid, seed_B: Tensor) -> Tensor:
    """(B, S, patches):

    each patch's place in its cell, 0 to 3, counted from where the slot begins; a clip's first slot
    begins at random.
    """
    row_H1, column_W = (
        torch.arange(grid.height, device=seed_B.device)[:, None],
        torch.arange(grid.width, device=seed_B.device),
    )
    place_N = (row_H1 % 2 * 2 + column_W % 2).flatten()
    begin_BS1 = (
        prng.bits(seed_B, prng.START, 1)[:, :, None]
        + torch.arange(grid.slots, device=seed_B.device)[:, None]
    )
    return (place_N + begin_BS1) % 4


def _ties(grid: Grid, seed_B: Tensor) -> Tensor:
    return prng.bits(seed_B, prng.TIES, grid.patches)[:, None]
