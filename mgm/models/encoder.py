"""The encoder of a ViT or a TimeSformer, its weights before training, and its attention maps."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgm.models.vit import (
    Block,
    DividedBlock,
    TubeletEmbedding,
    divided_attention,
    patchify,
    run_block,
    sinusoid_table,
)
from mgm.spec import Model


class Encoder(nn.Module):
    """Tubelet embedding, positions, blocks and a final norm.

    The blocks of a ViT attend over all tokens. Those of a TimeSformer attend over time, then over
    space.

    Args:
        grid: slots, rows and columns of the clips' tokens.
        model: the sizes.
        drop_path: probability that a clip skips a branch of the last block. It is smaller in
            earlier blocks, in proportion to their depth, as in VideoMAE.
        norm: add the final norm. False for a classifier, which has its own.

    Attributes:
        recompute: compute the blocks' activations again in the backward pass, to save memory. The
            decoder of a masked autoencoder follows it. A training loop sets it.
    """

    pos_embed: Tensor

    def __init__(
        self, grid: tuple[int, int, int], model: Model, drop_path: float = 0.0, norm: bool = True
    ):
        super().__init__()
        self.grid, self.tubelet, self.patch = grid, model.tubelet, model.patch
        self.divided, self.recompute = model.divided, False
        self.patch_embed = TubeletEmbedding(model.width, model.tubelet, model.patch)
        table_1LD = sinusoid_table(math.prod(grid), model.width)
        self.register_buffer("pos_embed", table_1LD, persistent=False)
        block = DividedBlock if self.divided else Block
        rates = torch.linspace(0, drop_path, model.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(block(model.width, model.heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(model.width, eps=1e-6) if norm else nn.Identity()

    def forward(self, patches_BLPC: Tensor, index_BV: Tensor | None = None) -> Tensor:
        """Encode uint8 pixels of all tokens, or of the tokens `index_BV` of the grid: (B, V, D)."""
        positions = self.pos_embed if index_BV is None else self.pos_embed[0, index_BV]
        x_BVD = self.patch_embed(patches_BLPC)
        x_BVD = x_BVD + positions.to(x_BVD.dtype)
        time_and_space = divided_attention(self.grid, index_BV) if self.divided else ()
        for block in self.blocks:
            x_BVD = run_block(block, x_BVD, *time_and_space, recompute=self.recompute)
        return self.norm(x_BVD)


# --- Initial weights. Other layers keep PyTorch's default, as in VideoMAE. ---


def init_pretraining(model: nn.Module) -> None:
    """Initialise the blocks' linear layers: Xavier uniform, zero bias.

    Queries, keys and values count as one matrix (VideoMAE: modeling_pretrain.py).
    """
    for block in model.modules():
        if isinstance(block, Block):
            _init_linear(block, nn.init.xavier_uniform_)


def init_from_scratch(model: nn.Module, std: float) -> None:
    """Initialise every linear layer: truncated normal, zero bias.

    VideoMAE's standard deviation is 0.02 (modeling_finetune.py).
    """
    _init_linear(model, partial(nn.init.trunc_normal_, std=std))


def _init_linear(model: nn.Module, draw: Callable[[Tensor], object]) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    # A TimeSformer starts as a ViT that attends only over space.
    for block in model.modules():
        if isinstance(block, DividedBlock):
            nn.init.zeros_(block.temporal_fc.weight)


# --- Attention maps ---


def attention_map(encoder: Encoder, frames_BTHWC: Tensor, query: tuple[int, int, int]) -> Tensor:
    """Return how much one token of a ViT attends to every token (the paper's Figures 6 and 7).

    The map is the mean over the heads of the last block. All tokens are visible.

    Args:
        frames_BTHWC: uint8.
        query: slot, row and column of the token that attends.

    Returns:
        (B, S, H, W) float32 on the token grid. Each clip's values sum to 1.
    """
    patches_BLPC = patchify(frames_BTHWC, encoder.tubelet, encoder.patch)
    x_BLD = encoder.patch_embed(patches_BLPC)
    x_BLD = x_BLD + encoder.pos_embed.to(x_BLD.dtype)
    blocks: list[Any] = [*encoder.blocks]
    *before, last = blocks
    for block in before:
        x_BLD = block(x_BLD)
    _, rows, columns = encoder.grid
    token = (query[0] * rows + query[1]) * columns + query[2]
    # The block's own forward pass does not keep its weights.
    attention = last.attn
    x_BLD, width = last.norm1(x_BLD), x_BLD.shape[2]
    of_queries, of_keys, _ = attention.qkv.weight.split(width)
    q_BD, heads = F.linear(x_BLD[:, token], of_queries, attention.q_bias), attention.heads
    q_BNE = q_BD.unflatten(1, (heads, -1))
    k_BLNE = F.linear(x_BLD, of_keys).unflatten(2, (heads, -1))
    score_BNL = torch.einsum("bne,blne->bnl", q_BNE, k_BLNE) / q_BNE.shape[2] ** 0.5
    return score_BNL.softmax(dim=2).mean(dim=1).unflatten(1, encoder.grid)
