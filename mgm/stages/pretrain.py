"""`mgm pretrain`: train a masked autoencoder on the training split, and write its weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mgm.console import show
from mgm.data.index import require_vectors
from mgm.data.tracks import require_tracks
from mgm.masking import Grid
from mgm.models import build_mae, load_weights
from mgm.results.result import last_losses, learnt_nothing, log_lines
from mgm.spec import Augment, Pretrain
from mgm.stages.fit import fit
from mgm.stages.guidance import guided
from mgm.stages.job import Job
from mgm.training import collectives
from mgm.video.loader import Batch, track_method


def pretrain(job: Job[Pretrain]) -> dict[str, Any]:
    """Train from the parent's weights, or from scratch, and write weights.safetensors.

    Returns:
        explained: the share of the trivial loss that the model explains at the end, in per cent.
    """
    spec = job.spec
    videos = job.training_videos()
    masks = guided(spec.mask, spec.clips, spec.model)
    if method := track_method(masks["guide"]):
        if method == "codec":
            require_vectors(videos, spec.mask.name)
        require_tracks(job.workplace.data[spec.data.dataset], videos, method)
    model = build_mae(spec)
    if spec.parent:
        load_weights(model, job.weights(spec.parent))
    model.to(job.device)
    grid = Grid(*spec.grid)

    def loss_of(batch: Batch) -> tuple[Tensor, Callable[[], dict[str, Tensor]]]:
        masked_BL, motion_BSHW = batch.masked_BL, batch.motion_BSHW
        assert masked_BL is not None
        loss = model(batch.frames_BTHWC, masked_BL, batch.weight_B)

        def numbers() -> dict[str, Tensor]:
            # Computed again, since targets would take memory until the step is logged.
            target_BMP = model.targets(batch.frames_BTHWC, masked_BL)
            # The loss of a model that predicts zeros.
            trivial = torch.linalg.vector_norm(target_BMP).square() / target_BMP.numel()
            if motion_BSHW is None:
                return {"trivial_loss": trivial}
            coverage = motion_coverage(masked_BL, motion_BSHW, grid)
            return {"trivial_loss": trivial, "coverage": coverage}

        return loss, numbers

    fit(job, model, videos, loss_of, augment=Augment(repeats=spec.repeats), **masks)
    if not collectives.is_main():
        return {}
    loss, trivial = last_losses(log_lines(job.folder))
    if text := learnt_nothing(loss, trivial):
        show(f"{spec.run_id}: {text}")
    return {"explained": 100 * (1 - loss / trivial)} if trivial else {}


def motion_coverage(masked_BL: Tensor, motion_BSHW: Tensor, grid: Grid) -> Tensor:
    """Return the share of a clip's motion under the mask, averaged over clips.

    For a clip without motion, it is the share of hidden tokens. All clips have the same weight, so
    the mean over equal micro-batches is the batch's mean.
    """
    motion_BSHW = torch.nn.functional.adaptive_avg_pool2d(motion_BSHW, (grid.height, grid.width))
    motion_BL = motion_BSHW.flatten(1).clamp(min=0)
    motion_BL = torch.where(motion_BL.sum(1, keepdim=True) > 0, motion_BL, 1.0)
    return ((motion_BL * masked_BL).sum(1) / motion_BL.sum(1)).mean()
