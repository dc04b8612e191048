"""Train a classifier with labels, then test it with several views per video."""

from mgm import rng
from mgm.data.loader import Reading
from mgm.models import build_classifier, load_encoder, save_weights
from mgm.results.run import WEIGHTS
from mgm.spec import Finetune
from mgm.stages.evaluate import score
from mgm.stages.run import RunContext
from mgm.training import distributed
from mgm.training.loop import Batches, train
from mgm.training.mixing import mix


def finetune(spec: Finetune, run: RunContext) -> dict[str, float]:
    """Train from the parent's encoder, or from scratch. Return the test of the last weights."""
    videos, classes, augment = run.training_videos(spec), len(run.index.classes), spec.augment
    model = build_classifier(spec, classes)
    if spec.parent:
        load_encoder(model, run.weights(spec.parent))
    model.encoder.recompute = run.options.recompute
    model.to(run.device)
    rank = distributed.rank()

    def batches(first_step: int, reading: Reading) -> Batches:
        """Yield frames, targets and weights of each step's clips, after mixup and CutMix."""
        made = run.batches(spec, videos, first_step, reading, augment=augment)
        for step, (batch, host) in enumerate(made, first_step):
            frames_BTHWC, target = batch["frames_BTHWC"], batch["label_B"]
            if augment.mixup or augment.cutmix:
                draw = rng.generator(rng.clip_seed(spec.seed, step, -1 - rank), "augment")
                how = classes, augment.mixup, augment.cutmix, draw
                frames_BTHWC, target = mix(frames_BTHWC, target, host["weight_B"], *how)
            yield (frames_BTHWC, target, batch["weight_B"]), host

    names = [video.name for video in videos]
    run.failed = train(spec, model, names, batches, run.folder, run.options)
    if distributed.is_main():
        save_weights(model, run.folder / WEIGHTS)
    return score(spec, run, model)
