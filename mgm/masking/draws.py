"""Random numbers per clip, and top-k masking with random tie-breaking.

A number depends only on (clip seed, stream, index). The generator is splitmix64 (Steele, Lea &
Flood 2014) in int64 tensor arithmetic that wraps around. It has no state, so a clip has the same
numbers alone, in any batch and on any device.
"""

import torch
from torch import Tensor

# The streams of a mask's random numbers. Only append, since the numbers are part of the masks.
START, SIZES, VELOCITIES, TIES, FILL, SET, PLACES, NOISE = range(8)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x


GOLDEN = _signed(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def bits(seed_B: Tensor, stream: int, n: int) -> Tensor:
    """Return `n` random integers of 32 bits per clip: (B, n) int64."""
    # The counters of different streams are far apart.
    stream_B = _mix_(seed_B + _signed((stream + 1) * 0x9E3779B97F4A7C15 % (1 << 64)))
    counter_N = torch.arange(1, n + 1, device=seed_B.device) * GOLDEN
    return _shift(_mix_(stream_B[:, None] + counter_N), 32)


def uniform(seed_B: Tensor, stream: int, n: int) -> Tensor:
    """Return `n` numbers in [0, 1) per clip, multiples of 2**-24: (B, n) float32."""
    return (bits(seed_B, stream, n) >> 8).float() * 2.0**-24


def sort_key(value: Tensor, random_bits: Tensor) -> Tensor:
    """Return an int64 key that orders by `value` (float32, >= 0), then by `random_bits` (32 bits).

    The bits of non-negative floats, read as integers, have the same order as the floats.
    """
    return (value.view(torch.int32).long() << 32) | random_bits


def topk_mask(key: Tensor, count: int) -> Tensor:
    """Return True at the `count` smallest keys of the last axis, and False elsewhere."""
    where = key.topk(count, dim=-1, largest=False, sorted=False).indices
    return torch.zeros_like(key, dtype=torch.bool).scatter_(-1, where, True)


def _mix_(z: Tensor) -> Tensor:
    """Mix the bits in place, since memory traffic is most of a mask's cost on a CPU."""
    z ^= _shift(z, 30)
    z *= MIX_1
    z ^= _shift(z, 27)
    z *= MIX_2
    z ^= _shift(z, 31)
    return z


def _shift(z: Tensor, n: int) -> Tensor:
    """Shift right logically. torch's >> repeats the sign bit."""
    return (z >> n).bitwise_and_((1 << (64 - n)) - 1)
