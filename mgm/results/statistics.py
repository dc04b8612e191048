"""Confidence intervals, p-values and Holm's method."""

from collections.abc import Sequence
from functools import cache
from math import inf, isfinite, sqrt
from typing import NamedTuple, Self

import numpy as np

EQUAL = 1e-9  # points; rounding errors of a difference are smaller
FEWEST = 3  # units of an interval: two give one that is wider than the scale of an accuracy
ENOUGH = 6  # units of a verdict, and of a difference that is shown in bold
MOST = 10_000  # units of a study


class Estimate(NamedTuple):
    """`mean` of `n` units with its 95 % confidence interval.

    Without an interval, its ends are infinite, and `unknown` says why.

    Attributes:
        error: standard error of the mean; infinite if it is not known, 0 for an exact number.
        degrees: degrees of freedom of the standard error.
    """

    mean: float
    low: float = -inf
    high: float = inf
    n: int = 1
    unknown: str = ""
    error: float = inf
    degrees: float = 0.0

    @property
    def has_interval(self) -> bool:
        return isfinite(self.low)

    def within(self, low: float, high: float) -> Self:
        """Return the estimate of a mean that is surely from `low` to `high`.

        The part of the interval outside them is left out, so it covers as often as before.
        """
        if not self.has_interval:
            return self
        return self._replace(
            low=min(max(self.low, low), self.mean), high=max(min(self.high, high), self.mean)
        )

    def decided_by(self, distance: float) -> float:
        """Return how many units have an interval of at most `distance` to either side.

        They have the spread of these units. It is infinite above `MOST`.
        """
        spread = self.error * sqrt(self.n)
        for n in range(FEWEST, MOST + 1):
            if t_975(n - 1) * spread <= distance * sqrt(n):
                return n
        return inf


def exact(value: float) -> Estimate:
    """Return a number without an error."""
    return Estimate(value, value, value, 1, "", 0.0, inf)


def of_mean(mean: float, n: int, error: float, degrees: float) -> Estimate:
    """Return mean +- t_0.975(degrees) * error; no interval if the error is 0."""
    if error < EQUAL:
        return Estimate(mean, n=n, unknown=f"{n} equal runs")
    half = t_975(degrees) * error
    return Estimate(mean, mean - half, mean + half, n, "", error, degrees)


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return Student's t interval of the mean of independent runs, with n - 1 degrees of freedom.

    One or two runs have no interval. Equal runs have none either, since its width would be 0: with
    few seeds and few test videos, accuracies are often equal.
    """
    n = len(values)
    mean = sum(values) / n
    if n < FEWEST:
        return Estimate(mean, n=n, unknown="one run" if n == 1 else "two runs")
    error = sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return of_mean(mean, n, error, n - 1)


def over_seeds_and_people(value_SP: np.ndarray) -> Estimate:
    """Return an interval of the mean that covers other seeds and other people.

    The model has two crossed random effects: y_sp = mu + a_s + b_p + e_sp, for seed s of S and
    person p of P. With the mean squares MS of a two-way analysis of variance, the mean's variance
    is estimated without bias by

        V = (MS_seeds + MS_people - MS_residual) / (S * P)

    The interval is mean +- t_0.975(d) * sqrt(V), with Satterthwaite's degrees of freedom d, rounded
    down. V is never less than a part of it that is over seeds alone, or over people alone.

    Args:
        value_SP: a number, or a paired difference, per seed and person. At least 2 of each.

    Returns:
        The estimate; `n` is S.

    Source:
        Searle, Casella and McCulloch (1992), Variance Components; Satterthwaite (1946).
    """
    S, P = value_SP.shape
    mean = float(value_SP.mean())
    seed_S1, person_1P = value_SP.mean(1, keepdims=True), value_SP.mean(0, keepdims=True)
    seeds = P * float(seed_S1.var(ddof=1))
    people = S * float(person_1P.var(ddof=1))
    left_SP = value_SP - seed_S1 - person_1P + mean
    residual = float((left_SP**2).sum()) / ((S - 1) * (P - 1))
    both = seeds + people - residual
    if max(seeds, people, both) < EQUAL:
        return Estimate(mean, n=min(S, P), unknown=f"{S} equal runs")
    if both < max(seeds, people):
        both, degrees = max((seeds, S - 1), (people, P - 1))
    else:
        parts = seeds**2 / (S - 1), people**2 / (P - 1), residual**2 / ((S - 1) * (P - 1))
        degrees = max(1, int(both**2 / sum(parts)))
    return of_mean(mean, S, sqrt(both / (S * P)), degrees)


def binomial(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval (%) of a share of `n` videos, by Clopper and Pearson (1934).

    Args:
        share: in per cent. A mean over runs need not be a whole number of videos.
    """
    # SciPy takes half a second to import, and building a DAG computes no interval.
    from scipy.special import betaincinv

    right = share / 100 * n
    low = betaincinv(right, n - right + 1, 0.025) if right > 0 else 0.0
    high = betaincinv(right + 1, n - right, 0.975) if right < n else 1.0
    return 100 * float(low), 100 * float(high)


def p_value(estimate: Estimate) -> float:
    """Return the two-sided p-value of "the mean is zero"; 1 if the spread is unknown."""
    if not estimate.has_interval:
        return 1.0
    from scipy.special import stdtr

    return 2 * float(stdtr(estimate.degrees, -abs(estimate.mean) / estimate.error))


def holm(p_values: Sequence[float], alpha: float = 0.05) -> list[bool]:
    """Return which hypotheses Holm's step-down method rejects at family-wise level `alpha`.

    The k-th smallest of m p-values must be at most alpha / (m - k + 1), and all smaller ones must
    have passed (Holm, 1979).
    """
    rejected = [False] * len(p_values)
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[number] > alpha / (len(p_values) - place):
            break
        rejected[number] = True
    return rejected


@cache
def t_975(degrees: float) -> float:
    """Return the 97.5 % quantile of Student's t, with the four decimals of printed tables."""
    from scipy.special import stdtrit

    return round(float(stdtrit(degrees, 0.975)), 4)
