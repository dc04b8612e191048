"""V-JEPA 2's mask collator with the masks of mgm: hide what moves, or keep it visible.

V-JEPA's `MaskCollator` returns, per mask, the tokens that the encoder sees and those that the
predictor predicts. This one does the same from masks that the dataset drew with `mgm.masks`, one
per clip. All clips hide the same number of tokens, so none is cut to the smallest of its batch.

    loader = DataLoader(dataset, batch_size=24, collate_fn=MaskCollator())

A sample is V-JEPA's (buffer, label, clip_indices) with the mask in front of the last field:

    crop = {"box": box, "size": 256, "grid": (16, 16)}
    masked_L = mgm.masks(track[index_T], "mgm", seed=n, **crop).reshape(-1)
    return buffer, label, masked_L, clip_indices
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class MaskCollator:
    """Collate samples of clips of one length.

    Args:
        keep: show the encoder the masked tokens, and predict the others.
    """

    def __init__(self, keep: bool = False):
        self.keep = keep

    def __call__(self, samples: Sequence[Any]) -> list[Any]:
        """Return [(batch, [tokens of the encoder], [tokens to predict])], as V-JEPA's does."""
        masked_BL = np.stack([sample[2] for sample in samples])
        if self.keep:
            masked_BL = ~masked_BL
        batch = torch.utils.data.default_collate([(*s[:2], s[3]) for s in samples])
        return [(batch, [tokens_of(~masked_BL)], [tokens_of(masked_BL)])]

    def step(self) -> None:
        """Do nothing: a clip's mask depends on its own seed, not on a counter of batches."""


def tokens_of(chosen_BL: np.ndarray) -> torch.Tensor:
    """Return the numbers of the chosen tokens of each clip, (B, K) int64."""
    return torch.from_numpy(np.stack([np.flatnonzero(chosen_L) for chosen_L in chosen_BL]))
