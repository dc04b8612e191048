"""Features of clips by a frozen encoder, computed once for all probes of a job.

The means of the last weights' tokens stay in memory. Tokens are large, so they are in a file of the
run's folder, which the system removes when the run ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgm.data.index import Video
from mgm.errors import require_room
from mgm.models import FrozenEncoder
from mgm.spec import Probe, Views
from mgm.stages.evaluate import over_views, require_finite
from mgm.stages.job import Job


@dataclass(frozen=True)
class Split:
    """Features of a split's clips.

    Attributes:
        x_ND: float32 mean of each clip's tokens.
        sample_N: int64 position of each clip's video.
        tokens_NLD: float16 tokens, each normalised to mean 0 and variance 1. Only the attentive
            probe needs them. Otherwise None.
    """

    x_ND: torch.Tensor
    sample_N: torch.Tensor
    tokens_NLD: np.ndarray | None = None


class LabelledClips(NamedTuple):
    """Training features with the labels of one draw.

    Attributes:
        split: features of all clips.
        kept_N: which of them are labelled.
        label_N: the labels of these clips.
        unit_N: the number of each clip's video, or of its group (`Probe.held_out`), from 0. Clips
            of the same unit are held out together.
    """

    split: Split
    kept_N: torch.Tensor
    label_N: torch.Tensor
    unit_N: torch.Tensor

    @property
    def pooled(self) -> torch.Tensor:
        """Return the (N, D) means of these clips' tokens."""
        return self.split.x_ND[self.kept_N]


def split_features(
    job: Job[Probe], model: FrozenEncoder, videos: Sequence[Video], views: Views, tokens: bool
) -> Split:
    """Return the features of these videos' views. Only the probe `v-jepa` needs tokens."""
    spec = job.spec
    known = job.workplace.features
    # Without a parent, weights are drawn from the seed.
    weights = spec.parent or spec.seed, spec.model, spec.clips, job.index.digest
    if weights not in known:
        known.clear()
    of_weights = known.setdefault(weights, {})
    key = views, tuple(video.path for video in videos)
    if tokens or key not in of_weights:
        found = _compute(job, model, videos, views, tokens)
        # A file of tokens ends with its run.
        of_weights[key] = replace(found, tokens_NLD=None)
        return found
    return of_weights[key]


def _compute(
    job: Job[Probe], model: FrozenEncoder, videos: Sequence[Video], views: Views, tokens: bool
) -> Split:
    spec, (slots, rows, columns) = job.spec, job.spec.grid
    clips = len(videos) * views.temporal * views.spatial
    tokens_NLD = None
    if tokens:
        shape = (clips, slots * rows * columns, spec.model.width)
        require_room(
            job.folder,
            2 * int(np.prod(shape)),
            "room for an attentive probe's tokens",
            "free some, lower `views`, or choose another probe kind",
        )
        path = job.folder / "tokens.npy"
        tokens_NLD = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        # The system keeps the file while it is mapped, and no longer.
        path.unlink()

    def compute(frames_BTHWC: Tensor) -> tuple[Tensor, Tensor | None]:
        x_BLD = model.tokens(frames_BTHWC)
        pooled_BD = model.pooled(x_BLD).float().cpu()
        if not tokens:
            return pooled_BD, None
        return pooled_BD, F.layer_norm(x_BLD.float(), x_BLD.shape[-1:], eps=1e-6).half().cpu()

    pooled, samples, start = list[Tensor](), list[Tensor](), 0
    for (pooled_BD, normal_BLD), sample_B in over_views(job, model, compute, videos, views):
        require_finite(job, pooled_BD)
        pooled.append(pooled_BD)
        samples.append(sample_B)
        if tokens_NLD is not None and normal_BLD is not None:
            tokens_NLD[start : start + len(normal_BLD)] = normal_BLD.numpy()
            start += len(normal_BLD)
    return Split(torch.cat(pooled), torch.cat(samples), tokens_NLD)
