"""What weights are before training.

What is not named here keeps PyTorch's default, as in V, the official VideoMAE code.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn

from mgm.models.timesformer import DividedBlock
from mgm.models.vit import Block


def init_pretraining(model: nn.Module) -> None:
    """V, modeling_pretrain.py:

    xavier uniform for the blocks' linear layers (qkv as one matrix), zero bias.
    """
    for block in model.modules():
        if isinstance(block, Block):
            _init_linear(block, nn.init.xavier_uniform_)


def init_pixel_head(head: nn.Linear, init: Literal["xavier", "zero"]) -> None:
    """V:

    xavier uniform. From zero weights the first loss is that of predicting zeros, which spares short
    runs the way down to it.
    """
    nn.init.zeros_(head.weight) if init == "zero" else nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)


def init_from_scratch(model: nn.Module, std: float) -> None:
    """V, modeling_finetune.py: truncated normal (there 0.02) for every linear layer, zero bias."""
    _init_linear(model, partial(nn.init.trunc_normal_, std=std))


def _init_linear(model: nn.Module, draw: Callable[[Tensor], object]) -> None:
    modules = list(model.modules())
    for linear in (module for module in modules if isinstance(module, nn.Linear)):
        draw(linear.weight)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
    for block in (
        module for module in modules if isinstance(module, DividedBlock)
    ):  # starts as a ViT's block over space alone
        nn.init.zeros_(block.temporal_fc.weight)
