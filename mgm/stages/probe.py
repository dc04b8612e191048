"""`mgm probe`: a linear classifier on frozen features.

Features once per clip, BatchNorm without affine and one linear layer (MAE's recipe), fitted to
convergence on the whole set; the strength of its weight penalty is chosen on a fifth of the
training split, never on the test split. The paper is silent here.
"""

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from mgm import rng
from mgm.errors import UserError
from mgm.models import build_features
from mgm.spec import Probe, Views
from mgm.stages.data import Job, with_channels
from mgm.stages.evaluate import check_views, record
from mgm.video import test_loader

PENALTIES = (
    1e-5,
    1e-4,
    1e-3,
    1e-2,
    1e-1,
    1.0,
)  # of the mean squared weight, beside the mean cross-entropy
HELD_OUT = 0.2


def probe(job: Job[Probe]) -> dict[str, Any]:
    """Extract features with the parent's encoder (or a random one), fit, test;

    return top-1 and the penalty chosen, the median of draws.
    """
    spec = job.spec
    draws = [job.training_videos(number) for number in range(spec.label_draws)]
    videos = list({video.path: video for drawn in draws for video in drawn}.values())
    check_views(job)
    model = build_features(spec, job.weights(spec.parent) if spec.parent else None).to(job.device)

    def features(videos, views: Views) -> tuple[Tensor, Tensor]:
        batches = test_loader(
            videos,
            spec.clips,
            spec.model.tubelet,
            views,
            batch=64,
            workers=job.execution.workers,
            cache=job.execution.cache,
        )
        found = []
        with torch.inference_mode():
            for batch in batches:
                frames_BTHWC = with_channels(batch.frames_BTHWC.to(job.device), spec.model.channels)
                if spec.still:
                    frames_BTHWC = frames_BTHWC[:, [spec.clips.frames // 2] * spec.clips.frames]
                found.append((model(frames_BTHWC).double().cpu(), batch.sample_B))
        return torch.cat([x_BD for x_BD, _ in found]), torch.cat(
            [sample_B for _, sample_B in found]
        )

    train_ND, sample_N = features(videos, Views(temporal=spec.train_clips, spatial=1))
    test_ND, test_sample_N = features(job.index.test, spec.views)
    classes = len(job.index.classes)
    logits, penalties = [], []
    for drawn in draws:
        label_of = {video.path: video.label for video in drawn}
        label_N = torch.tensor([label_of.get(video.path, -1) for video in videos])[sample_N]
        kept_N = label_N >= 0
        x_ND, label_N, (_, drawn_N) = (
            train_ND[kept_N],
            label_N[kept_N],
            sample_N[kept_N].unique(return_inverse=True),
        )
        penalties.append(_choose_penalty(x_ND, label_N, drawn_N, classes, spec.seed))
        logits.append(fit(x_ND, label_N, classes, penalties[-1])(test_ND).numpy())
    return record(job, test_sample_N.numpy(), *logits) | {"penalty": float(np.median(penalties))}


def fit(x_ND: Tensor, label_N: Tensor, classes: int, penalty: float):
    """Logistic regression on standardised features, to convergence; returns features -> logits.

    BatchNorm without affine, seen over the whole set at once, is this standardisation.
    """
    variance_D, mean_D = torch.var_mean(x_ND, dim=0, correction=0)
    scale_D = (variance_D + 1e-6).rsqrt()
    normal_ND = (x_ND - mean_D) * scale_D
    one_hot_NC = F.one_hot(label_N, classes).to(x_ND.dtype)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean cross-entropy plus the penalty, and its gradient."""
        weight_CD, bias_C = torch.from_numpy(flat).split([classes * x_ND.shape[1], classes])
        weight_CD = weight_CD.view(classes, -1)
        log_NC = F.linear(normal_ND, weight_CD, bias_C).log_softmax(1)
        error_NC = (log_NC.exp() - one_hot_NC) / len(x_ND)
        gradient = torch.cat(
            [(error_NC.T @ normal_ND + penalty * weight_CD).flatten(), error_NC.sum(0)]
        )
        return -(log_NC * one_hot_NC).sum().item() / len(
            x_ND
        ) + penalty * weight_CD.square().sum().item() / 2, gradient.numpy()

    start = np.zeros(classes * (x_ND.shape[1] + 1))
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "gtol": 1e-6, "ftol": 0}
    )
    weight, bias = torch.from_numpy(found.x).split([classes * x_ND.shape[1], classes])
    weight = weight.view(classes, -1)
    return lambda x_ND: F.linear((x_ND - mean_D) * scale_D, weight, bias)


def _choose_penalty(
    x_ND: Tensor, label_N: Tensor, sample_N: Tensor, classes: int, seed: int
) -> float:
    """The penalty with the best accuracy on a fifth of the training videos, held out by video;

    the stronger one of equals.
    """
    videos = int(sample_N.max()) + 1
    held = rng.generator(rng.clip_seed(seed, 0, -2), "labels").permutation(videos)[
        : round(HELD_OUT * videos)
    ]
    if len(held) == 0:
        raise UserError(
            f"{videos} training videos are too few to hold any out; a probe needs at least 5"
        )
    held_N = torch.isin(sample_N, torch.as_tensor(held))
    accuracies = {}
    for penalty in PENALTIES:
        logits_NC = fit(x_ND[~held_N], label_N[~held_N], classes, penalty)(x_ND[held_N])
        accuracies[penalty] = (logits_NC.argmax(dim=1) == label_N[held_N]).double().mean().item()
    return max(PENALTIES, key=lambda penalty: (accuracies[penalty], penalty))
