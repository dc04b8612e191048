"""Classifiers and frozen features of an encoder's tokens."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgm.models.encoder import Encoder, init_from_scratch, init_pretraining
from mgm.models.vit import patchify
from mgm.models.weights import load_encoder, read_weights
from mgm.spec import Finetune, Probe

# Rows and columns of the parts that a probe's `pool` keeps, unless it is "mean".
GRID = 4


class Classifier(nn.Module):
    """An encoder, a pooling of its tokens and a linear layer, with the loss of classification.

    Head "linear": VideoMAE's fine-tuning model. Its norm `fc_norm` comes after the mean over tokens
    (MCG-NJU/VideoMAE, modeling_finetune.py). Head "attentive": V-JEPA's attentive probe, a frozen
    encoder and a cross-attention block (facebookresearch/jepa at a0517b4,
    evals/video_classification_frozen).
    """

    def __init__(self, spec: Finetune, classes: int):
        super().__init__()
        self.attentive, width = spec.head == "attentive", spec.model.width
        self.label_smoothing = spec.label_smoothing
        if self.attentive:
            self.encoder = Encoder(spec.grid, spec.model)
            # Random weights are the initial weights of a pretraining run.
            init_pretraining(self.encoder)
            self.encoder.requires_grad_(False)
            self.pooler = AttentivePooler(width, spec.model.heads)
            self.head = nn.Linear(width, classes)
            return
        self.encoder = Encoder(spec.grid, spec.model, spec.drop_path, norm=False)
        self.fc_norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(spec.head_dropout)
        self.head = nn.Linear(width, classes)
        init_from_scratch(self, spec.init_std)
        # A head near zero keeps the first gradients of the encoder small, as in VideoMAE.
        with torch.no_grad():
            self.head.weight.mul_(0.001)
            self.head.bias.mul_(0.001)

    def forward(
        self, frames_BTHWC: Tensor, target: Tensor | None = None, weight_B: Tensor | None = None
    ) -> Any:
        """Return the logits (B, classes), or the loss if there are targets.

        Args:
            frames_BTHWC: uint8.
            target: classes (B) int64, or the share of each class (B, classes).
            weight_B: weights of the clips' losses.

        Returns:
            The logits; or the mean cross-entropy, and the training clips' accuracy for the log.
        """
        x_BLD = self.encoder(patchify(frames_BTHWC, self.encoder.tubelet, self.encoder.patch))
        if self.attentive:
            logits_BC = self.head(self.pooler(x_BLD))
        else:
            logits_BC = self.head(self.dropout(self.fc_norm(x_BLD.mean(dim=1))))
        if target is None or weight_B is None:
            return logits_BC
        loss_B = F.cross_entropy(
            logits_BC.float(), target, label_smoothing=self.label_smoothing, reduction="none"
        )
        # A mixed clip has the label of the larger share.
        label_B = target if target.ndim == 1 else target.argmax(dim=1)
        right_B = logits_BC.argmax(dim=1) == label_B
        return (loss_B * weight_B).mean(), {"train_top1": 100 * right_B.float().mean()}


class AttentivePooler(nn.Module):
    """V-JEPA's cross-attention block with one learned query.

    With a single query q, keys and values need not be computed per token. A head's scores are
    q' Wk x = (Wk' q)' x, and its output is Wv (sum of a x). Both need one D-vector per head. This
    takes 2 L D H multiply-adds per clip instead of 2 L D D. V-JEPA's block defines an output
    projection and does not apply it.

    Source: facebookresearch/jepa, src/models/attentive_pooler.py.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        # Weight decay applies to it, since V-JEPA's has more than one axis.
        self.query = nn.Parameter(torch.empty(1, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.v = nn.Linear(width, width), nn.Linear(width, width)
        # A bias of keys adds the same number to all scores of a head, so the softmax removes it.
        self.k = nn.Linear(width, width, bias=False)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.trunc_normal_(self.query, std=0.02)
        init_from_scratch(self, 0.02)
        # V-JEPA rescales the last layer of the branch.
        with torch.no_grad():
            self.fc2.weight.div_(math.sqrt(2.0))

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return (B, D) of tokens."""
        width = x_BLD.shape[2]
        x_BLD = self.norm1(x_BLD)
        q_HE = self.q(self.query).view(self.heads, -1) / math.sqrt(width // self.heads)
        key_HD = torch.einsum("he,hed->hd", q_HE, self.k.weight.view(self.heads, -1, width))
        weight_BHL = F.linear(x_BLD, key_HD).transpose(1, 2).softmax(dim=2)
        seen_BHD = weight_BHL.to(x_BLD.dtype) @ x_BLD
        value_HED = self.v.weight.view(self.heads, -1, width)
        value_BD = torch.einsum("bhd,hed->bhe", seen_BHD, value_HED).flatten(1) + self.v.bias
        x_BD = self.query + value_BD
        return x_BD + self.fc2(F.gelu(self.fc1(self.norm2(x_BD))))


class FrozenEncoder(nn.Module):
    """The frozen encoder of a probe, which returns pooled tokens.

    A fine-tuned encoder has its norm after pooling, others before.
    """

    def __init__(self, spec: Probe, finetuned: bool = False):
        super().__init__()
        self.encoder = Encoder(spec.grid, spec.model, norm=not finetuned)
        self.fc_norm = nn.LayerNorm(spec.model.width, eps=1e-6) if finetuned else nn.Identity()
        self.pool = spec.pool
        # Random weights are the initial weights of a pretraining run.
        init_pretraining(self)
        self.requires_grad_(False).eval()

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        """Return features of uint8 frames.

        Returns:
            `pool` "mean": the mean of all tokens (B, D). "grid": the means of each slot's tokens
            over `GRID` x `GRID` parts of the frame, (B, S * parts * D). "change": each of these
            minus its mean over the slots, so that a scene that does not change adds little.
        """
        x_BLD = self.encoder(patchify(frames_BTHWC, self.encoder.tubelet, self.encoder.patch))
        if self.pool == "mean":
            return self.fc_norm(x_BLD.mean(dim=1))
        _, rows, columns = self.encoder.grid
        x_BDHW = x_BLD.view(-1, rows, columns, x_BLD.shape[2]).permute(0, 3, 1, 2)
        x_BDHW = F.adaptive_avg_pool2d(x_BDHW, (min(GRID, rows), min(GRID, columns)))
        x_BHWD = self.fc_norm(x_BDHW.permute(0, 2, 3, 1))
        x_BSN = x_BHWD.reshape(len(frames_BTHWC), self.encoder.grid[0], -1)
        if self.pool == "change":
            x_BSN = x_BSN - x_BSN.mean(dim=1, keepdim=True)
        return x_BSN.flatten(1)


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
    tensors = read_weights(weights)
    model = FrozenEncoder(spec, finetuned="fc_norm.weight" in tensors)
    load_encoder(model, weights, tensors)
    return model
