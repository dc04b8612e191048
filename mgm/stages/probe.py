"""Probe: logistic regression on the pooled tokens of a frozen encoder.

The paper does not specify its probe. An attentive probe, which reads the tokens, is a fine-tuning
run with `head: attentive`.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from mgm import rng
from mgm.data.index import Video
from mgm.models import build_frozen_encoder
from mgm.spec import Probe, Views
from mgm.stages.evaluate import over_videos, record
from mgm.stages.run import RunContext

# Factors of half the sum of squared weights, which is added to the mean cross-entropy.
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HELD_OUT = 0.2


def probe(spec: Probe, run: RunContext) -> dict[str, float]:
    """Compute features with the parent's encoder, or with random weights. Fit and test a probe.

    Returns:
        The metrics of the test videos, and the chosen penalty.
    """
    videos = run.training_videos(spec)
    train, test = features(spec, run, videos)
    classes, threads = len(run.index.classes), run.options.threads
    score_NC, penalty = classify(videos, *train, test[0], classes, spec.seed, threads)
    return record(run, score_NC, test[1]) | {"penalty": penalty}


def features(
    spec: Probe, run: RunContext, videos: Sequence[Video]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return features and positions of the clips of training videos, then of the test videos.

    Returns:
        Two pairs of x_ND (`FrozenEncoder`), and sample_N, the position of each clip's video.
    """
    weights = run.weights(spec.parent) if spec.parent else None
    model = build_frozen_encoder(spec, weights).to(run.device)
    splits = (videos, Views(temporal=spec.train_clips, spatial=1)), (run.index.test, spec.views)
    return [
        over_videos(model, of, spec.clips, views, run.device, workers=run.workers)
        for of, views in splits
    ]


def classify(
    videos: Sequence[Video],
    x_ND: np.ndarray,
    sample_N: np.ndarray,
    query_MD: np.ndarray,
    classes: int,
    seed: int,
    threads: int = 1,
) -> tuple[np.ndarray, float]:
    """Fit logistic regression, with the penalty that is best on a fifth of the training groups.

    Args:
        videos: the training videos.
        x_ND, sample_N: features of their clips, and each clip's video.
        query_MD: features of the test clips.

    Returns:
        The test clips' probabilities (M, classes), and the penalty. The strongest of equally good
        penalties is chosen.
    """
    label_N = np.array([video.label for video in videos])[sample_N]
    groups = [video.group or video.name for video in videos]
    held_N = np.isin(np.array(groups)[sample_N], held_out(groups, seed))
    with threadpool_limits(threads):
        right = dict.fromkeys(PENALTIES, 0)
        # In very small sets, what is left can be of one class. Then no penalty is better.
        if len({*label_N[~held_N]}) > 1:
            tried = fitted(x_ND[~held_N], label_N[~held_N], x_ND[held_N], classes, PENALTIES)
            for penalty, score_HC in tried.items():
                right[penalty] = (score_HC.argmax(axis=1) == label_N[held_N]).sum()
        best = max(PENALTIES, key=lambda penalty: (right[penalty], penalty))
        return fitted(x_ND, label_N, query_MD, classes, (best,))[best], best


def held_out(groups: Sequence[str], seed: int) -> list[str]:
    """Return a fifth of the groups. Groups are numbered in the order of their first videos."""
    names = list(dict.fromkeys(groups))
    draw = rng.generator(rng.clip_seed(seed, 0, -2), "labels")
    held = draw.permutation(len(names))[: max(round(HELD_OUT * len(names)), 1)]
    return [names[number] for number in held]


def fitted(
    x_ND: np.ndarray,
    label_N: np.ndarray,
    query_MD: np.ndarray,
    classes: int,
    penalties: Sequence[float],
) -> dict[float, np.ndarray]:
    """Fit logistic regression on standardised features at several penalties, the strongest first.

    Standardisation equals BatchNorm without affine, over the whole set as one batch.

    Returns:
        {penalty: the queries' probabilities (M, classes)}.
    """
    x_ND, query_MD = x_ND.astype(np.float64), query_MD.astype(np.float64)
    mean_D, scale_D = x_ND.mean(axis=0), 1 / np.sqrt(x_ND.var(axis=0) + 1e-6)
    x_ND, query_MD = (x_ND - mean_D) * scale_D, (query_MD - mean_D) * scale_D
    if len(x_ND) < x_ND.shape[1]:
        # The optimum lies in the span of the training clips. A rotation keeps the penalty.
        basis_RD = np.linalg.svd(x_ND, full_matrices=False)[2]
        x_ND, query_MD = x_ND @ basis_RD.T, query_MD @ basis_RD.T
    model = LogisticRegression(warm_start=True, max_iter=2000, tol=1e-7)
    scores = {}
    for penalty in sorted(penalties, reverse=True):
        model.C = 1 / (penalty * len(x_ND))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x_ND, label_N)
        # Classes without a training video have probability 0.
        scores[penalty] = np.zeros((len(query_MD), classes))
        scores[penalty][:, model.classes_] = model.predict_proba(query_MD)
    return scores
