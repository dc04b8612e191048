"""Mixup and CutMix, by timm: the clips of a step and their labels, mixed in pairs."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgm.rng import seeded
from mgm.training import collectives


def mix(
    frames_BTHWC: Tensor,
    label_B: Tensor,
    weight_B: Tensor,
    classes: int,
    mixup: float,
    cutmix: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Mix the first clip with the last, the second with the last but one, and so on: all by one
    ratio, or by one box of all frames.

    Every step does one or the other, with equal chance where both are on (V's "batch" mode,
    probability 1, switch 0.5). A clip that could
    not be read has weight 0 and is no part of this: the others pair as if it were not there, and of
    an odd number the last stays as it is. Of several processes each gives its share of the step's
    clips, and clips pair over all shares, as they do in one process.

    Args:
        frames_BTHWC: uint8.
        label_B: int64, below `classes`.
        weight_B: on the host, 0 for clips that could not be read; whom a clip pairs with is worked
            out there, so that no GPU is waited for.
        mixup, cutmix: parameters of Beta(a, a), from which the ratio is drawn; 0 switches one off.
        rng: all randomness.

    Returns:
        frames_BTHWC: uint8. Mixup rounds to whole pixel values (as timm's `FastCollateMixup`), so
            that a step's clips stay small in memory.
        target_BC: float32, each clip's share of each class; under CutMix exactly the share of its
            pixels.
    """
    from timm.data.mixup import Mixup

    target_BC = F.one_hot(label_B, classes).float()
    readable = collectives.all_gather_cat(weight_B).nonzero()[:, 0]  # of the whole step
    paired = readable[: len(readable) // 2 * 2]
    if not len(paired):
        return frames_BTHWC, target_BC
    mixed, frames, label = (
        paired.to(frames_BTHWC.device, non_blocking=True),
        frames_BTHWC[:0],
        label_B[:0],
    )
    if collectives.world_size() > 1:
        first, partner_N = (
            collectives.rank() * len(label_B),
            torch.arange(collectives.world_size() * len(label_B)),
        )
        partner_N[paired] = paired.flip(0)
        mixed = (paired[(paired >= first) & (paired < first + len(label_B))] - first).to(
            frames_BTHWC.device, non_blocking=True
        )
        frames, label = (
            collectives.exchange(x, partner_N)[mixed].flip(0) for x in (frames_BTHWC, label_B)
        )  # where timm looks for them
    if not len(mixed):
        return frames_BTHWC, target_BC
    timm = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=classes)  # smoothing is the loss's
    frames, label = torch.cat((frames_BTHWC[mixed], frames)), torch.cat((label_B[mixed], label))
    B, T, H, W, C = frames.shape
    folded_BCHW = (
        frames.float().permute(0, 1, 4, 2, 3).reshape(B, T * C, H, W)
    )  # or CutMix would cut out of time
    with seeded(int(rng.integers(2**32))):
        mixed_BCHW, mixed_BC = timm(folded_BCHW, label)
    mixed_BTHWC = (
        mixed_BCHW[: len(mixed)].view(-1, T, C, H, W).permute(0, 1, 3, 4, 2).round().to(torch.uint8)
    )
    return frames_BTHWC.index_copy(0, mixed, mixed_BTHWC), target_BC.index_copy(
        0, mixed, mixed_BC[: len(mixed)]
    )
