"""`mgm finetune`: train with labels, then run the multi-view test."""

from collections.abc import Sequence
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

    def inputs(step: int, batch: Batch, weight_B: Tensor) -> Sequence[Tensor]:
        """Apply mixup and CutMix to the batch.

        Draws depend only on the run's seed, the step and the rank, so a resumed run repeats them.
        """
        frames_BTHWC, target = batch.frames_BTHWC, batch.label_B
        if augment.mixup or augment.cutmix:
            draw = rng.generator(rng.clip_seed(spec.seed, step, -1 - collectives.rank()), "augment")
            shares = augment.mixup, augment.cutmix
            frames_BTHWC, target = mix(frames_BTHWC, target, weight_B, classes, *shares, draw)
        return frames_BTHWC, target, batch.weight_B

    fit(job, model, videos, inputs, augment)
    model.eval()
    return test(job, model)
