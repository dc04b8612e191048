"""`mgm pretrain`: train a masked autoencoder on the training split, and write its weights."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mgm.console import show
from mgm.models import build_mae, load_weights
from mgm.results.result import last_losses, learnt_nothing, log_lines
from mgm.spec import Augment, Pretrain
from mgm.stages.fit import fit
from mgm.stages.guidance import guided
from mgm.stages.job import Job
from mgm.training import collectives
from mgm.video.loader import Batch


def pretrain(job: Job[Pretrain]) -> dict[str, Any]:
    """Train from the parent's weights, or from scratch, and write weights.safetensors.

    Returns:
        explained: the share of the trivial loss that the model explains at the end, in per cent.
    """
    spec = job.spec
    videos = job.training_videos()
    masks = guided(spec.mask, spec.clips, spec.model)
    model = build_mae(spec)
    if spec.parent:
        load_weights(model, job.weights(spec.parent))
    model.to(job.device)

    def inputs(step: int, batch: Batch, weight_B: Tensor) -> Sequence[Tensor]:
        given = batch.frames_BTHWC, batch.masked_BL, batch.weight_B, batch.motion_BSHW
        return [x for x in given if x is not None]

    fit(job, model, videos, inputs, Augment(repeats=spec.repeats), **masks)
    if not collectives.is_main():
        return {}
    loss, trivial = last_losses(log_lines(job.folder))
    if text := learnt_nothing(loss, trivial):
        show(f"{spec.run_id}: {text}")
    return {"explained": 100 * (1 - loss / trivial)} if trivial else {}
