"""Mean average precision of videos that have several labels each."""

import numpy as np


def average_precision(score_N: np.ndarray, positive_N: np.ndarray) -> float:
    """Return the area under the precision-recall curve, as a step function.

    Videos are ranked by score; those of equal score count as one step. AP is the sum over steps of
    precision times the gain in recall, as in scikit-learn.

    Args:
        score_N: a class's score of each video.
        positive_N: whether each video has the class; at least one has.
    """
    order_N = np.argsort(-score_N, kind="stable")
    # The last video of each step.
    last_S = np.flatnonzero(np.append(np.diff(score_N[order_N]) != 0, True))
    hits_S = np.cumsum(positive_N[order_N])[last_S]
    gain_S = np.diff(hits_S, prepend=0) / hits_S[-1]
    return float((hits_S / (last_S + 1) * gain_S).sum())


def mean_average_precision(score_NC: np.ndarray, positive_NC: np.ndarray) -> float:
    """Return the mean over classes in per cent; a class that no video has does not count.

    NaN if no video has a class.
    """
    there = np.flatnonzero(positive_NC.any(axis=0))
    found = [average_precision(score_NC[:, c], positive_NC[:, c]) for c in there]
    return 100 * float(np.mean(found)) if found else float("nan")


def interval(
    score_NC: np.ndarray, positive_NC: np.ndarray, resamples: int = 1000
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean average precision over videos, in per cent."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(resamples):
        own_N = draw.integers(len(score_NC), size=len(score_NC))
        found.append(mean_average_precision(score_NC[own_N], positive_NC[own_N]))
    low, high = np.nanpercentile(found, (2.5, 97.5))
    return float(low), float(high)
