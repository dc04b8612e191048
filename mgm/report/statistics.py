"""A mean and its 95 % interval: over seeds where there are several, else over the test videos."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

# The 97.5 % quantile of Student's t for 1, 2, ... 30 degrees of freedom (importing scipy would double a report's time).
T_975 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)
Z_975 = 1.959964
DRAWS = 10_000


@dataclass(frozen=True)
class Estimate:
    """`mean` of `n` runs with its 95 % interval; the bounds are None where nothing measures the spread."""

    mean: float
    low: float | None
    high: float | None
    n: int


def over_seeds(values: list[float]) -> Estimate:
    """Student's t interval of two or more independent runs. Three seeds make it wide, and rightly so."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return Estimate(mean, None, None, n)
    half = t_975(n - 1) * sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return Estimate(mean, mean - half, mean + half, n)


def over_videos(correct: int, videos: int) -> Estimate:
    """Percentile bootstrap of one run's accuracy, in per cent, over its test videos; the spread of seeds is not in it.

    Drawing `videos` outcomes with replacement is drawing from a binomial, so no outcome needs to be drawn by itself. Where all videos
    agree, no drawing can differ: there is no interval, rather than one of no width.
    """
    if correct in (0, videos):
        return Estimate(100 * correct / videos, None, None, 1)
    draws = np.random.default_rng(0).binomial(videos, correct / videos, DRAWS)
    low, high = 100 * np.percentile(draws, [2.5, 97.5]) / videos
    return Estimate(100 * correct / videos, float(low), float(high), 1)


def t_975(degrees: int) -> float:
    """The table; beyond it Fisher's expansion about the normal quantile, right to 1e-4."""
    if degrees <= len(T_975):
        return T_975[degrees - 1]
    z = Z_975
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
