"""Randomness of a clip: a function of (run seed, epoch, sample) and of nothing else.

Batch mates, workers, ranks and devices must not matter (DESIGN 2), so nothing here keeps state: a
seed goes in, a number or a fresh generator comes out.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

STREAMS = (
    "order",
    "sample",
    "crop",
    "augment",
    "labels",
    "guide",
)  # a clip's independent uses of randomness; append only


def clip_seed(run_seed: int, epoch: int, sample: int) -> int:
    """One non-negative int64 per clip;

    `mgm.masking` draws the clip's mask from it, on any device.
    """
    digest = hashlib.blake2b(f"{run_seed}/{epoch}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, stream: str) -> np.random.Generator:
    """A counter-based generator for one use of a seed; streams of one seed are independent."""
    return np.random.Generator(np.random.Philox(key=[seed, STREAMS.index(stream)]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's and NumPy's global generators start from `seed`, a 32-bit one, and are put back
    after: for libraries that draw from them.
    """
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
