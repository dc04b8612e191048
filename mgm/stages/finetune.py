"""`mgm finetune`: supervised training of all weights, then the multi-view test."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mgm import rng
from mgm.models import build_classifier, load_encoder
from mgm.spec import Finetune
from mgm.stages.data import Job, training_batches
from mgm.stages.evaluate import check_views, test
from mgm.stages.pretrain import fit, steps_of
from mgm.training import Training, mix
from mgm.video import Batch, Loading


def finetune(job: Job[Finetune]) -> dict[str, Any]:
    """Train from the parent's encoder (or from scratch), test the last step's weights, return
    top-1.
    """
    spec, videos, classes = job.spec, job.training_videos(), len(job.index.classes)
    check_views(job)
    model = build_classifier(spec, classes)
    if spec.parent:
        load_encoder(model, job.weights(spec.parent))
    model.to(job.device)
    steps, augment = steps_of(spec.optim, len(videos)), spec.augment
    weight_C = class_weights(spec, [video.label for video in videos], classes).to(job.device)

    def mixed(step: int, batch: Batch, weight_B: Tensor) -> Batch:
        """What is drawn depends on the run's seed and the step alone, so a resumed run draws the
        same.
        """
        if not augment.mixup and not augment.cutmix:
            return batch
        draw = rng.generator(rng.clip_seed(spec.seed, step, -1), "augment")
        frames_BTHWC, target_BC = mix(
            batch.frames_BTHWC,
            batch.label_B,
            weight_B,
            classes,
            augment.mixup,
            augment.cutmix,
            draw,
        )
        return batch._replace(frames_BTHWC=frames_BTHWC, target_BC=target_BC)

    def loss_of(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = model(batch.frames_BTHWC)
        target = batch.label_B if batch.target_BC is None else batch.target_BC
        loss_B = F.cross_entropy(
            logits.float(), target, label_smoothing=spec.label_smoothing, reduction="none"
        )
        loss_B = loss_B * (
            weight_C[target] if target.ndim == 1 else target @ weight_C
        )  # of a mixed clip, its shares'
        label_B = (
            batch.label_B if batch.target_BC is None else batch.target_BC.argmax(dim=1)
        )  # of a mixed clip, the larger share's
        accuracy = (logits.argmax(dim=1) == label_B).float().mean()
        return (loss_B * batch.weight_B).mean(), {"train_top1": 100 * accuracy.detach()}

    batches = partial(training_batches, job, videos, Loading(None, augment=augment), mixed)
    run = Training(
        spec.run_id,
        model,
        spec.optim,
        steps,
        len(videos),
        batches,
        loss_of,
        spec.layer_decay,
        augment.repeats,
        spec.seed,
    )
    fit(job, run)
    model.eval()
    with torch.inference_mode():
        return test(job, lambda frames_BTHWC: model(frames_BTHWC).float())


def class_weights(spec: Finetune, labels: Sequence[int], classes: int) -> Tensor:
    """(classes,):

    what a training video's loss counts, by its class; ones, or inversely to its videos so that the
    mean over videos is 1.
    """
    count_C = torch.bincount(torch.tensor(labels), minlength=classes)
    if spec.class_weights == "none":
        return torch.ones(classes)
    present = int((count_C > 0).sum())
    return torch.where(count_C > 0, len(labels) / (present * count_C.clamp(min=1)), 0.0)
