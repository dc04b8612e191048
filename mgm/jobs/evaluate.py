"""The multi-view test: every test video once, its views' softmax scores averaged."""

import csv
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgm.errors import UserError
from mgm.jobs.common import Job, softmax_mean
from mgm.spec import Finetune, Probe
from mgm.video import test_loader


def check_views(job: Job[Finetune] | Job[Probe]) -> None:
    """A job calls this before it trains.

    A test video with fewer frames than views has some views twice, which does no harm; but where that is so for all, `views` is a mistake.

    Raises:
        UserError: no test video has as many frames as there are temporal views.
    """
    views, longest = job.spec.views.temporal, max((video.frames for video in job.index.test), default=0)
    if views > longest:
        raise UserError(f"views.temporal is {views}, but the longest test video has {longest} frames; lower views.temporal")


def test(job: Job[Finetune] | Job[Probe], logits_of: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Test `logits_of(frames_BTHWC) -> (B, classes)` on the test split; write predictions.csv, return top-1 in percent."""
    spec, videos = job.spec, job.index.test
    views = spec.views.temporal * spec.views.spatial
    batches = test_loader(
        videos, spec.clips, spec.model.tubelet, spec.views, batch=max(views, 64),
        workers=job.execution.workers, cache=job.execution.cache,
    )  # fmt: skip
    logits, samples = [], []
    for batch in batches:
        logits.append(logits_of(batch.frames_BTHWC.to(job.device)).cpu())
        samples.append(batch.sample_B)
    return record(job, torch.cat(logits).numpy(), torch.cat(samples).numpy())


def record(job: Job, logits_NC: np.ndarray, sample_N: np.ndarray) -> dict[str, Any]:
    """Merge the views of each test video, write predictions.csv (path, label, prediction), return top-1.

    Where some classes have no test video, as in partial domain adaptation, `outside` is the share of predictions among those: negative
    transfer (Xu et al., 2021). Both are in per cent.
    """
    videos, classes = job.index.test, job.index.classes
    tested = {video.label for video in videos}
    right = outside = 0
    with (job.folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "prediction"])
        for position, video in enumerate(videos):  # the whole path is the key: different videos may share a name
            prediction = int(softmax_mean(logits_NC[sample_N == position]).argmax())
            right += prediction == video.label
            outside += prediction not in tested
            writer.writerow([job.index.name(video), classes[video.label], classes[prediction]])
    metrics = {"top1": 100 * right / len(videos)}
    return metrics | {"outside": 100 * outside / len(videos)} if len(tested) < len(classes) else metrics
