"""What weights are before training. What is not named here keeps PyTorch's default, as in V, the official VideoMAE code."""

from typing import Literal

from torch import nn

from mgm.models.timesformer import DividedBlock
from mgm.models.vit import Block


def init_pretraining(model: nn.Module) -> None:
    """V, modeling_pretrain.py: xavier uniform for the blocks' linear layers (qkv as one matrix), zero bias."""
    for block in model.modules():
        if isinstance(block, Block):
            for linear in block.modules():
                if isinstance(linear, nn.Linear):
                    nn.init.xavier_uniform_(linear.weight)
                    if linear.bias is not None:
                        nn.init.zeros_(linear.bias)
    _zero_temporal_fc(model)


def init_pixel_head(head: nn.Linear, init: Literal["xavier", "zero"]) -> None:
    """V: xavier uniform. From zero weights the first loss is that of predicting zeros, which spares short runs the way down to it."""
    nn.init.zeros_(head.weight) if init == "zero" else nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)


def init_from_scratch(model: nn.Module, std: float) -> None:
    """V, modeling_finetune.py: truncated normal (there 0.02) for every linear layer, zero bias."""
    for linear in model.modules():
        if isinstance(linear, nn.Linear):
            nn.init.trunc_normal_(linear.weight, std=std)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
    _zero_temporal_fc(model)


def _zero_temporal_fc(model: nn.Module) -> None:
    """TimeSformer: a block starts as a ViT's block over space alone."""
    for block in model.modules():
        if isinstance(block, DividedBlock):
            nn.init.zeros_(block.temporal_fc.weight)
