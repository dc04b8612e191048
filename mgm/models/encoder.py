"""The encoder of a ViT or a TimeSformer, its weights before training, and its attention maps."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgm.errors import UserError
from mgm.models.vit import (
    Block,
    DividedBlock,
    TubeletEmbedding,
    divided_attention,
    patchify,
    sinusoid_table,
    with_positions,
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
    """

    pos_embed: Tensor

    def __init__(
        self, grid: tuple[int, int, int], model: Model, drop_path: float = 0.0, norm: bool = True
    ):
        super().__init__()
        self.grid, self.tubelet, self.patch = grid, model.tubelet, model.patch
        self.divided = model.divided
        self.patch_embed = TubeletEmbedding(model.width, model.tubelet, model.patch)
        table_1LD = sinusoid_table(math.prod(grid), model.width)
        self.register_buffer("pos_embed", table_1LD, persistent=False)
        block = DividedBlock if self.divided else Block
        rates = torch.linspace(0, drop_path, model.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(block(model.width, model.heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(model.width, eps=1e-6) if norm else nn.Identity()

    def forward(self, patches_BLPC: Tensor, index_BV: Tensor | None = None) -> Tensor:
        """Encode patches.

        Args:
            patches_BLPC: uint8 pixels of all tokens, or of the tokens `index_BV`.
            index_BV: positions of the visible tokens on the grid; None if all are visible.

        Returns:
            (B, V, D).
        """
        positions = self.pos_embed if index_BV is None else self.pos_embed[0, index_BV]
        x_BVD = with_positions(self.patch_embed(patches_BLPC), positions)
        time_and_space = divided_attention(self.grid, index_BV) if self.divided else ()
        for block in self.blocks:
            x_BVD = block(x_BVD, *time_and_space)
        return self.norm(x_BVD)


# --- Initial weights. Other layers keep PyTorch's default, as in VideoMAE. ---


def init_pretraining(model: nn.Module) -> None:
    """Initialise the blocks' linear layers: Xavier uniform, zero bias.

    Queries, keys and values count as one matrix (VideoMAE: modeling_pretrain.py).
    """
    for block in model.modules():
        if isinstance(block, Block):
            _init_linear(block, nn.init.xavier_uniform_)


def init_pixel_head(head: nn.Linear, init: Literal["xavier", "zero"]) -> None:
    """Initialise the decoder's last layer.

    VideoMAE's is "xavier". With "zero", the first loss is that of predicting zeros, so a short run
    needs no steps to reach it.
    """
    nn.init.zeros_(head.weight) if init == "zero" else nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)


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
    """Return how much one token attends to every token (the paper's Figures 6 and 7).

    The map is the mean over the heads of the last block. All tokens are visible.

    Args:
        frames_BTHWC: uint8.
        query: slot, row and column of the token that attends.

    Returns:
        (B, S, H, W) float32 on the token grid. Each clip's values sum to 1.

    Raises:
        UserError: the encoder is a TimeSformer.
    """
    if encoder.divided:
        raise UserError("a TimeSformer has no attention over all tokens; choose a ViT's run")
    patches_BLPC = patchify(frames_BTHWC, encoder.tubelet, encoder.patch)
    x_BLD = with_positions(encoder.patch_embed(patches_BLPC), encoder.pos_embed)
    *blocks, last = encoder.blocks
    assert isinstance(last, Block)
    for block in blocks:
        x_BLD = block(x_BLD)
    _, rows, columns = encoder.grid
    token = (query[0] * rows + query[1]) * columns + query[2]
    return _attention_weights(last, x_BLD, token).mean(dim=1).unflatten(1, encoder.grid)


def _attention_weights(block: Block, x_BLD: Tensor, query: int) -> Tensor:
    """Return a block's attention weights of one query: (B, heads, L).

    The block's own forward pass does not keep them.
    """
    attention = block.attn
    width = attention.proj.in_features
    bias = torch.cat((attention.q_bias, torch.zeros_like(attention.q_bias)))
    qk = F.linear(block.norm1(x_BLD), attention.qkv.weight[: 2 * width], bias)
    q_BLND, k_BLND = qk.unflatten(-1, (2, attention.heads, -1)).float().unbind(2)
    scores_BNL = torch.einsum("bnd,blnd->bnl", q_BLND[:, query], k_BLND) / q_BLND.shape[-1] ** 0.5
    return scores_BNL.softmax(dim=-1)
