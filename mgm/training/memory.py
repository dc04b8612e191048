"""What a training step keeps in memory, and what the C library keeps between steps."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
Forward = Callable[..., Any]


def set_malloc_options() -> None:
    """Let glibc, where it is the C library, keep what this process frees.

    By default it hands large tensors back to the system, which gives and clears them anew in each
    step: 2 GB in one of 64 small clips, a quarter of its time. Peak memory grew by 15 to 28 % in
    such steps.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def recomputed(forward: Forward) -> Forward:
    """Keep only a block's input for the backward pass, which computes the rest again: a third more
    computing, far less memory, the same losses and gradients, drop path included (activation
    checkpointing; Chen et al., 2016)."""
    from torch.utils.checkpoint import checkpoint

    return partial(checkpoint, forward, use_reentrant=False)


@contextmanager
def wrapped_blocks(model: nn.Module, *wraps: Callable[[Forward], Forward]) -> Iterator[None]:
    """Pass the forward method of each transformer block through `wraps`, the first one innermost,
    while the block lasts.
    """
    blocks = [
        block for module in model.modules() if isinstance(module, nn.ModuleList) for block in module
    ]
    try:
        for block in blocks if wraps else ():
            for wrap in wraps:
                block.forward = wrap(block.forward)
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)  # its class has the plain one
