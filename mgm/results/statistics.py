"""Confidence intervals of means, shares and slopes, at a level of 95 %."""

from collections.abc import Sequence
from math import inf, isfinite, nan, sqrt
from statistics import fmean, linear_regression
from typing import NamedTuple

# Units of an interval. With two it would be wider than the scale of an accuracy.
FEWEST = 3
# Units of a verdict.
ENOUGH = 6
# Points; rounding errors of a difference are smaller.
EQUAL = 1e-9


class Estimate(NamedTuple):
    """A mean of `n` units with its interval. Without an interval, the ends are infinite."""

    mean: float
    low: float = -inf
    high: float = inf
    n: int = 1

    @property
    def has_interval(self) -> bool:
        return isfinite(self.low)


def student(
    values: Sequence[float], low: float = -inf, high: float = inf, overlap: float = 0.0
) -> Estimate:
    """Return Student's t interval of the mean of independent units, with n - 1 degrees of freedom.

    With an `overlap` of tested over training videos, units are folds that share training videos,
    and the variance of their mean is larger (Nadeau and Bengio, 2003).

    Fewer than three units have no interval. Equal units have none either, since its width would
    be 0. The part of an interval outside `low` and `high` is left out, since no mean lies there.
    """
    from scipy.special import stdtrit

    n = len(values)
    mean = sum(values) / n
    squares = sum((value - mean) ** 2 for value in values)
    error = sqrt(squares / (n - 1) * (1 / n + overlap)) if n > 1 else 0.0
    if n < FEWEST or error < EQUAL:
        return Estimate(mean, n=n)
    half = float(stdtrit(n - 1, 0.975)) * error
    return Estimate(mean, min(max(mean - half, low), mean), max(min(mean + half, high), mean), n)


def slope(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Return the slope of the line of least squares of y over x, with its t interval.

    The interval has n - 2 degrees of freedom. The slope is NaN if all x are equal.
    """
    from scipy.special import stdtrit

    n, middle = len(x), fmean(x)
    spread = sum((one - middle) ** 2 for one in x)
    if spread < EQUAL:
        return Estimate(nan, n=n)
    rise, start = linear_regression(x, y)
    rest = sum((other - start - rise * one) ** 2 for one, other in zip(x, y))
    if n < FEWEST or rest < EQUAL:
        return Estimate(rise, n=n)
    half = float(stdtrit(n - 2, 0.975)) * sqrt(rest / (n - 2) / spread)
    return Estimate(rise, rise - half, rise + half, n)


def binomial(share: float, n: int) -> Estimate:
    """Return the interval of a share (%) of `n` videos, by Clopper and Pearson (1934).

    A mean over several views need not be a whole number of videos.
    """
    from scipy.special import betaincinv

    right = share / 100 * n
    low = betaincinv(right, n - right + 1, 0.025) if right > 0 else 0.0
    high = betaincinv(right + 1, n - right, 0.975) if right < n else 1.0
    return Estimate(share, 100 * float(low), 100 * float(high), n)


def binomial_difference(one: float, other: float, n: int) -> Estimate:
    """Return the interval of one share (%) of `n` videos minus another, by Newcombe (1998).

    It takes the two shares as independent. Runs that are tested on the same videos agree more often
    than that, so it is rather too wide.
    """
    first, second = binomial(one, n), binomial(other, n)
    mean = one - other
    low = mean - sqrt((one - first.low) ** 2 + (second.high - other) ** 2)
    high = mean + sqrt((first.high - one) ** 2 + (other - second.low) ** 2)
    return Estimate(mean, low, high, n)
