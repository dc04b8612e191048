"""The one loop of a model without gradients over videos, and the multi-view test of classifiers."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from mgm.console import progress
from mgm.data.index import Video
from mgm.data.loader import view_batches
from mgm.errors import UserError
from mgm.files import write_csv
from mgm.spec import Clips, Finetune, Views
from mgm.stages.run import RunContext
from mgm.training import distributed

CLIPS = 64  # clips of a forward pass without gradients


@torch.inference_mode()
def computed(
    compute: Callable[[Tensor], Tensor], frames_BTHWC: Tensor, device: torch.device | str
) -> np.ndarray:
    """Return `compute` of frames as float32. A GPU with bf16 units computes in bf16."""
    bf16 = torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        value_BD = compute(frames_BTHWC.to(device, non_blocking=True))
    return value_BD.float().cpu().numpy()


def over_videos(
    compute: Callable[[Tensor], Tensor],
    videos: Sequence[Video],
    clips: Clips,
    views: Views,
    device: torch.device | str,
    *,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
    failed: dict[int, UserError] | None = None,
    show_progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a model computes of all views, value_ND, and their videos' places, sample_N.

    Args:
        compute: maps uint8 frames (B, T, H, W, C) to (B, D), on the device.
        share: (i, n): part i of n, from 0.
        failed: gets the errors of videos that cannot be read, which are left out. None: raise.
        show_progress: show it.
    """
    values, samples = [], []
    batches: Iterable[dict[str, Tensor]] = view_batches(
        videos, clips, views, CLIPS, workers=workers, share=share, failed=failed
    )
    if show_progress:
        count = len(videos) * views.temporal * views.spatial
        batches = progress(batches, "batches", -(-count // CLIPS))
    for batch in batches:
        read_B = batch["weight_B"] > 0
        if read_B.any():
            values.append(computed(compute, batch["frames_BTHWC"][read_B], device))
            samples.append(batch["sample_B"][read_B].numpy())
    if not values:
        return np.empty((0, 0), np.float32), np.empty(0, np.int64)
    return np.concatenate(values), np.concatenate(samples)


def score(spec: Finetune, run: RunContext, model: nn.Module) -> dict[str, float]:
    """Test a classifier on the test split: write predictions.csv, and return the metrics.

    Each process tests its share. Rank 0 returns the metrics. The others return an empty dict.
    """
    model.eval()
    share = distributed.rank(), distributed.world_size()
    videos, where = run.index.test, (spec.clips, spec.views, run.device)
    own = over_videos(model, videos, *where, workers=run.workers, share=share)
    every = [part for part in distributed.gather(own) if len(part[1])]
    if not distributed.is_main():
        return {}
    logits_NC, sample_N = (np.concatenate(parts) for parts in zip(*every))
    return record(run, softmax(logits_NC, axis=1), sample_N)


def record(run: RunContext, score_NC: np.ndarray, sample_N: np.ndarray) -> dict[str, float]:
    """Merge the views of each test video, write predictions.csv, and return the metrics.

    In partial domain adaptation some classes have no test video. Then `outside` is the percentage
    of predictions of those classes: negative transfer (Xu et al., 2021).

    Returns:
        `top1` in per cent, and perhaps `outside`.
    """
    videos, classes = run.index.test, run.index.classes
    label_N = np.array([video.label for video in videos])
    prediction_N = merged(score_NC, sample_N).argmax(axis=1)
    rows = [["path", "label", "prediction"]]
    for video, predicted in zip(videos, prediction_N, strict=True):
        rows.append([video.name, classes[video.label], classes[predicted]])
    write_csv(run.folder / "predictions.csv", rows)
    metrics = {"top1": 100 * float((prediction_N == label_N).mean())}
    if len({*label_N}) < len(classes):
        metrics["outside"] = 100 * float((~np.isin(prediction_N, label_N)).mean())
    return metrics


def merged(score_NC: np.ndarray, sample_N: np.ndarray) -> np.ndarray:
    """Return the mean score over each video's views, with videos in order.

    Source: MCG-NJU/VideoMAE, engine_for_finetuning.py, averages softmax scores too. The softmax of
    the mean logits is another number.
    """
    samples, place_N, views_M = np.unique(sample_N, return_inverse=True, return_counts=True)
    sum_MC = np.zeros((len(samples), score_NC.shape[1]))
    np.add.at(sum_MC, place_N, score_NC)
    return sum_MC / views_M[:, None]
