"""Intervals, against scipy and by simulation."""

from math import isinf

import numpy as np
import pytest
from scipy import stats

from mgm.results.statistics import binomial, binomial_difference, slope, student


@pytest.mark.parametrize("n", [3, 6, 16])
def test_student_is_scipys(n):
    values = np.random.default_rng(n).normal(60, 5, n)
    one = student(values.tolist())
    low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert (one.mean, one.low, one.high) == pytest.approx((values.mean(), low, high))
    assert one.n == n


def test_units_that_overlap_have_the_interval_of_nadeau_and_bengio(rng):
    values = rng.normal(60, 5, 6)
    one = student(values.tolist(), overlap=0.25)
    half = stats.t.ppf(0.975, 5) * np.sqrt((1 / 6 + 0.25) * values.var(ddof=1))
    assert (one.low, one.high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_a_slope_is_scipys(rng):
    x, y = rng.normal(size=(2, 12))
    one, known = slope(x.tolist(), y.tolist()), stats.linregress(x, y)
    half = stats.t.ppf(0.975, 10) * known.stderr
    assert one == pytest.approx((known.slope, known.slope - half, known.slope + half, 12))
    assert np.isnan(slope([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).mean)
    assert not slope([1.0, 2.0], [1.0, 2.0]).has_interval


@pytest.mark.parametrize("values", [[60.0], [60.0, 61.0], [60.0, 60.0, 60.0]])
def test_one_two_or_equal_units_have_no_interval(values):
    one = student(values)
    assert not one.has_interval
    assert isinf(one.high)
    assert one.n == len(values)


def test_an_interval_of_shares_ends_at_0_and_at_100():
    for first, values in ((0.0, [1.0, 3.0, 0.0]), (100.0, [99.0, 97.0, 100.0])):
        one, free = student(values, 0, 100), student(values)
        assert first in (one.low, one.high)
        assert {one.low, one.high} & {free.low, free.high}


@pytest.mark.parametrize("right", [0, 1, 120, 240])
def test_the_binomial_interval_is_clopper_and_pearsons(right):
    one = binomial(100 * right / 240, 240)
    exact = stats.binomtest(right, 240).proportion_ci(0.95, "exact")
    assert (one.low, one.high) == pytest.approx((100 * exact.low, 100 * exact.high))


def test_the_interval_of_a_difference_of_shares_covers_it(rng):
    n, covered = 200, 0
    for one, other in rng.binomial(n, (0.7, 0.6), (500, 2)):
        found = binomial_difference(100 * one / n, 100 * other / n, n)
        covered += found.low <= 10 <= found.high
    assert covered >= 0.94 * 500
