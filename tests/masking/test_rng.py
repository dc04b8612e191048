from itertools import product

import numpy as np

from mgm.rng import STREAMS, clip_seed, generator


def test_seeds_are_distinct_non_negative_and_fixed():
    seeds = {clip_seed(*of) for of in product(range(10), range(10), range(100))}
    assert len(seeds) == 10_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    # It never changes, because results depend on it.
    assert clip_seed(0, 0, 0) == 4808561972376111626


def test_streams_of_a_seed_are_fixed_and_unrelated():
    draws = {stream: generator(clip_seed(1, 2, 3), stream).random(1000) for stream in STREAMS}
    assert np.array_equal(draws["crop"], generator(clip_seed(1, 2, 3), "crop").random(1000))
    table = np.corrcoef([draws[stream] for stream in STREAMS])
    assert np.abs(table - np.eye(len(STREAMS))).max() < 0.15  # 5 standard errors of 1,000 draws
