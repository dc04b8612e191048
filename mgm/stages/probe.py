"""`mgm probe`: classify frozen features with one of two kinds (`mgm.stages.probe_kinds`).

The paper does not specify its probe. Each kind reads the mean of a clip's tokens
(`mgm.stages.features`). An attentive probe, which reads the tokens, is a fine-tuning run with
`head: attentive`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mgm.data.index import Video
from mgm.models import build_frozen_encoder
from mgm.spec import Probe, Views
from mgm.stages.evaluate import check_views, record
from mgm.stages.features import LabelledClips, Split, split_features
from mgm.stages.job import Job
from mgm.stages.probe_kinds import KINDS


def probe(job: Job[Probe]) -> dict[str, Any]:
    """Compute features with the parent's encoder, or with random weights. Fit and test a probe.

    Returns:
        Metrics as the mean over draws of labels, and the median of each chosen setting.
    """
    spec = job.spec
    draws = [job.training_videos(number) for number in range(spec.label_draws)]
    videos = list({video.path: video for drawn in draws for video in drawn}.values())
    check_views(job)
    model = build_frozen_encoder(spec, job.weights(spec.parent) if spec.parent else None).to(
        job.device
    )
    splits = (
        (videos, Views(temporal=spec.train_clips, spatial=1)),
        (job.index.test, spec.views),
    )
    train, test = (split_features(job, model, of, views) for of, views in splits)
    logits, settings = fit_draws(job, draws, videos, train, test)
    metrics = record(job, test.sample_N.numpy(), *logits)
    chosen = {
        name: float(np.median([setting[name] for setting in settings])) for name in settings[0]
    }
    return metrics | chosen


def fit_draws(
    job: Job[Probe],
    draws: Sequence[Sequence[Video]],
    videos: Sequence[Video],
    train: Split,
    test: Split,
) -> tuple[list[np.ndarray], list[dict[str, float]]]:
    """Fit a classifier for each draw of labels.

    Args:
        draws: the labelled videos of each draw.
        videos: all videos of the draws. `train.sample_N` has positions in this list.
        train: features of their clips.
        test: features of the test clips.

    Returns:
        Each draw's logits of the test clips, and its chosen settings.
    """
    spec = job.spec
    logits, settings = [], []
    for drawn in draws:
        label_of = {video.path: video.label for video in drawn}
        label_N = torch.tensor([label_of.get(video.path, -1) for video in videos])[train.sample_N]
        kept_N = label_N >= 0
        unit_N = units(videos, spec.held_out)[train.sample_N[kept_N]]
        number_N = unit_N.unique(return_inverse=True)[1]
        clips = LabelledClips(train.x_ND[kept_N], label_N[kept_N], number_N)
        logits_NC, setting = KINDS[spec.kind](clips, test, len(job.index.classes), spec)
        logits.append(logits_NC.numpy())
        settings.append(setting)
    return logits, settings


def units(videos: Sequence[Video], held_out: str) -> torch.Tensor:
    """Return the number of each video's unit: the video, or its group. Units are held out whole.

    Units are numbered in the order of their first videos. So groups with one video each have the
    same numbers as videos.
    """
    names = [video.group or video.path if held_out == "groups" else video.path for video in videos]
    number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([number_of[name] for name in names])
