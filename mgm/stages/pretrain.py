"""`mgm pretrain`: train a masked autoencoder on the training split; write its weights."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mgm.console import show
from mgm.data.index import require_vectors
from mgm.errors import UserError
from mgm.masking import MASKS, Grid, make_mask, predicted
from mgm.models import (
    build_mae,
    load_weights,
    motion_of_tokens,
    reconstruction_loss,
    save_weights,
)
from mgm.models.encoder import freeze
from mgm.models.kernels import bf16_slowdown
from mgm.results.result import log_lines
from mgm.spec import Optim, Pretrain
from mgm.stages.flow import require_flow
from mgm.stages.job import Job, motion_of, training_batches, unchanged
from mgm.training import TrainingRun, collectives, train
from mgm.video import Batch, BatchOptions

SLOW = 1.5  # times; a CPU with bf16 units has 0.3 to 0.6, one that emulates it 20 to 100


def pretrain(job: Job[Pretrain]) -> dict[str, Any]:
    """Train from the parent's weights, or from scratch, and write weights.safetensors.

    Returns:
        No metrics: there is nothing to test yet.
    """
    spec, videos = job.spec, job.training_videos()
    predicts_motion = spec.target == "motion"
    guided = MASKS[spec.mask.name].guided
    guidance = spec.mask.guidance if guided or predicts_motion else None
    if guidance == "vectors" or guidance == "shuffled":
        require_vectors(videos, spec.mask.name + " with target motion" * predicts_motion)
    elif guidance:
        require_flow(job.workplace.data[spec.data.dataset], videos, guidance)
    model = build_mae(spec)
    if spec.parent:
        load_weights(model, job.weights(spec.parent))
        if spec.freeze_blocks:
            freeze(model.encoder, spec.freeze_blocks)
    model.to(job.device)
    grid = Grid(*spec.grid)
    wanted = BatchOptions(
        guidance,
        spec.mask.distance,
        spec.mask.compensate,
        directions=MASKS[spec.mask.name].carried or predicts_motion,
    )
    steps = steps_of(spec.optim, len(videos))

    def loss_of(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        masked_BL = make_mask(spec.mask, grid, motion_of(batch), batch.seed_B)
        second_BL = (
            None if spec.mask.predicts == "all" else predicted(masked_BL, grid, batch.seed_B)
        )
        motion_BL2 = None
        if predicts_motion:
            assert batch.displacement_BSHW2 is not None
            motion_BL2 = motion_of_tokens(batch.displacement_BSHW2, spec.grid)
        predicted_BMP, target_BMP = model(batch.frames_BTHWC, masked_BL, second_BL, motion_BL2)
        loss = reconstruction_loss(predicted_BMP, target_BMP, batch.weight_B)
        # The loss of predicting zeros.
        trivial = torch.linalg.vector_norm(target_BMP).square() / target_BMP.numel()
        extra = {"trivial_loss": trivial}
        if guidance:
            extra["coverage"] = motion_coverage(masked_BL, batch.motion_BSHW, grid)
        return loss, extra

    run = TrainingRun(
        spec.run_id,
        model,
        spec.optim,
        steps,
        len(videos),
        partial(training_batches, job, videos, wanted, unchanged),
        loss_of,
        seed=spec.seed,
    )
    fit(job, run)
    if collectives.is_main() and (text := learnt_nothing(log_lines(job.folder))):
        show(f"{spec.run_id}: {text}")
    return {}


def fit(job: Job, run: TrainingRun) -> None:
    """Train, and write weights.safetensors."""
    if (
        collectives.is_main()
        and job.device.type == "cpu"
        and run.optim.precision == "bf16"
        and (slower := bf16_slowdown()) > SLOW
    ):
        show(
            f"{run.run_id}: this CPU takes {slower:.0f} times as long in bf16 as in float32; set "
            "optim.precision to float32"
        )
    job.failed = train(run, job.folder, job.options, show)
    if collectives.is_main():
        save_weights(run.model, job.folder / "weights.safetensors")


def learnt_nothing(log: Sequence[Mapping[str, float]]) -> str:
    """Return a warning if the run's loss is that of predicting zeros; empty otherwise.

    The mean over the last tenth of logged losses counts, within 1 %. Small models on flat patches
    fall to that loss within some steps and may stay there.
    """
    last = [line for line in log if "trivial_loss" in line][-max(len(log) // 10, 1) :]
    if not last:
        return ""  # trained by a version that did not log it
    loss, trivial = (
        sum(line[name] for line in last) / len(last) for name in ("loss", "trivial_loss")
    )
    if loss < 0.99 * trivial:
        return ""
    return (
        f"the loss, {loss:.3g}, is that of predicting zeros ({trivial:.3g}): it has learnt nothing "
        "yet; train longer, or raise std_floor"
    )


def steps_of(optim: Optim, videos: int) -> int:
    """Return a run's optimiser steps: `optim.steps`, or epochs of whole batches over the videos.

    Raises:
        UserError: a batch is larger than the training split.
    """
    if optim.steps:
        return optim.steps
    if videos < optim.batch:
        raise UserError(
            f"optim.batch is {optim.batch}, but there are {videos} training videos; lower it, or "
            "set optim.steps"
        )
    return optim.epochs * (videos // optim.batch)


def motion_coverage(masked_BL: Tensor, motion_BSHW: Tensor, grid: Grid) -> Tensor:
    """Return the share of a clip's motion that lies under the mask, averaged over clips.

    A clip without motion counts with the share of tokens that are hidden. Every clip counts alike,
    so that equal shares of a batch have the batch's mean.
    """
    motion_BSHW = torch.nn.functional.adaptive_avg_pool2d(motion_BSHW, (grid.height, grid.width))
    motion_BL = motion_BSHW.flatten(1).clamp(min=0)
    motion_BL = torch.where(motion_BL.sum(1, keepdim=True) > 0, motion_BL, 1.0)
    return ((motion_BL * masked_BL).sum(1) / motion_BL.sum(1)).mean()
