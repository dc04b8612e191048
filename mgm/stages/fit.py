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
from mgm.models import save_weights
from mgm.spec import Augment, Finetune, Pretrain
from mgm.stages.job import Job
from mgm.training import collectives, train
from mgm.video.loader import NO_AUGMENT, Batch, training_loader
from mgm.video.planes import frames_of
from mgm.video.ring import Waits

# Warn if bf16 takes this many times as long as float32. A CPU with bf16 units takes 0.3 to 0.6
# times as long, and a CPU that emulates bf16 takes 20 to 100 times as long.
SLOW = 1.5

# `inputs(step, batch, weight_B)` returns what the model's forward pass takes. Its arguments are the
# batch on the device, and the weights on the host, so that reading them does not wait for the
# device.
Inputs = Callable[[int, Batch, Tensor], Sequence[Tensor]]


def fit(
    job: Job[Pretrain] | Job[Finetune],
    model: nn.Module,
    videos: Sequence[Video],
    inputs: Inputs,
    augment: Augment,
    **masks: Any,
) -> None:
    """Train a model to the run's last step, and write weights.safetensors.

    `job.failed` gets the names of the videos that could not be read.

    Args:
        model: on the job's device. See `mgm.training.train`.
        augment, masks: see `training_loader`.
    """
    warn_of_slow_bf16(job)
    batches = partial(training_batches, job, videos, inputs, augment=augment, **masks)
    job.failed = train(job.spec, model, len(videos), batches, job.folder, job.options, show)
    if collectives.is_main():
        save_weights(model, job.folder / "weights.safetensors")


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
    inputs: Inputs,
    first_step: int,
    waits: Waits,
    **loading: Any,
) -> Generator[tuple[Sequence[Tensor], tuple[str, ...]], None, None]:
    """Yield, per step, what the model takes of this process's clips, and the unreadable videos.

    Args:
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
        yield inputs(step, own, batch.weight_B), failed
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
