"""`mgm finetune`: train all weights with labels, then run the multi-view test."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from mgm import rng
from mgm.models import build_classifier, load_encoder
from mgm.spec import Finetune
from mgm.stages.evaluate import check_views, test
from mgm.stages.fit import fit
from mgm.stages.job import Job
from mgm.training import mix
from mgm.video import Batch, BatchOptions


def finetune(job: Job[Finetune]) -> dict[str, Any]:
    """Train from the parent's encoder, or from scratch. Return the test of the last weights."""
    spec, videos, classes = job.spec, job.training_videos(), len(job.index.classes)
    check_views(job)
    model = build_classifier(spec, classes)
    if spec.parent:
        load_encoder(model, job.weights(spec.parent))
    model.to(job.device)
    augment = spec.augment

    def mixed(step: int, batch: Batch, weight_B: Tensor) -> Batch:
        """Apply mixup and CutMix to the batch.

        Draws depend only on the run's seed and the step, so a resumed run repeats them.
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

    def loss_of(batch: Batch) -> tuple[Tensor, Callable[[], dict[str, Tensor]]]:
        logits = model(batch.frames_BTHWC)
        target = batch.label_B if batch.target_BC is None else batch.target_BC
        loss_B = F.cross_entropy(
            logits.float(), target, label_smoothing=spec.label_smoothing, reduction="none"
        )
        # A mixed clip has the label of the larger share.
        label_B = target if target.ndim == 1 else target.argmax(dim=1)
        prediction_B = logits.argmax(dim=1)

        def numbers() -> dict[str, Tensor]:
            return {"train_top1": 100 * (prediction_B == label_B).float().mean()}

        return (loss_B * batch.weight_B).mean(), numbers

    fit(job, model, videos, BatchOptions(augment=augment), loss_of, mixed, spec.layer_decay)
    model.eval()
    return test(job, model)
