"""Features of clips by a frozen encoder, computed once for all probes of a job.

Those of the last weights stay in memory.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mgm.data.index import Video
from mgm.models import FrozenEncoder
from mgm.spec import Probe, Views
from mgm.stages.evaluate import over_views, require_finite
from mgm.stages.job import Job


class Split(NamedTuple):
    """Features of a split's clips.

    Attributes:
        x_ND: float32 mean of each clip's tokens.
        sample_N: int64 position of each clip's video.
    """

    x_ND: Tensor
    sample_N: Tensor


class LabelledClips(NamedTuple):
    """Training features with the labels of one draw.

    Attributes:
        x_ND: features of the clips that are labelled.
        label_N: the labels of these clips.
        unit_N: the number of each clip's video, or of its group (`Probe.held_out`), from 0. Clips
            of the same unit are held out together.
    """

    x_ND: Tensor
    label_N: Tensor
    unit_N: Tensor


def split_features(
    job: Job[Probe], model: FrozenEncoder, videos: Sequence[Video], views: Views
) -> Split:
    """Return the features of these videos' views."""
    spec = job.spec
    known = job.workplace.features
    # Without a parent, weights are drawn from the seed.
    weights = spec.parent or spec.seed, spec.model, spec.clips, job.index.digest
    if weights not in known:
        known.clear()
    of_weights = known.setdefault(weights, {})
    key = views, tuple(video.path for video in videos)
    if key not in of_weights:
        parts, samples = list[Tensor](), list[Tensor]()
        for x_BD, sample_B in over_views(job, model, model, videos, views):
            require_finite(job, x_BD)
            parts.append(x_BD.float().cpu())
            samples.append(sample_B)
        of_weights[key] = Split(torch.cat(parts), torch.cat(samples))
    return of_weights[key]
