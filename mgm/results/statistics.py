"""Confidence intervals and Holm's method."""

from collections.abc import Sequence
from functools import cache
from math import asin, inf, isfinite, pi, sin, sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

EQUAL = 1e-9  # points; rounding errors of a difference are smaller
FEWEST = 3  # values of an interval: two give one that is wider than the scale of an accuracy


class Estimate(NamedTuple):
    """`mean` of `n` values with its 95 % confidence interval.

    Without an interval, its ends are infinite, and `unknown` says why.
    """

    mean: float
    low: float = -inf
    high: float = inf
    n: int = 1
    unknown: str = ""

    @property
    def has_interval(self) -> bool:
        return isfinite(self.low)


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return Student's t interval of the mean of independent runs.

    One or two runs have no interval. Equal runs have none either, since its width would be 0: with
    few seeds and few test videos, accuracies are often equal.
    """
    n = len(values)
    mean = sum(values) / n
    if n < FEWEST:
        return Estimate(mean, n=n, unknown="one run" if n == 1 else "two runs")
    if max(values) - min(values) < EQUAL:
        return Estimate(mean, n=n, unknown=f"{n} equal runs")
    half = t_975(n - 1) * sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return Estimate(mean, mean - half, mean + half, n)


def of_shares(values: Sequence[float]) -> Estimate:
    """Return the interval of a mean of shares in per cent.

    It is Student's, and where that leaves 0 to 100, Student's over arcsines of the shares' roots,
    which cannot.
    """
    plain = over_seeds(values)
    if not plain.has_interval or (plain.low >= 0 and plain.high <= 100):
        return plain
    angles = over_seeds([asin(sqrt(min(max(value, 0.0), 100.0) / 100)) for value in values])
    low, high = (100 * sin(min(max(end, 0.0), pi / 2)) ** 2 for end in angles[1:3])
    return plain._replace(low=min(low, plain.mean), high=max(high, plain.mean))


def of_differences(values: Sequence[float]) -> Estimate:
    """Return the interval of a mean difference of shares; none if it leaves -100 to 100."""
    plain = over_seeds(values)
    if plain.has_interval and max(-plain.low, plain.high) > 100:
        return Estimate(plain.mean, n=plain.n, unknown=f"{plain.n} runs that differ too much")
    return plain


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
        The estimate; `n` is d + 1.

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
    half = t_975(degrees) * sqrt(both / (S * P))
    return Estimate(mean, mean - half, mean + half, degrees + 1)


def p_value(estimate: Estimate) -> float:
    """Return the two-sided p-value of "the mean is zero", from the estimate's interval.

    It is 1 if the spread is unknown.
    """
    half = (estimate.high - estimate.low) / 2
    if not estimate.has_interval:
        return 1.0
    if half == 0:
        return float(estimate.mean == 0)
    degrees = max(estimate.n - 1, 1)
    return 2 * float(stdtr(degrees, -abs(estimate.mean) * t_975(degrees) / half))


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
def t_975(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, with the four decimals of printed tables."""
    return round(float(stdtrit(degrees, 0.975)), 4)
