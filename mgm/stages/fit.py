"""Train the model of a run: its batches, the loop, and its weights at the end."""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from timeit import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgm.console import show
from mgm.data.index import Video
from mgm.errors import UserError
from mgm.models import save_weights
from mgm.spec import Augment, Finetune, Optim, Pretrain
from mgm.spec.compute import multiply_adds, passes
from mgm.stages.job import Job
from mgm.training import TrainingRun, collectives, train
from mgm.training.loop import Numbers
from mgm.video.loader import NO_AUGMENT, Batch, training_loader
from mgm.video.planes import frames_of
from mgm.video.ring import Waits

# Warn if bf16 takes this many times as long as float32. A CPU with bf16 units takes 0.3 to 0.6
# times as long, and a CPU that emulates bf16 takes 20 to 100 times as long.
SLOW = 1.5

# `change(step, batch, weight_B)` returns the batch that is trained on. Its arguments are the batch
# on the device, and the weights on the host, so that reading them does not wait for the device.
Change = Callable[[int, Batch, Tensor], Batch]


def fit(
    job: Job[Pretrain] | Job[Finetune],
    model: nn.Module,
    videos: Sequence[Video],
    loss_of: Callable[[Batch], tuple[Tensor, Numbers]],
    change: Change | None = None,
    layer_decay: float = 1.0,
    *,
    augment: Augment = NO_AUGMENT,
    **masks: Any,
) -> None:
    """Train a model to the run's last step, and write weights.safetensors.

    `job.failed` gets the names of the videos that could not be read.

    Args:
        model: on the job's device.
        loss_of: see `TrainingRun`.
        change: None: batches are not changed.
        augment, masks: see `training_loader`.
    """
    spec = job.spec
    warn_of_slow_bf16(job)
    run = TrainingRun(
        spec.run_id,
        model,
        spec.optim,
        steps_of(spec.optim, len(videos)),
        len(videos),
        partial(training_batches, job, videos, change, augment=augment, **masks),
        loss_of,
        layer_decay,
        augment.repeats,
        spec.seed,
        # A multiply-add is two operations.
        2.0 * passes(spec) * multiply_adds(spec),
    )
    job.failed = train(run, job.folder, job.options, show)
    if collectives.is_main():
        save_weights(model, job.folder / "weights.safetensors")


def steps_of(optim: Optim, videos: int) -> int:
    """Return the number of optimiser steps: `optim.steps`, or epochs of whole batches."""
    if optim.steps:
        return optim.steps
    if videos < optim.batch:
        raise UserError(
            f"optim.batch is {optim.batch}, but there are {videos} training videos; lower it"
        )
    return optim.epochs * (videos // optim.batch)


def warn_of_slow_bf16(job: Job[Pretrain] | Job[Finetune]) -> None:
    """Show a warning if the run trains in bf16 on a CPU that emulates it."""
    if (
        collectives.is_main()
        and job.device.type == "cpu"
        and job.spec.optim.precision == "bf16"
        and (slower := bf16_slowdown()) > SLOW
    ):
        show(
            f"{job.spec.run_id}: this CPU takes {slower:.0f} times as long in bf16 as in float32; "
            "set optim.precision to float32"
        )


@torch.inference_mode()
def bf16_slowdown() -> float:
    """Return how many times longer a product takes in bf16 than in float32 on this CPU."""
    x, weight = torch.ones(64, 256), torch.ones(256, 256)
    halves = x.bfloat16(), weight.bfloat16()
    # Other programs can only add time, so the shortest time of several is the best estimate.
    single = min(repeat(lambda: F.linear(x, weight), number=1, repeat=9))
    return min(repeat(lambda: F.linear(*halves), number=1, repeat=9)) / single


def training_batches(
    job: Job,
    videos: Sequence[Video],
    change: Change | None,
    first_step: int,
    waits: Waits,
    **loading: Any,
) -> Generator[tuple[Batch, tuple[str, ...]], None, None]:
    """Yield, per step, this process's batch on the device, and the videos that could not be read.

    Args:
        change: see `fit`.
        first_step: the step to start at.
        waits, loading: see `training_loader`.
    """
    spec = job.spec
    copy, copied = device_copy(job.device)
    loader = training_loader(
        videos,
        spec.clips,
        spec.seed,
        spec.optim.batch,
        first_step=first_step,
        workers=job.workers,
        cache_mb=job.options.cache_mb,
        share=(collectives.rank(), collectives.world_size()),
        planes=on_device(job, loading),
        pin=job.device.type == "cuda",
        waits=waits,
        **loading,
    )

    for step, batch in enumerate(loader, first_step):
        own, unread = copy(batch), batch.sample_B[batch.weight_B == 0].tolist()
        failed = tuple(dict.fromkeys(videos[sample].path for sample in unread))
        if planes := own.planes:
            own = own._replace(frames_BTHWC=frames_of(spec.clips.size, *planes))
        yield change(step, own, batch.weight_B) if change else own, failed
        # The loader writes the next batches into the same memory.
        copied()


def on_device(job: Job, loading: Mapping[str, Any]) -> bool:
    """Return whether the device converts and scales the pixels: a GPU, where nothing else does."""
    augment, clips = loading.get("augment", NO_AUGMENT), job.spec.clips
    changed = augment.rand or augment.erasing or loading.get("guide") == "difference"
    plain = clips.crop == "multiscale" and not (changed or job.options.cache_mb)
    return plain and job.device.type == "cuda"


def device_copy(
    device: torch.device,
) -> tuple[Callable[[Batch], Batch], Callable[[], None]]:
    """Return a function that copies a batch to the device, and one that waits until it is copied.

    On a GPU it copies from pinned memory on a separate stream, during the step before.
    """
    if device.type != "cuda":
        return lambda batch: batch.map(lambda x: x.to(device)), lambda: None
    copying = torch.cuda.Stream(device)

    def copy(batch: Batch) -> Batch:
        with torch.cuda.stream(copying):
            copied = batch.map(lambda x: x.to(device, non_blocking=True))
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for tensor in copied:
            if isinstance(tensor, torch.Tensor):
                # Otherwise its memory could be reused while the step reads it.
                tensor.record_stream(computing)
        return copied

    return copy, copying.synchronize
