"""`mgm finetune`: train with labels, then run the multi-view test."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mgm import rng
from mgm.models import build_classifier, load_encoder
from mgm.spec import Finetune
from mgm.stages.evaluate import check_views, test
from mgm.stages.fit import fit
from mgm.stages.job import Job
from mgm.training import collectives, mix
from mgm.video.loader import Batch


def finetune(job: Job[Finetune]) -> dict[str, Any]:
    """Train from the parent's encoder, or from scratch. Return the test of the last weights."""
    spec = job.spec
    videos = job.training_videos()
    classes = len(job.index.classes)
    check_views(job)
    model = build_classifier(spec, classes)
    if spec.parent:
        load_encoder(model, job.weights(spec.parent))
    model.to(job.device)
    augment = spec.augment

    def mixed(step: int, batch: Batch, weight_B: Tensor) -> Batch:
        """Apply mixup and CutMix to the batch.

        Draws depend only on the run's seed, the step and the rank, so a resumed run repeats them.
        """
        if not augment.mixup and not augment.cutmix:
            return batch
        draw = rng.generator(rng.clip_seed(spec.seed, step, -1 - collectives.rank()), "augment")
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

    def loss_of(batch: Batch) -> tuple[Tensor, Callable[[], dict[str, Tensor]]]:
        target = batch.label_B if batch.target_BC is None else batch.target_BC
        loss, prediction_B = model.loss(batch.frames_BTHWC, target, batch.weight_B)
        # A mixed clip has the label of the larger share.
        label_B = target if target.ndim == 1 else target.argmax(dim=1)

        def numbers() -> dict[str, Tensor]:
            return {"train_top1": 100 * (prediction_B == label_B).float().mean()}

        return loss, numbers

    fit(job, model, videos, loss_of, mixed, spec.layer_decay, augment=augment)
    model.eval()
    return test(job, model)
