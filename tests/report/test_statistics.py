from math import inf

import numpy as np
import pytest
from scipy import stats

from mgm.report.statistics import over_seeds, over_videos


@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_interval_over_seeds_is_scipys(n):
    values = np.random.default_rng(n).normal(60, 3, n)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    estimate = over_seeds(list(values))
    assert (estimate.mean, estimate.n) == (pytest.approx(values.mean()), n)
    assert (estimate.low, estimate.high) == (
        pytest.approx(low, abs=1e-3),
        pytest.approx(high, abs=1e-3),
    )
    assert over_seeds([50.0]) == (50.0, -inf, inf, 1)  # one seed has no interval


def test_interval_over_videos_is_scipys_bootstrap():
    outcomes = 100.0 * (np.arange(240) < 150)
    found = stats.bootstrap(
        (outcomes,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(1)
    ).confidence_interval
    estimate = over_videos(150, 240)
    assert estimate.mean == pytest.approx(62.5)
    assert [estimate.low, estimate.high] == pytest.approx([found.low, found.high], abs=0.5)
    assert over_videos(150, 240) == estimate
    assert [over_videos(correct, 240) for correct in (0, 240)] == [
        (0, -inf, inf, 1),
        (100, -inf, inf, 1),
    ]  # all resamples would be equal
