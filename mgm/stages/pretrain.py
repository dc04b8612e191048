"""Train a masked autoencoder on the training split, and write its weights."""

from mgm.data.loader import Reading
from mgm.masking import Grid
from mgm.models import build_mae, load_weights, save_weights
from mgm.results.run import WEIGHTS
from mgm.spec import Augment, Pretrain
from mgm.stages.run import RunContext
from mgm.training import distributed
from mgm.training.loop import Batches, train


def pretrain(spec: Pretrain, run: RunContext) -> dict[str, float]:
    """Train from the parent's weights, or from scratch, and write weights.safetensors."""
    videos = run.training_videos(spec)
    model = build_mae(spec)
    if spec.parent:
        load_weights(model, run.weights(spec.parent))
    model.encoder.recompute = run.options.recompute
    model.to(run.device)
    masks = {"mask": spec.mask, "grid": Grid(*spec.grid), "tubelet": spec.model.tubelet}

    def batches(first_step: int, reading: Reading) -> Batches:
        """Yield frames, masks and weights of each step's clips."""
        augment = Augment(repeats=spec.repeats)
        for batch, host in run.batches(spec, videos, first_step, reading, augment=augment, **masks):
            yield (batch["frames_BTHWC"], batch["masked_BL"], batch["weight_B"]), host

    names = [video.name for video in videos]
    run.failed = train(spec, model, names, batches, run.folder, run.options)
    if distributed.is_main():
        save_weights(model, run.folder / WEIGHTS)
    return {}
