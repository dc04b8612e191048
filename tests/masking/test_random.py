import numpy as np
import pytest
from scipy import stats

from mgm.masking import draws
from tests.helpers import slow_masks as slow

SEEDS = np.array([0, 1, 2, 2**63 - 1, -5, 1234567890123456789])


@pytest.mark.parametrize("stream", range(6))
def test_equals_big_integers(stream):
    assert draws.bits(SEEDS, stream, 50).tolist() == [
        slow.bits(seed, stream, 50) for seed in SEEDS.tolist()
    ]
    assert draws.uniform(SEEDS, stream, 50).tolist() == [
        slow.uniform(seed, stream, 50) for seed in SEEDS.tolist()
    ]


def test_splitmix64_is_the_published_one():
    """Outputs equal the first ones of the reference implementation with seed 1234567."""
    state, outputs = 1234567, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        outputs.append(slow.mix(state))
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_uniform():
    u = draws.uniform(np.arange(500), draws.START, 400)
    assert u.min() >= 0
    assert u.max() < 1
    for sample in (
        u.ravel(),
        u[0],
        u[:, 0],
    ):  # overall, within a clip, and over clips with neighbouring seeds
        assert stats.kstest(sample, "uniform").pvalue > 1e-4


def test_streams_seeds_and_neighbours_are_uncorrelated():
    seeds, n = np.arange(200), 500
    columns = [draws.uniform(seeds, stream, n).ravel() for stream in range(6)]
    columns += [
        draws.uniform(seeds + 1, 0, n).ravel(),
        np.roll(draws.uniform(seeds, 0, n), 1, 1).ravel(),
    ]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 6 / np.sqrt(200 * n)
