"""Train a masked autoencoder on the training split, and write its weights."""

from collections.abc import Generator, Sequence

from torch import Tensor

from mgm.data.loader import on_device, training_batches
from mgm.masking import Grid
from mgm.models import build_mae, load_weights, save_weights
from mgm.spec import Augment, Pretrain
from mgm.stages.run import RunContext
from mgm.training import distributed
from mgm.training.loop import train


def pretrain(spec: Pretrain, run: RunContext) -> dict[str, float]:
    """Train from the parent's weights, or from scratch, and write weights.safetensors."""
    videos = run.training_videos(spec)
    model = build_mae(spec)
    if spec.parent:
        load_weights(model, run.weights(spec.parent))
    model.encoder.recompute = run.options.recompute
    model.to(run.device)
    gpu = run.device.type == "cuda"

    def batches(
        first_step: int,
    ) -> Generator[tuple[Sequence[Tensor], dict[str, Tensor]], None, None]:
        """Yield frames, masks and weights of each step's clips."""
        loader = training_batches(
            videos,
            spec.clips,
            spec.seed,
            spec.optim.batch,
            first_step=first_step,
            mask=spec.mask,
            grid=Grid(*spec.grid),
            tubelet=spec.model.tubelet,
            augment=Augment(repeats=spec.repeats),
            share=(distributed.rank(), distributed.world_size()),
            workers=run.workers,
            # A GPU converts and scales pixels.
            planes=gpu and spec.clips.crop == "multiscale",
            pin=gpu,
        )
        for batch, host in on_device(loader, spec.clips.size, run.device):
            yield (batch["frames_BTHWC"], batch["masked_BL"], batch["weight_B"]), host

    names = [video.name for video in videos]
    run.failed = train(spec, model, names, batches, run.folder, run.options)
    if distributed.is_main():
        save_weights(model, run.folder / "weights.safetensors")
    return {}
