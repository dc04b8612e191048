"""The multi-view test: classify every test video by the mean softmax scores of its views.

Fine-tuning and probing end with it. `mgm predict --split test` repeats it with other views, data or
weights.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from mgm.console import show
from mgm.data.index import Video
from mgm.errors import UserError
from mgm.reading import read_json
from mgm.results import atomic
from mgm.spec import Finetune, Measure, Probe, Views
from mgm.stages.frozen import over_videos
from mgm.stages.job import Job
from mgm.training import collectives
from mgm.training.efficiency import block_compiler, wrapped_blocks

T = TypeVar("T")


class _NamedClasses(BaseModel):
    class_names: list[str] = []


class _OfClassifier(BaseModel):
    """The field of a run's result.json that names a classifier's outputs."""

    data: _NamedClasses = _NamedClasses()


class _Config(BaseModel):
    """The same of Hugging Face's config.json."""

    id2label: dict[int, str] | None = None
    problem_type: str | None = None


def recorded_classes(weights: Path) -> list[str]:
    """Return the class names that a classifier's run or export records; empty if there are none."""
    folder = weights if weights.is_dir() else weights.parent
    if (folder / "result.json").is_file():
        return read_json(folder / "result.json", _OfClassifier).data.class_names
    path = folder / "config.json"
    if not path.is_file():
        return []
    config = read_json(path, _Config)
    if config.problem_type == "multi_label_classification":
        raise UserError(f"{path}: problem_type is {config.problem_type}, and mgm reads one label")
    names = config.id2label or {}
    if sorted(names) != list(range(len(names))):
        raise UserError(f"{path}: id2label has the numbers {sorted(names)}, not 0 to N - 1")
    return [] if "LABEL_0" in names.values() else [names[label] for label in range(len(names))]


def check_views(job: Job[Finetune] | Job[Probe] | Job[Measure]) -> None:
    """Check that a video has as many frames as clips are read of it, before training.

    A video with fewer frames has equal clips, which does no harm. If all videos have fewer, the
    number is a mistake.
    """
    spec = job.spec
    asked = [("views.temporal", job.spec.views.temporal, "test")]
    if not isinstance(spec, Finetune):
        asked.append(("train_clips", spec.train_clips, "training"))
    for name, clips, split in asked:
        videos = job.index.test if split == "test" else job.index.train
        longest = max((video.frames for video in videos), default=0)
        if clips > longest:
            raise UserError(
                f"{name} is {clips}, but the longest {split} video has {longest} frames; lower it"
            )


def test(job: Job[Finetune], model: nn.Module) -> dict[str, Any]:
    """Test a classifier on the test split: write predictions.csv, and return the metrics.

    Each process tests its share. Rank 0 returns the metrics. The others return an empty dict.

    Args:
        model: maps frames (B, T, H, W, C) to logits (B, classes).
    """
    share = collectives.rank(), collectives.world_size()
    views = over_views(job, model, model, job.index.test, job.spec.views, share)
    tested = list[tuple[np.ndarray, np.ndarray]]()
    for logits_BC, sample_B in views:
        require_finite(job, logits_BC)
        tested.append((logits_BC.float().cpu().numpy(), sample_B.numpy()))
    of_all = [*chain(*collectives.all_gather_object(tested))]
    if not collectives.is_main():
        return {}
    return record(
        job,
        np.concatenate([sample_B for _, sample_B in of_all]),
        np.concatenate([logits_BC for logits_BC, _ in of_all]),
    )


def require_finite(job: Job, x_BD: Tensor) -> None:
    """Refuse features and logits that are not finite, since a classifier of them means nothing."""
    if not torch.isfinite(x_BD).all():
        raise UserError(
            f"{job.spec.run_id}: the weights compute numbers that are not finite; check the "
            "weights that it starts from"
        )


def over_views(
    job: Job[Finetune] | Job[Probe],
    model: nn.Module,
    compute: Callable[[Tensor], T],
    videos: Sequence[Video],
    views: Views,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[T, Tensor]]:
    """Yield `compute` of the frames of each batch of views, and the positions of their videos.

    Args:
        model: the model that `compute` calls. Its blocks are compiled as in training.
        share: (i, n): part i of n, from 0.
    """
    spec = job.spec
    compiled = block_compiler(job.options.compile, job.device, show)
    with wrapped_blocks(model, *[compiled] if compiled else []):
        yield from over_videos(
            compute,
            videos,
            spec.clips,
            views,
            workers=job.workers,
            share=share,
        )


def record(job: Job, sample_N: np.ndarray, *logits_NC: np.ndarray) -> dict[str, Any]:
    """Merge the views of each test video, write predictions.csv, and return the mean metrics.

    predictions.csv has path, label, and the prediction of each classifier. The metric is `top1` in
    percent. In partial domain adaptation some classes have no test video. Then `outside` is the
    percentage of predictions of those classes: negative transfer (Xu et al., 2021).
    """
    index, videos, classes = job.index, job.index.test, job.index.classes
    label_N = np.array([video.label for video in videos])
    prediction_LN = predictions(sample_N, logits_NC)
    columns = ["path", "label", *["prediction"] * len(logits_NC)]
    # Write the whole path, since different videos may have the same name.
    rows = [
        [index.name(video), *(classes[label] for label in (video.label, *predicted))]
        for video, predicted in zip(videos, prediction_LN.T, strict=True)
    ]
    atomic.write(job.folder / "predictions.csv", atomic.table_text(columns, rows))
    metrics = {"top1": 100 * (prediction_LN == label_N).mean().item()}
    if len({*label_N}) < len(classes):
        metrics["outside"] = 100 * (~np.isin(prediction_LN, label_N)).mean().item()
    return metrics


def predictions(sample_N: np.ndarray, logits_NC: Sequence[np.ndarray]) -> np.ndarray:
    """Return the class that each classifier predicts for each video, from all its views.

    Args:
        sample_N: each view's video. All videos have the same number of views.
        logits_NC: each classifier's logits of all views.

    Returns:
        (classifiers, videos) numbers of classes, with videos in order.
    """
    order_N, videos = np.argsort(sample_N, kind="stable"), len(np.unique(sample_N))
    of_videos = [x_NC[order_N].reshape(videos, -1, x_NC.shape[1]) for x_NC in logits_NC]
    return np.array([softmax_mean(x_NVC).argmax(axis=-1) for x_NVC in of_videos])


def softmax_mean(scores_VC: np.ndarray) -> np.ndarray:
    """Return the mean over views of the softmax, (..., V, C) to (..., C).

    The softmax of the mean logits is another number.

    Source: MCG-NJU/VideoMAE, engine_for_finetuning.py, averages softmax scores too.
    """
    shifted = np.exp(scores_VC - scores_VC.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).mean(axis=-2)
