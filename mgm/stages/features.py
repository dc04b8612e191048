"""Frozen features of a dataset's clips, computed once for a set of weights.

Every probe kind reads the mean of a clip's tokens; `attentive` reads the tokens too. Both come from
one decoding pass. The means stay in `RESULTS/features`, so that a later probe of the same weights
decodes nothing. Tokens are large: the run that read them deletes them when it is done.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgm.data.index import Video
from mgm.errors import UserError
from mgm.models.classifier import Features
from mgm.results.files import atomic_write
from mgm.spec import Probe, Views
from mgm.stages.data import Job, with_channels
from mgm.video import Loading, test_loader

CLIPS = 64  # per forward pass


@dataclass(frozen=True)
class Split:
    """Features of a split's clips.

    Attributes:
        x_ND: float32 mean of each clip's tokens.
        sample_N: int64 position of each clip's video.
        tokens_NLD: float16 tokens, each normalised to mean 0 and variance 1; None unless asked for.
    """

    x_ND: Tensor
    sample_N: Tensor
    tokens_NLD: np.ndarray | None = None


def split_features(
    job: Job[Probe], model: Features, videos: Sequence[Video], views: Views, tokens: bool
) -> Split:
    """Return the features of these videos' views, from the cache where they are there.

    Raises:
        UserError: a video cannot be read, or the disk has no room for the tokens.
    """
    folder, name = _folder(job), _name(job, model, videos, views)
    pooled, kept = folder / f"{name}.npz", folder / f"{name}.tokens.npy"
    if pooled.exists() and (kept.exists() or not tokens):
        with np.load(pooled) as arrays:
            x_ND, sample_N = map(torch.from_numpy, (arrays["x_ND"], arrays["sample_N"]))
    else:
        x_ND, sample_N = _compute(job, model, videos, views, kept if tokens else None)
        with atomic_write(pooled) as temporary:
            np.savez(temporary, x_ND=x_ND.numpy(), sample_N=sample_N.numpy())
    return Split(x_ND, sample_N, np.load(kept, mmap_mode="r") if tokens else None)


def forget_tokens(job: Job[Probe], model: Features, *splits: tuple[Sequence[Video], Views]) -> None:
    """Delete the tokens of these splits; their means stay."""
    for videos, views in splits:
        name = _name(job, model, videos, views)
        (_folder(job) / f"{name}.tokens.npy").unlink(missing_ok=True)


def _compute(
    job: Job[Probe], model: Features, videos: Sequence[Video], views: Views, kept: Path | None
) -> tuple[Tensor, Tensor]:
    spec, (slots, rows, columns) = job.spec, job.spec.grid
    batches = test_loader(
        videos,
        spec.clips,
        spec.model.tubelet,
        views,
        batch=CLIPS,
        how=Loading(None, workers=job.options.workers, cache=job.workplace.cache),
    )
    clips = len(videos) * views.temporal * views.spatial
    found, samples = list[Tensor](), list[Tensor]()
    with torch.inference_mode():
        if kept is None:
            for batch in batches:
                x_BLD = model.tokens(_frames(job, batch.frames_BTHWC))
                found.append(model.pooled(x_BLD).float().cpu())
                samples.append(batch.sample_B)
            return torch.cat(found), torch.cat(samples)
        shape = (clips, slots * rows * columns, spec.model.width)
        _require_room(kept.parent, 2 * int(np.prod(shape)))
        with atomic_write(kept) as temporary:
            tokens_NLD = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
            start = 0
            for batch in batches:
                x_BLD = model.tokens(_frames(job, batch.frames_BTHWC))
                found.append(model.pooled(x_BLD).float().cpu())
                samples.append(batch.sample_B)
                normal_BLD = F.layer_norm(x_BLD.float(), x_BLD.shape[-1:], eps=1e-6)
                tokens_NLD[start : start + len(x_BLD)] = normal_BLD.half().cpu().numpy()
                start += len(x_BLD)
            tokens_NLD.flush()
            del tokens_NLD
    return torch.cat(found), torch.cat(samples)


def _frames(job: Job[Probe], frames_BTHWC: Tensor) -> Tensor:
    spec = job.spec
    frames_BTHWC = with_channels(frames_BTHWC.to(job.device), spec.model.channels)
    if spec.still:
        frames_BTHWC = frames_BTHWC[:, [spec.clips.frames // 2] * spec.clips.frames]
    return frames_BTHWC


def _require_room(folder: Path, size: int) -> None:
    if (free := shutil.disk_usage(folder).free) < 1.05 * size:
        raise UserError(
            f"{folder}: the tokens of an attentive probe take {size / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free; free some, lower `views`, or choose another probe kind"
        )


def _folder(job: Job[Probe]) -> Path:
    folder = job.workplace.results / "features"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _name(job: Job[Probe], model: Features, videos: Sequence[Video], views: Views) -> str:
    """Name what decides the features: weights, clips, videos, views, and the code."""
    spec = job.spec
    fields = {
        "weights": _weights_digest(model),
        "clips": spec.clips.model_dump(mode="json"),
        "model": spec.model.model_dump(mode="json"),
        "still": spec.still,
        "views": views.model_dump(mode="json"),
        "dataset": [spec.data.dataset, job.index.digest],
        "videos": [job.index.name(video) for video in videos],
        "code": _code_digest(),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


def _weights_digest(model: Features) -> str:
    """Digest the weights as they are in memory: random ones have no file."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@cache
def _code_digest() -> str:
    """Digest the code that reads clips and computes features: a change of it empties the cache."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted([*root.glob("video/*.py"), *root.glob("models/*.py"), Path(__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
