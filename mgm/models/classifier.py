"""Classifiers and frozen features: the encoder, the mean of its tokens, and a norm."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgm.models.encoder import Encoder, init_from_scratch, init_pretraining
from mgm.models.vit import patchify
from mgm.models.weights import is_classifier, load_encoder, read_weights
from mgm.spec import Finetune, Probe


class Classifier(nn.Module):
    """VideoMAE's fine-tuning model. Its norm `fc_norm` comes after the mean over tokens."""

    def __init__(self, spec: Finetune, classes: int):
        super().__init__()
        self.encoder = Encoder(spec.grid, spec.model, spec.drop_path, norm=False)
        self.fc_norm = nn.LayerNorm(spec.model.width, eps=1e-6)
        self.dropout = nn.Dropout(spec.head_dropout)
        self.head = nn.Linear(spec.model.width, classes)
        self.label_smoothing = spec.label_smoothing
        init_from_scratch(self, spec.init_std)
        # A head near zero keeps the first gradients of the encoder small, as in VideoMAE.
        with torch.no_grad():
            self.head.weight.mul_(0.001)
            self.head.bias.mul_(0.001)

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        """Return the logits (B, classes) of uint8 frames."""
        x_BLD = self.encoder(patchify(frames_BTHWC, self.encoder.tubelet, self.encoder.patch))
        return self.head(self.dropout(self.fc_norm(x_BLD.mean(dim=1))))

    def loss(self, frames_BTHWC: Tensor, target: Tensor, weight_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy, and each clip's predicted class.

        Args:
            target: classes (B) int64, or the share of each class (B, classes).
            weight_B: weights of the clips' losses.
        """
        logits = self(frames_BTHWC)
        loss_B = F.cross_entropy(
            logits.float(), target, label_smoothing=self.label_smoothing, reduction="none"
        )
        return (loss_B * weight_B).mean(), logits.argmax(dim=1)


class FrozenEncoder(nn.Module):
    """The frozen encoder of a probe. Its features are the mean of the tokens after the final norm.

    A fine-tuned encoder has its norm after the mean.
    """

    def __init__(self, spec: Probe, finetuned: bool = False):
        super().__init__()
        self.encoder = Encoder(spec.grid, spec.model, norm=not finetuned)
        self.fc_norm = nn.LayerNorm(spec.model.width, eps=1e-6) if finetuned else nn.Identity()
        # Random weights are the initial weights of a pretraining run.
        init_pretraining(self)
        self.requires_grad_(False).eval()

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        """Return (B, D) features of uint8 frames."""
        return self.pooled(self.tokens(frames_BTHWC))

    def tokens(self, frames_BTHWC: Tensor) -> Tensor:
        """Return the (B, L, D) tokens of uint8 frames, in (slot, row, column) order."""
        return self.encoder(patchify(frames_BTHWC, self.encoder.tubelet, self.encoder.patch))

    def pooled(self, x_BLD: Tensor) -> Tensor:
        """Return (B, D) features of tokens."""
        return self.fc_norm(x_BLD.mean(dim=1))


def build_classifier(spec: Finetune, classes: int) -> Classifier:
    """Return a fine-tuning run's model, initialised from the run's seed."""
    torch.manual_seed(spec.seed)
    return Classifier(spec, classes)


def build_frozen_encoder(spec: Probe, weights: Path | None = None) -> FrozenEncoder:
    """Return a probe's model, initialised from the run's seed.

    Args:
        weights: the file to load the encoder from. None keeps random weights.
    """
    torch.manual_seed(spec.seed)
    if weights is None:
        return FrozenEncoder(spec)
    model = FrozenEncoder(spec, finetuned=is_classifier(read_weights(weights)))
    load_encoder(model, weights)
    return model
