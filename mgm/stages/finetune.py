"""`mgm finetune`: train all weights with labels, then run the multi-view test."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mgm import rng
from mgm.errors import UserError
from mgm.models import build_classifier, load_encoder
from mgm.spec import Finetune
from mgm.stages.evaluate import check_views, test
from mgm.stages.fit import fit
from mgm.stages.job import Job, multi_hot
from mgm.training import mix
from mgm.video import Batch, BatchOptions


def finetune(job: Job[Finetune]) -> dict[str, Any]:
    """Train from the parent's encoder, or from scratch, and test the last step's weights.

    Returns:
        Top-1 accuracy in percent, or the mean average precision if videos have several labels.
    """
    spec, videos, classes = job.spec, job.training_videos(), len(job.index.classes)
    check_views(job)
    model = build_classifier(spec, classes)
    if spec.parent:
        load_encoder(model, job.weights(spec.parent))
    model.to(job.device)
    augment, several = spec.augment, job.index.several_labels
    if several:
        require_one_label(spec)
    target_NC = (multi_hot(videos, classes) if several else torch.zeros(0)).to(job.device)
    weight_C = class_weights(spec, [video.label for video in videos], classes).to(job.device)

    def mixed(step: int, batch: Batch, weight_B: Tensor) -> Batch:
        """Apply mixup and CutMix to the batch.

        Draws depend only on the run's seed and the step, so a resumed run repeats them.
        """
        if several:
            return batch._replace(target_BC=target_NC[batch.sample_B])
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
        if several:
            assert batch.target_BC is not None
            smooth_BC = (
                batch.target_BC * (1 - spec.label_smoothing) + spec.label_smoothing / classes
            )
            loss_B = F.binary_cross_entropy_with_logits(
                logits.float(), smooth_BC, reduction="none"
            ).mean(dim=1)
            return (loss_B * batch.weight_B).mean(), dict
        target = batch.label_B if batch.target_BC is None else batch.target_BC
        loss_B = F.cross_entropy(
            logits.float(), target, label_smoothing=spec.label_smoothing, reduction="none"
        )
        # A mixed clip has the mean weight of its classes, and the label of the larger share.
        loss_B = loss_B * (weight_C[target] if target.ndim == 1 else target @ weight_C)
        label_B = target if target.ndim == 1 else target.argmax(dim=1)
        prediction_B = logits.argmax(dim=1)

        def numbers() -> dict[str, Tensor]:
            return {"train_top1": 100 * (prediction_B == label_B).float().mean()}

        return (loss_B * batch.weight_B).mean(), numbers

    fit(job, model, videos, BatchOptions(None, augment=augment), loss_of, mixed, spec.layer_decay)
    model.eval()
    return test(job, model)


def require_one_label(spec: Finetune) -> None:
    """Check that no field is set that needs one label per video.

    Raises:
        UserError: such a field is set. The message names it.
    """
    for name, value, off in (
        ("augment.mixup", spec.augment.mixup, 0),
        ("augment.cutmix", spec.augment.cutmix, 0),
        ("class_weights", spec.class_weights, "none"),
    ):
        if value != off:
            raise UserError(
                f"{name} is {value}, but videos have several labels each; set it to {off}"
            )


def class_weights(spec: Finetune, labels: Sequence[int], classes: int) -> Tensor:
    """Return the (classes,) weights of the loss. Their mean over the training videos is 1.

    All are 1, or each is inverse to the class's number of videos.
    """
    count_C = torch.bincount(torch.tensor(labels), minlength=classes)
    if spec.class_weights == "none":
        return torch.ones(classes)
    present = int((count_C > 0).sum())
    return torch.where(count_C > 0, len(labels) / (present * count_C.clamp(min=1)), 0.0)
