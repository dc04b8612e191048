"""Sparse SMM (Table 4e):

tube's random set, carried by SMM's velocities. The paper leaves "sparse" open; this is our reading.
"""

import torch
from torch import Tensor

from mgm.masking.clips import Clips
from mgm.masking.smm import velocities
from mgm.masking.tube import tube


def smm_sparse(clips: Clips) -> Tensor:
    """The set moves by the velocities' sum, rounded to whole patches, and wraps at the border,
    which keeps its count.
    """
    height, width = clips.grid.height, clips.grid.width
    device = clips.seed_B.device
    row_H1, column_W = (
        torch.arange(height, device=device)[:, None],
        torch.arange(width, device=device),
    )
    hidden_BN = tube(clips)[:, 0]
    x_B = y_B = torch.zeros(len(clips.seed_B), device=device)
    slots = [hidden_BN]
    for step_x_B, step_y_B in zip(*(v.unbind(1) for v in velocities(clips))):
        x_B, y_B = x_B + step_x_B, y_B + step_y_B
        from_row_BH1 = (row_H1 - y_B.round().long()[:, None, None]) % height
        from_column_B1W = (column_W - x_B.round().long()[:, None, None]) % width
        slots.append(hidden_BN.gather(1, (from_row_BH1 * width + from_column_B1W).flatten(1)))
    return torch.stack(slots, 1)
