"""Features of clips by a frozen encoder, computed once per set of weights and kept on disk.

The means of tokens stay in `RESULTS/features`, so that a later probe of the same weights decodes
nothing. Tokens are large, so a run deletes them when it is done.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgm.data.index import Video
from mgm.errors import UserError, require_room
from mgm.models import FrozenEncoder
from mgm.reading import read_arrays
from mgm.results.atomic import atomic_write
from mgm.spec import Probe, Views
from mgm.stages.evaluate import over_views
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
    """Return the features of these videos' views, from the cache if it has them."""
    name = _name(job, model, videos, views)
    pooled, kept = (_folder(job) / f"{name}{suffix}" for suffix in (".npz", ".tokens.npy"))

    def read() -> Split:
        arrays = read_arrays(pooled)
        x_ND, sample_N = (torch.from_numpy(arrays[of]) for of in ("x_ND", "sample_N"))
        return Split(x_ND, sample_N, np.load(kept, mmap_mode="r") if tokens else None)

    # A damaged file counts as missing.
    with suppress(UserError, OSError, ValueError, KeyError, EOFError):
        return read()
    x_ND, sample_N = _compute(job, model, videos, views, kept if tokens else None)
    with atomic_write(pooled) as temporary:
        np.savez(temporary, x_ND=x_ND.numpy(), sample_N=sample_N.numpy())
    return read()


def forget_tokens(
    job: Job[Probe], model: FrozenEncoder, *splits: tuple[Sequence[Video], Views]
) -> None:
    """Delete the tokens of these splits, and keep their means."""
    for videos, views in splits:
        name = _name(job, model, videos, views)
        (_folder(job) / f"{name}.tokens.npy").unlink(missing_ok=True)


def _compute(
    job: Job[Probe], model: FrozenEncoder, videos: Sequence[Video], views: Views, kept: Path | None
) -> tuple[Tensor, Tensor]:
    spec, (slots, rows, columns) = job.spec, job.spec.grid
    clips = len(videos) * views.temporal * views.spatial
    shape = (clips, slots * rows * columns, spec.model.width)

    def compute(frames_BTHWC: Tensor) -> tuple[Tensor, Tensor | None]:
        x_BLD = model.tokens(frames_BTHWC)
        pooled_BD = model.pooled(x_BLD).float().cpu()
        if not kept:
            return pooled_BD, None
        return pooled_BD, F.layer_norm(x_BLD.float(), x_BLD.shape[-1:], eps=1e-6).half().cpu()

    if kept:
        require_room(
            kept.parent,
            2 * int(np.prod(shape)),
            "room for an attentive probe's tokens",
            "free some, lower `views`, or choose another probe kind",
        )
    pooled, samples, start = list[Tensor](), list[Tensor](), 0
    with atomic_write(kept) if kept else nullcontext() as temporary:
        if temporary:
            tokens_NLD = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
        for (pooled_BD, normal_BLD), sample_B in over_views(job, model, compute, videos, views):
            pooled.append(pooled_BD)
            samples.append(sample_B)
            if normal_BLD is not None:
                tokens_NLD[start : start + len(normal_BLD)] = normal_BLD.numpy()
                start += len(normal_BLD)
        if temporary:
            tokens_NLD.flush()
            del tokens_NLD
    return torch.cat(pooled), torch.cat(samples)


def _folder(job: Job[Probe]) -> Path:
    folder = job.workplace.results / "features"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _name(job: Job[Probe], model: FrozenEncoder, videos: Sequence[Video], views: Views) -> str:
    """Return a digest of what features depend on: videos, code, weights, clips, views, device."""
    spec = job.spec
    fields = {
        "dataset": [spec.data.dataset, job.index.digest],
        "videos": [job.index.name(video) for video in videos],
        "code": _code_digest(),
        "weights": _weights_digest(model),
        "clips": spec.clips.model_dump(mode="json"),
        "model": spec.model.model_dump(mode="json"),
        "views": views.model_dump(mode="json"),
        "device": job.device.type,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


def _weights_digest(model: FrozenEncoder) -> str:
    """Return a digest of the weights in memory, since random weights have no file."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@cache
def _code_digest() -> str:
    """Return a digest of the code that reads clips and computes features.

    If this code changes, features are computed again.
    """
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    own = [root / "stages" / "job.py", Path(__file__)]
    for path in sorted([*root.glob("video/*.py"), *root.glob("models/*.py"), *own]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
