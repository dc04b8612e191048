"""`mgm probe`: classify frozen features with one of five kinds (`mgm.stages.probe_kinds`).

The paper does not specify its probe. Features are computed once per set of weights, for the
training split and for the test split's views. Every kind reads the mean of a clip's tokens.
`attentive` and `v-jepa` also read the tokens. Both come from one decoding pass. The means stay in
`RESULTS/features`, so that a later probe of the same weights decodes nothing. Tokens are large, so
the run deletes them when it is done.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgm.data.index import Video
from mgm.errors import UserError, require_room
from mgm.models import FrozenEncoder, build_frozen_encoder
from mgm.reading import read_arrays
from mgm.results.atomic import atomic_write
from mgm.spec import Probe, Views
from mgm.spec.values import TOKEN_KINDS
from mgm.stages.evaluate import check_views, over_views, record
from mgm.stages.job import Job, LabelledClips, Split, multi_hot
from mgm.stages.measure import simple_features
from mgm.stages.probe_kinds import KINDS


def probe(job: Job[Probe]) -> dict[str, Any]:
    """Compute features with the parent's encoder, or with random weights. Fit and test a probe.

    Returns:
        Metrics as the mean over draws of labels, and the median of each chosen setting.
    """
    spec = job.spec
    if job.index.several_labels and spec.kind != "logistic":
        raise UserError(
            f"kind is {spec.kind}, which needs one label per video, and these have several; set "
            "kind to logistic"
        )
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
    with_tokens = spec.kind in TOKEN_KINDS
    train, test = (split_features(job, model, of, views, with_tokens) for of, views in splits)
    if spec.beside:
        train, test = (_beside(job, split, of) for split, (of, _) in zip((train, test), splits))
    logits, settings = fit_draws(job, draws, videos, train, test)
    metrics = record(job, test.sample_N.numpy(), *logits)
    if with_tokens:
        forget_tokens(job, model, *splits)
    chosen = {
        name: float(np.median([setting[name] for setting in settings])) for name in settings[0]
    }
    return metrics | chosen


def _beside(job: Job[Probe], split: Split, videos: Sequence[Video]) -> Split:
    """Return a split whose features also have those of the control `beside`, from the cache."""
    path = _folder(job) / f"{_digest(_of_videos(job, videos) | {'beside': job.spec.beside})}.npy"
    try:
        own_ND = np.load(path)
    # A damaged file counts as missing.
    except (OSError, ValueError, EOFError):
        read = simple_features.read_all(videos, workers=job.options.workers)
        own_ND = np.stack([numbers[job.spec.beside] for numbers, _ in read])
        with atomic_write(path) as temporary:
            np.save(temporary, own_ND)
    own_ND = torch.from_numpy(own_ND)[split.sample_N].float()
    return replace(split, x_ND=torch.cat([split.x_ND, own_ND], dim=1))


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
        own_of = {video.path: video for video in drawn}
        own_videos = [own_of.get(video.path, replace(video, label=-1)) for video in videos]
        label_N = torch.tensor([video.label for video in own_videos])[train.sample_N]
        kept_N = label_N >= 0
        if job.index.several_labels:
            label_N = multi_hot(own_videos, len(job.index.classes))[train.sample_N]
        unit_N = units(videos, spec.held_out)[train.sample_N[kept_N]]
        own = LabelledClips(train, kept_N, label_N[kept_N], unit_N.unique(return_inverse=True)[1])
        logits_NC, setting = KINDS[spec.kind](own, test, len(job.index.classes), spec)
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


def split_features(
    job: Job[Probe], model: FrozenEncoder, videos: Sequence[Video], views: Views, tokens: bool
) -> Split:
    """Return the features of these videos' views, from the cache if it has them.

    Raises:
        UserError: a video cannot be read, or the disk has too little space for the tokens.
    """
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
        if spec.still:
            frames_BTHWC = frames_BTHWC[:, [spec.clips.frames // 2] * spec.clips.frames]
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
    """Return a digest of what features depend on: weights, clips, videos, views, code, device."""
    spec = job.spec
    return _digest(
        _of_videos(job, videos)
        | {
            "weights": _weights_digest(model),
            "clips": spec.clips.model_dump(mode="json"),
            "model": spec.model.model_dump(mode="json"),
            "still": spec.still,
            "views": views.model_dump(mode="json"),
            "device": job.device.type,
            "torch": torch.__version__,
        }
    )


def _of_videos(job: Job[Probe], videos: Sequence[Video]) -> dict[str, Any]:
    return {
        "dataset": [job.spec.data.dataset, job.index.digest],
        "videos": [job.index.name(video) for video in videos],
        "code": _code_digest(),
    }


def _digest(fields: dict[str, Any]) -> str:
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
    own = [root / "stages" / "job.py", Path(simple_features.__file__), Path(__file__)]
    for path in sorted([*root.glob("video/*.py"), *root.glob("models/*.py"), *own]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
