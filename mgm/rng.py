"""Random numbers of a clip, from (run seed, epoch, sample) alone.

The other clips of the batch, workers, ranks and devices must not matter. So nothing here keeps
state: functions take a seed and return a number or a new generator.
"""

import hashlib
import operator
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

# The independent streams of random numbers of a clip. Only append: the position seeds a stream.
STREAMS = ("order", "sample", "crop", "augment", "labels", "guide")


def clip_seed(run_seed: int, epoch: int, sample: int) -> int:
    """Return a clip's seed, a non-negative int64. `mgm.masking` draws the clip's mask from it."""
    text = "/".join(str(operator.index(number)) for number in (run_seed, epoch, sample))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, stream: str) -> np.random.Generator:
    """Return a counter-based generator for one stream of a seed.

    The streams of a seed are independent.
    """
    return np.random.Generator(np.random.Philox(key=[seed, STREAMS.index(stream)]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python and NumPy, and restore them afterwards.

    This is for libraries that draw from the global generators. `seed` has 32 bits.
    """
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def another(seed: int, own: int, count: int) -> int:
    """Draw one of `count` numbers that is not `own`. The others are equally likely.

    Shuffled guidance takes the video of this number.
    """
    other = int(generator(seed, "guide").integers(count - 1))
    return other + (other >= own)
