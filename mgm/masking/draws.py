"""Random numbers per clip, and top-k masking with random tie-breaking.

A number depends only on (clip seed, stream, index). The generator is splitmix64 (Steele, Lea &
Flood 2014). It has no state, so a clip has the same numbers alone and in any batch.
"""

import numpy as np

# The streams of a mask's random numbers. Only append, since the numbers are part of the masks.
START, SIZES, VELOCITIES, TIES, FILL, SET, PLACES, NOISE = range(8)

GOLDEN = 0x9E3779B97F4A7C15
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def bits(seed_B: np.ndarray, stream: int, n: int) -> np.ndarray:
    """Return `n` random integers of 32 bits per clip: (B, n) int64."""
    # The counters of different streams are far apart.
    start = np.uint64((stream + 1) * GOLDEN % (1 << 64))
    stream_B = _mixed(seed_B.astype(np.uint64) + start)
    counter_N = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    return (_mixed(stream_B[:, None] + counter_N) >> np.uint64(32)).astype(np.int64)


def uniform(seed_B: np.ndarray, stream: int, n: int) -> np.ndarray:
    """Return `n` numbers in [0, 1) per clip, multiples of 2**-24: (B, n) float32."""
    return (bits(seed_B, stream, n) >> 8).astype(np.float32) * np.float32(2.0**-24)


def sort_key(value: np.ndarray, random_bits: np.ndarray) -> np.ndarray:
    """Return an int64 key that orders by `value` (float32, >= 0), then by `random_bits` (32 bits).

    The bits of non-negative floats, read as integers, have the same order as the floats.
    """
    return value.view(np.int32).astype(np.int64) << 32 | random_bits


def topk_mask(key: np.ndarray, count: int) -> np.ndarray:
    """Return True at the `count` smallest keys of the last axis, and False elsewhere."""
    where = np.argpartition(key, count - 1)[..., :count]
    masked = np.zeros(key.shape, bool)
    np.put_along_axis(masked, where, True, -1)
    return masked


def _mixed(z: np.ndarray) -> np.ndarray:
    """Mix the bits of unsigned integers of 64 bits. Products wrap around."""
    z = (z ^ z >> np.uint64(30)) * MIX_1
    z = (z ^ z >> np.uint64(27)) * MIX_2
    return z ^ z >> np.uint64(31)
