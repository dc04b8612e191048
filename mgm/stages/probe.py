"""`mgm probe`: classify frozen features, by one of four kinds (`mgm.stages.probe_kinds`).

The paper does not say how it probes. Features are computed once per set of weights
(`mgm.stages.features`), on the training split and on the test split's views.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mgm.data.index import Video
from mgm.models import build_features
from mgm.spec import Probe, Views
from mgm.stages.data import Job
from mgm.stages.evaluate import check_views, record
from mgm.stages.features import Split, forget_tokens, split_features
from mgm.stages.probe_kinds import KINDS, Training


def probe(job: Job[Probe]) -> dict[str, Any]:
    """Extract features with the parent's encoder (or a random one), fit, test.

    Returns:
        Top-1, the mean over draws of labels, and the median of what each draw's fit chose.
    """
    spec = job.spec
    draws = [job.training_videos(number) for number in range(spec.label_draws)]
    videos = list({video.path: video for drawn in draws for video in drawn}.values())
    check_views(job)
    model = build_features(spec, job.weights(spec.parent) if spec.parent else None).to(job.device)
    splits = (
        (videos, Views(temporal=spec.train_clips, spatial=1)),
        (job.index.test, spec.views),
    )
    with_tokens = spec.kind == "attentive"
    train, test = (split_features(job, model, of, views, with_tokens) for of, views in splits)
    logits, settings = fit_draws(job, draws, videos, train, test)
    metrics = record(job, test.sample_N.numpy(), *logits)
    if with_tokens:
        forget_tokens(job, model, *splits)
    chosen = {name: float(np.median([one[name] for one in settings])) for name in settings[0]}
    return metrics | chosen


def fit_draws(
    job: Job[Probe],
    draws: Sequence[Sequence[Video]],
    videos: Sequence[Video],
    train: Split,
    test: Split,
) -> tuple[list[np.ndarray], list[dict[str, float]]]:
    """Fit a classifier per draw of the labels.

    Args:
        draws: the labelled videos of each draw.
        videos: all videos of the draws, which `train.sample_N` counts.
        train: features of their clips.
        test: features of the test clips.

    Returns:
        Each draw's logits of the test clips, and the settings that it chose.
    """
    spec = job.spec
    logits, settings = [], []
    for drawn in draws:
        label_of = {video.path: video.label for video in drawn}
        label_N = torch.tensor([label_of.get(video.path, -1) for video in videos])[train.sample_N]
        kept_N = label_N >= 0
        unit_N = units(videos, spec.held_out)[train.sample_N[kept_N]]
        own = Training(train, kept_N, label_N[kept_N], unit_N.unique(return_inverse=True)[1])
        logits_NC, setting = KINDS[spec.kind](own, test, len(job.index.classes), spec)
        logits.append(logits_NC.numpy())
        settings.append(setting)
    return logits, settings


def units(videos: Sequence[Video], held_out: str) -> torch.Tensor:
    """Return the number of each video's unit, which is held out as a whole.

    Units are numbered by their first video, so that groups of one video are numbered like videos.
    """
    names = [video.group or video.path if held_out == "groups" else video.path for video in videos]
    number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([number_of[name] for name in names])
