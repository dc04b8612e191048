"""Exact counts and honest ties: the two habits every mask shares."""

import torch
from torch import Tensor


def sort_key(value: Tensor, random_bits: Tensor) -> Tensor:
    """An int64 key that orders by `value` (float32, >= 0) and, among equals, by `random_bits` (32
    of them).

    The bits of non-negative floats, read as an integer, keep their order.
    """
    return (value.view(torch.int32).long() << 32) | random_bits


def topk_mask(key: Tensor, count: int) -> Tensor:
    """True at exactly `count` places of the last axis, those of the smallest keys."""
    where = key.topk(count, dim=-1, largest=False, sorted=False).indices
    return torch.zeros_like(key, dtype=torch.bool).scatter_(-1, where, True)
