"""`mgm finetune`: supervised training of all weights, then the multi-view test."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mgm.jobs.common import Job, show, training_batches
from mgm.jobs.evaluate import test
from mgm.jobs.pretrain import steps_of
from mgm.models import build_classifier, load_encoder, save_weights
from mgm.spec import Finetune
from mgm.training import Training, train
from mgm.video import Batch


def finetune(job: Job[Finetune]) -> dict[str, Any]:
    """Train from the parent's encoder (or from scratch), test the last step's weights, return top-1."""
    spec, videos = job.spec, job.training_videos()
    model = build_classifier(spec, len(job.index.classes))
    if spec.parent:
        load_encoder(model, job.weights(spec.parent))
    model.to(job.device)
    steps = steps_of(spec.optim, len(videos))

    def loss_of(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = model(batch.frames_BTHWC)
        loss_B = F.cross_entropy(logits.float(), batch.label_B, label_smoothing=spec.label_smoothing, reduction="none")
        accuracy = (logits.argmax(dim=1) == batch.label_B).float().mean()
        return (loss_B * batch.weight_B).mean(), {"train_top1": 100 * accuracy.detach()}

    run = Training(
        spec.run_id, model, spec.optim, steps, len(videos), partial(training_batches, job, videos, False), loss_of, spec.layer_decay
    )
    job.failed = train(run, job.folder, checkpoint_s=job.execution.checkpoint_s, show=show)
    save_weights(model, job.folder / "weights.safetensors")
    model.eval()
    with torch.inference_mode():
        return test(job, lambda frames_BTHWC: model(frames_BTHWC).float())
