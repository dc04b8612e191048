from math import inf

import numpy as np
import pytest
from scipy import stats

from mgm.results.statistics import (
    Estimate,
    exact,
    holm,
    over_seeds,
    over_seeds_and_people,
    p_value,
)


@pytest.mark.parametrize("n", [3, 7, 40])
def test_interval_over_seeds_is_scipys(n):
    values = np.random.default_rng(n).normal(60, 3, n)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    estimate = over_seeds(list(values))
    assert (estimate.mean, estimate.n) == (pytest.approx(values.mean()), n)
    assert (estimate.low, estimate.high) == (
        pytest.approx(low, abs=1e-3),
        pytest.approx(high, abs=1e-3),
    )


def test_one_run_two_runs_and_equal_runs_have_no_interval_and_say_so():
    assert over_seeds([50.0])[:5] == (50.0, -inf, inf, 1, "one run")
    assert over_seeds([50.0, 51.0])[:5] == (50.5, -inf, inf, 2, "two runs")
    assert over_seeds([50.0] * 4)[:5] == (50.0, -inf, inf, 4, "4 equal runs")


@pytest.mark.parametrize("values", [[99.9, 99.2, 100.0], [0.0, 0.0, 4.0], [1.0, 99.0, 60.0]])
def test_an_interval_of_shares_stays_within_0_and_100(values):
    plain = over_seeds(values)
    estimate = plain.within(0, 100)
    assert not 0 <= plain.low <= plain.high <= 100
    assert (estimate.low, estimate.high) == (max(plain.low, 0), min(plain.high, 100))
    # The test of 0 is that of the whole interval.
    assert p_value(estimate) == p_value(plain)


@pytest.mark.parametrize("units", [3, 5, 8, 20])
@pytest.mark.parametrize("spreads", [(1, 1), (1, 6), (6, 6)])
@pytest.mark.parametrize("shared", [0, 3])
def test_intervals_cover_in_95_of_100_studies_if_rows_differ_in_spread(units, spreads, shared):
    """With an effect of the unit that both rows share, and without: a row, and a difference."""
    rng, studies, covered = np.random.default_rng(units), 4000, np.zeros(2)
    for _ in range(studies):
        value_UR = rng.normal(size=(units, 2)) * spreads + shared * rng.normal(size=(units, 1))
        for number, value_U in enumerate((value_UR[:, 0], value_UR[:, 0] - value_UR[:, 1])):
            estimate = over_seeds(value_U.tolist())
            covered[number] += estimate.low <= 0 <= estimate.high
    # Four standard errors of a share of 4,000 are 1.4 points.
    assert (100 * covered / studies >= 93).all()
    assert (100 * covered / studies <= 97).all()


def test_units_that_would_decide_have_such_an_interval():
    values = np.random.default_rng(2).normal(1, 3, 9)
    estimate = over_seeds(values.tolist())
    n = estimate.decided_by(0.9)
    half = [stats.t.ppf(0.975, m - 1) * values.std(ddof=1) / m**0.5 for m in (n - 1, n)]
    assert half[0] > 0.9 >= half[1] - 1e-4
    assert estimate.decided_by(0) == inf


@pytest.mark.parametrize(
    ("runs", "between", "within"),
    [
        ([1] * 8, 3, 2),  # one seed per dataset
        ([3] * 8, 3, 2),
        ([4] * 4, 0, 5),  # datasets do not differ
        ([2] * 12, 6, 1),  # datasets differ more than seeds
        ([5] * 3, 2, 2),
        ([1, 1, 2, 2, 3, 3, 4, 6], 3, 3),  # a study that stopped early
    ],
)
def test_interval_over_datasets_means_covers_in_95_of_100_studies(runs, between, within):
    """As in a study whose unit is the draw, with several seeds each."""
    rng, studies, mean = np.random.default_rng(0), 4000, 1.5
    covered = 0
    for _ in range(studies):
        estimate = over_seeds(
            [float(mean + rng.normal(0, between) + rng.normal(0, within, n).mean()) for n in runs]
        )
        covered += estimate.low <= mean <= estimate.high
    assert 93 <= 100 * covered / studies <= 97


@pytest.mark.parametrize(
    ("shape", "seeds", "people", "residual"),
    [
        ((8, 8), 1, 1, 1),
        ((4, 4), 0, 2, 1),  # seeds do not differ
        ((4, 8), 1, 0, 3),  # people do not differ
        ((8, 8), 2, 2, 0.1),
        ((4, 4), 2, 0, 0),
    ],
)
def test_interval_over_seeds_and_people_covers_in_at_least_94_of_100(
    shape, seeds, people, residual
):
    rng, studies, covered = np.random.default_rng(0), 2000, 0
    for _ in range(studies):
        value_SP = seeds * rng.normal(size=(shape[0], 1)) + people * rng.normal(size=(1, shape[1]))
        estimate = over_seeds_and_people(1.5 + value_SP + residual * rng.normal(size=shape))
        covered += estimate.low <= 1.5 <= estimate.high
    assert covered / studies >= 0.94


def test_interval_over_seeds_and_people_has_the_mean_squares_of_an_analysis_of_variance():
    value_SP = np.array([[1.0, 2, 4], [2, 5, 9]])
    mean = 23 / 6
    seeds = 3 * sum((row.mean() - mean) ** 2 for row in value_SP) / 1
    people = 2 * sum((column.mean() - mean) ** 2 for column in value_SP.T) / 2
    residual = (
        sum(
            (value_SP[s, p] - value_SP[s].mean() - value_SP[:, p].mean() + mean) ** 2
            for s in range(2)
            for p in range(3)
        )
        / 2
    )
    both = seeds + people - residual
    degrees = int(both**2 / (seeds**2 / 1 + people**2 / 2 + residual**2 / 2))
    half = stats.t.ppf(0.975, degrees) * np.sqrt(both / 6)
    estimate = over_seeds_and_people(value_SP)
    assert estimate[:4] == pytest.approx((mean, mean - half, mean + half, 2), abs=1e-3)
    assert estimate.degrees == degrees
    # Equal differences have no interval.
    assert over_seeds_and_people(np.ones((3, 4)))[:5] == (1, -inf, inf, 3, "3 equal runs")


def test_p_values_are_those_of_the_interval():
    from scipy.stats import ttest_1samp

    values = [1.2, 0.3, 2.2, 0.9]
    assert p_value(over_seeds(values)) == pytest.approx(ttest_1samp(values, 0).pvalue, rel=1e-3)
    assert p_value(Estimate(1.0)) == 1
    edge = over_seeds(values)
    edge = edge._replace(mean=edge.mean - edge.low)
    assert p_value(edge) == pytest.approx(0.05, abs=1e-4)
    assert exact(3.0)[:4] == (3, 3, 3, 1)


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03]) == [True, False, False]  # 0.03 > 0.05 / 2
    assert holm([0.01, 0.04, 0.02]) == [True, True, True]
    assert holm([0.02]) == [True]
    assert holm([]) == []
