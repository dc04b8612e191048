"""The multi-view test: every test video once, its views' softmax scores averaged.

Finetuning and probing end with it; `mgm evaluate` repeats it for finetuned weights, of a run or
from elsewhere, with other views or data.
"""

import json
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgm.data.index import Index
from mgm.errors import UserError, valid
from mgm.models import build_classifier, classes_of, load_weights, read_weights
from mgm.reading import file_digest
from mgm.results import atomic, statistics
from mgm.results.atomic import table_writer
from mgm.spec import Data, Finetune, Probe, Views, read_spec
from mgm.stages.job import Job, Workplace, find_index, multi_hot, with_channels
from mgm.stages.parents import verified_weights
from mgm.training import collectives
from mgm.video import BatchOptions, test_loader


def evaluate(
    place: Path,
    weights: Path | None,
    workplace: Workplace,
    views: dict[str, int],
    out: Path | None = None,
) -> str:
    """Test a fine-tuned model and return its metrics as a line; empty on other ranks than 0.

    Args:
        place: the folder of a finetuning run, or the file of its spec.
        weights: a file in any format that `read_weights` knows; None: the run's own.
        workplace: threads, workers, and under `data` the one dataset to test on. A dataset of the
            spec's name must have the spec's digest; another one as many classes.
        views: `temporal` and `spatial` in place of the spec's.
        out: a folder for predictions.csv and evaluation.json; None: nothing is written.

    Raises:
        UserError: not a finetuning run, weights that do not fit, a dataset with another number of
            classes, more views than frames.
    """
    spec = read_spec(place)
    if not isinstance(spec, Finetune):
        raise UserError(
            f"{place}: is a {spec.stage} run; only a finetuned classifier can be evaluated"
        )
    if weights is None and not place.is_dir():
        raise UserError(
            f"{place}: is a spec and has no weights; add --weights FILE, or give a run's folder"
        )
    if out and (out / "result.json").exists():
        raise UserError(
            f"{out}: is a run's own folder, whose predictions must stay; choose another --out"
        )
    path = weights or verified_weights(place)[0]
    ((dataset, _),) = workplace.data.items()
    data = spec.data if dataset == spec.data.dataset else Data(dataset=dataset)
    with valid("views."):
        given = Views(**(spec.views.model_dump() | views))
    spec = spec.model_copy(update={"data": data, "views": given})
    index = find_index(spec, workplace)
    if (classes := classes_of(read_weights(path), path)) != len(index.classes):
        raise UserError(
            f"{path}: distinguishes {classes} classes, {dataset} has {len(index.classes)}; give "
            "weights of those data"
        )
    model = build_classifier(spec, classes)
    load_weights(model, path)
    torch.set_num_threads(workplace.options.threads)
    with TemporaryDirectory() as scratch:
        job = Job(spec, out or Path(scratch), workplace, index)
        check_views(job)
        job.folder.mkdir(parents=True, exist_ok=True)
        model.to(job.device).eval()
        with torch.inference_mode():
            metrics = test(job, lambda frames_BTHWC: model(frames_BTHWC).float())
    if not collectives.is_main():
        return ""
    if out:
        about = {
            "spec": json.loads(spec.model_dump_json()),
            "digest": index.digest,
            "weights_sha256": file_digest(path) if path.is_file() else None,
            "metrics": metrics,
        }
        atomic.write(out / "evaluation.json", json.dumps(about, indent=1) + "\n")
    text = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())
    tested = f"{len(index.test)} videos of {dataset}"
    return f"{place.name}: {text} on {tested}, {given.temporal} x {given.spatial} views"


def check_views(job: Job[Finetune] | Job[Probe]) -> None:
    """Refuse more temporal views than any test video has frames. Call this before training.

    A test video with fewer frames than views has some views twice, which does no harm. If that is
    so for all videos, `views` is a mistake.

    Raises:
        UserError: no test video has as many frames as there are temporal views.
    """
    views = job.spec.views.temporal
    longest = max((video.frames for video in job.index.test), default=0)
    if views > longest:
        raise UserError(
            f"views.temporal is {views}, but the longest test video has {longest} frames; lower "
            "views.temporal"
        )


def test(job: Job[Finetune] | Job[Probe], logits_of: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Test a classifier on the test split: write predictions.csv, return the metrics.

    Each process tests its share. Rank 0 has the result; the others return nothing.

    Args:
        logits_of: from frames (B, T, H, W, C) to (B, classes).
    """
    spec, videos = job.spec, job.index.test
    views = spec.views.temporal * spec.views.spatial
    batches = test_loader(
        videos,
        spec.clips,
        spec.model.tubelet,
        spec.views,
        batch=max(views, 64),
        how=BatchOptions(
            motion=None,
            workers=job.options.workers,
            cache=job.workplace.cache,
            share=(collectives.rank(), collectives.world_size()),
        ),
    )
    own = [
        (
            logits_of(with_channels(batch.frames_BTHWC.to(job.device), spec.model.channels))
            .cpu()
            .numpy(),
            batch.sample_B.numpy(),
        )
        for batch in batches
    ]
    found = [*chain(*collectives.gather_object(own))]
    if not collectives.is_main():
        return {}
    return record(
        job,
        np.concatenate([sample_B for _, sample_B in found]),
        np.concatenate([logits_BC for logits_BC, _ in found]),
    )


def record(job: Job, sample_N: np.ndarray, *logits_NC: np.ndarray) -> dict[str, Any]:
    """Merge the views of each test video, write predictions.csv, return the mean top-1.

    predictions.csv has path, label, and the prediction of each classifier. Where some classes have
    no test video, as in partial domain adaptation, `outside` is the share of predictions of those
    classes: negative transfer (Xu et al., 2021). Both are in percent. Videos with several labels
    have the mean average precision (`map`) instead.
    """
    if job.index.several_labels:
        return _record_several(job, sample_N, logits_NC[0])
    videos, classes = job.index.test, job.index.classes
    label_N = np.array([video.label for video in videos])
    prediction_LN = predictions(sample_N, logits_NC)
    with (job.folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = table_writer(file)
        writer.writerow(["path", "label", *["prediction"] * len(logits_NC)])
        # The whole path is the key: different videos may share a name.
        for video, predicted in zip(videos, prediction_LN.T):
            writer.writerow(
                [
                    job.index.name(video),
                    classes[video.label],
                    *(classes[number] for number in predicted),
                ]
            )
    metrics = {"top1": 100 * (prediction_LN == label_N).mean().item()}
    outside = 100 * (~np.isin(prediction_LN, label_N)).mean().item()
    return metrics | {"outside": outside} if len({*label_N}) < len(classes) else metrics


def _record_several(job: Job, sample_N: np.ndarray, logits_NC: np.ndarray) -> dict[str, Any]:
    """Write predictions.csv (path, labels, a score per class), return the mean average precision.

    A score is the mean over views of the logits' sigmoid.
    """
    videos, classes = job.index.test, job.index.classes
    order_N = np.argsort(sample_N, kind="stable")
    views_NVC = logits_NC[order_N].reshape(len(videos), -1, len(classes))
    score_NC = np.stack([sigmoid_mean(x_VC) for x_VC in views_NVC])
    with (job.folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = table_writer(file)
        writer.writerow(["path", "labels", *classes])
        for video, score_C in zip(videos, score_NC, strict=True):
            writer.writerow(
                [job.index.name(video), job.index.class_names(video), *map(repr, score_C.tolist())]
            )
    found, low, high = average_precision(job.index, score_NC)
    return {"map": found, "map_low": low, "map_high": high}


def average_precision(index: Index, score_NC: np.ndarray) -> tuple[float, float, float]:
    """Return the mean average precision of the test videos' scores, and its 95 % interval."""
    positive_NC = multi_hot(index.test, len(index.classes)).bool().numpy()
    low, high = statistics.precision_interval(score_NC, positive_NC)
    return statistics.mean_average_precision(score_NC, positive_NC), low, high


def predictions(sample_N: np.ndarray, logits_NC: Sequence[np.ndarray]) -> np.ndarray:
    """Return the class that each classifier predicts for each video, its views merged.

    Args:
        sample_N: each view's video; every video has as many views.
        logits_NC: each classifier's logits of all views.

    Returns:
        (classifiers, videos) class numbers, videos in order.
    """
    order_N = np.argsort(sample_N, kind="stable")
    videos = len(np.unique(sample_N))
    return np.array(
        [
            [softmax_mean(x_VC).argmax() for x_VC in np.split(x_NC[order_N], videos)]
            for x_NC in logits_NC
        ]
    )


def sigmoid_mean(logits_VC: np.ndarray) -> np.ndarray:
    """Return the mean over views of the sigmoid: (V, C) to (C,), scores of several labels."""
    return (1 / (1 + np.exp(-logits_VC.astype(np.float64)))).mean(axis=-2)


def softmax_mean(scores_VC: np.ndarray) -> np.ndarray:
    """Return the mean over views of the softmax: (V, C) to (C,).

    VideoMAE averages scores too. Averaging logits first gives another number.
    """
    shifted = np.exp(scores_VC - scores_VC.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).mean(axis=-2)
