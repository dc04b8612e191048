"""Mixup and CutMix, by timm: mix the clips of a step and their labels in pairs."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgm.rng import seeded


def mix(
    frames_BTHWC: Tensor,
    label_B: Tensor,
    weight_B: Tensor,
    classes: int,
    mixup: float,
    cutmix: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Mix the first clip with the last, the second with the last but one, and so on.

    All pairs of a step have the same ratio (mixup), or the same box in all frames (CutMix). If both
    are on, each step draws one (VideoMAE's "batch" mode, probability 1, switch 0.5). Clips of
    weight 0 could not be read, and are ignored. If the number of clips is odd, the last is not
    mixed. Each process mixes its own clips.

    Args:
        frames_BTHWC: uint8.
        label_B: int64, below `classes`.
        weight_B: on the host, since pairs are chosen there. So nothing waits for a GPU.
        mixup, cutmix: parameters a of Beta(a, a), from which the ratio is drawn. 0: off.
        rng: the source of all randomness.

    Returns:
        frames_BTHWC: uint8. Mixup rounds pixels to integers (as timm's `FastCollateMixup`).
        target_BC: float32, each clip's share of each class. With CutMix it is exactly the share of
            its pixels.
    """
    # An optional package, which takes a second to import.
    from timm.data.mixup import Mixup

    target_BC = F.one_hot(label_B, classes).float()
    readable = weight_B.nonzero()[:, 0]
    paired = readable[: len(readable) // 2 * 2].to(frames_BTHWC.device, non_blocking=True)
    if not len(paired):
        return frames_BTHWC, target_BC
    # Label smoothing is part of the loss.
    timm = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=classes)
    # Frames become channels, so that CutMix cuts the same box from all frames.
    frames_BTCHW = frames_BTHWC[paired].permute(0, 1, 4, 2, 3)
    with seeded(int(rng.integers(2**32))):
        mixed_BXHW, mixed_BC = timm(frames_BTCHW.flatten(1, 2).float(), label_B[paired])
    mixed_BTCHW = mixed_BXHW.round().to(torch.uint8).view(frames_BTCHW.shape)
    mixed_BTHWC = mixed_BTCHW.permute(0, 1, 3, 4, 2)
    target_BC = target_BC.index_copy(0, paired, mixed_BC)
    return frames_BTHWC.index_copy(0, paired, mixed_BTHWC), target_BC
