"""Randomness of a clip: a function of (run seed, epoch, sample) and of nothing else.

Batch mates, workers, ranks and devices must not matter (DESIGN 2), so nothing here keeps state: a seed goes in,
a number or a fresh generator comes out.
"""

import hashlib

import numpy as np

STREAMS = ("order", "sample", "crop", "augment", "labels")  # a clip's independent uses of randomness; append only


def clip_seed(run_seed: int, epoch: int, sample: int) -> int:
    """One non-negative int64 per clip; `mgm.masking` draws the clip's mask from it, on any device."""
    digest = hashlib.blake2b(f"{run_seed}/{epoch}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, stream: str) -> np.random.Generator:
    """A counter-based generator for one use of a seed; streams of one seed are independent."""
    return np.random.Generator(np.random.Philox(key=[seed, STREAMS.index(stream)]))
