"""The parts of vision transformers: tubelet embedding, fixed positions, and pre-norm blocks.

There are VideoMAE's blocks, and TimeSformer's blocks with attention divided over time and space.
Parameters have the names of the official codes, so that their weights can be loaded.

Sources: MCG-NJU/VideoMAE, modeling_pretrain.py and modeling_finetune.py; Bertasius et al., 2021.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def sinusoid_table(tokens: int, width: int) -> Tensor:
    """Return fixed 1-D positions: (1, tokens, width) float32.

    Even channels are sines, odd channels are cosines.

    Source: MCG-NJU/VideoMAE, modeling_finetune.py, get_sinusoid_encoding_table.
    """
    channel_D = torch.arange(width, dtype=torch.float64)
    token_L1 = torch.arange(tokens, dtype=torch.float64)[:, None]
    angle_LD = token_L1 / 10000 ** (2 * (channel_D // 2) / width)
    angle_LD[:, 0::2].sin_()
    angle_LD[:, 1::2].cos_()
    return angle_LD.float()[None]


def patchify(frames_BTHWC: Tensor, tubelet: int, patch: int) -> Tensor:
    """Return the pixels of each token: (B, L, tubelet * patch * patch, C).

    Tokens are in (slot, row, column) order, their pixels in (t, y, x) order.
    """
    B, T, H, W, C = frames_BTHWC.shape
    S, rows, columns = T // tubelet, H // patch, W // patch
    x = frames_BTHWC.reshape(B, S, tubelet, rows, patch, columns, patch, C)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(B, S * rows * columns, -1, C)


def gather_tokens(x_BLD: Tensor, index_BN: Tensor) -> Tensor:
    """Return the tokens `index_BN` of each clip. Trailing dimensions are kept."""
    return x_BLD[torch.arange(len(x_BLD), device=x_BLD.device)[:, None], index_BN]


class TubeletEmbedding(nn.Module):
    """A 3-D convolution with stride = kernel size, as one matrix product over the given tokens."""

    scale: Tensor
    shift: Tensor

    def __init__(self, width: int, tubelet: int, patch: int):
        super().__init__()
        sides = tubelet, patch, patch
        self.proj = nn.Conv3d(3, width, kernel_size=sides, stride=sides)
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, patches_BLPC: Tensor) -> Tensor:
        """Embed uint8 pixels from `patchify`: (B, L, D)."""
        x_BLPC = torch.addcmul(self.shift, patches_BLPC.to(self.scale.dtype), self.scale)
        # Reorder the kernel like the pixels of a patch: (t, y, x, channel).
        weight = self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)
        return F.linear(x_BLPC.flatten(2), weight, self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention. Queries and values have biases, keys have none."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x_BVD: Tensor, attn_mask_BVV: Tensor | None = None, last: int = 0) -> Tensor:
        """Attend over the tokens.

        Args:
            attn_mask_BVV: True where a query sees a key. None: everywhere.
            last: compute only the outputs of the last `last` tokens. 0: of all tokens.
        """
        width = x_BVD.shape[-1]
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        if last:
            of_queries, of_others = self.qkv.weight.split((width, 2 * width))
            queries = F.linear(x_BVD[:, -last:], of_queries, self.q_bias)
            parts = queries, *F.linear(x_BVD, of_others, bias[width:]).chunk(2, dim=-1)
        else:
            parts = F.linear(x_BVD, self.qkv.weight, bias).chunk(3, dim=-1)
        q_BNVD, k_BNVD, v_BNVD = (
            x_BVD.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x_BVD in parts
        )
        mask_B1VV = None if attn_mask_BVV is None else attn_mask_BVV[:, None]
        out_BNVD = F.scaled_dot_product_attention(q_BNVD, k_BNVD, v_BNVD, attn_mask=mask_B1VV)
        return self.proj(out_BNVD.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block.

    In training, each clip skips each branch with probability `drop_path`.
    """

    def __init__(self, width: int, heads: int, drop_path: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        fc1, fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(fc1=fc1, gelu=nn.GELU(), fc2=fc2))
        self.drop_path = drop_path

    def forward(self, x_BLD: Tensor, last: int = 0) -> Tensor:
        """Return all tokens (B, L, D), or only the last `last` tokens. These attend over all."""
        # With `last` 0, the slice selects all tokens.
        x_BLD = x_BLD[:, -last:] + self._keep(self.attn(self.norm1(x_BLD), last=last))
        return x_BLD + self._keep(self.mlp(self.norm2(x_BLD)))

    def _keep(self, branch_BLD: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch_BLD
        keep = 1 - self.drop_path
        return branch_BLD * branch_BLD.new_empty(len(branch_BLD), 1, 1).bernoulli_(keep) / keep


def run_block(block: nn.Module, x_BLD: Tensor, *arguments: Any, recompute: bool = False) -> Tensor:
    """Apply a block.

    Args:
        recompute: keep only the block's input, and compute its activations again in the backward
            pass. This saves memory. The result is the same.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, x_BLD, *arguments, use_reentrant=False)
    return block(x_BLD, *arguments)


# --- TimeSformer ---
# Attention over time is among the visible tokens of a position. Attention over space is among the
# visible tokens of a slot. Their number varies between positions, and between slots if the mask
# counts over the whole clip. There is no class token. Positions are the ViT's fixed 1-D table over
# all tokens.
# TimeSformer learns one table for positions in space and one for slots instead.

# Applies an attention to x_BVD, over time or over space.
AxisAttention = Callable[[Attention, Tensor], Tensor]


class DividedBlock(Block):
    """Attention over time with its own norm and last linear layer, then a ViT's block over space.

    The last linear layer starts at zero.
    """

    def __init__(self, width: int, heads: int, drop_path: float = 0.0):
        super().__init__(width, heads, drop_path)
        self.temporal_norm1 = nn.LayerNorm(width, eps=1e-6)
        self.temporal_attn = Attention(width, heads)
        self.temporal_fc = nn.Linear(width, width)

    def forward(  # type: ignore[override]
        self, x_BVD: Tensor, over_time: AxisAttention, over_space: AxisAttention
    ) -> Tensor:
        """Return the tokens (B, V, D). `divided_attention` returns the two other arguments."""
        step_BVD = self.temporal_fc(over_time(self.temporal_attn, self.temporal_norm1(x_BVD)))
        x_BVD = x_BVD + self._keep(step_BVD)
        x_BVD = x_BVD + self._keep(over_space(self.attn, self.norm1(x_BVD)))
        return x_BVD + self._keep(self.mlp(self.norm2(x_BVD)))


def divided_attention(
    grid: tuple[int, int, int], index_BV: Tensor | None = None
) -> tuple[AxisAttention, AxisAttention]:
    """Return attention over time and attention over space.

    If all tokens are visible, their groups have equal sizes, so attention is a batch of small
    attentions. Otherwise it is one attention over all visible tokens, masked between groups. This
    needs no sorting and no padding. It computes V x V scores twice, and a ViT computes them once.
    They are 11 % of the multiply-adds of an encoder of ViT-B's size at mask ratio 0.75, and 5 % at
    0.9 (`mgm.spec.compute`).

    Args:
        index_BV: positions of the visible tokens on the grid; None if all are visible.
    """
    slots = grid[0]
    places = grid[1] * grid[2]
    if index_BV is None:
        return partial(_over_time, slots), partial(_over_space, slots)
    return partial(_over_same, index_BV % places), partial(_over_same, index_BV // places)


def _over_time(slots: int, attention: Attention, x_BLD: Tensor) -> Tensor:
    x_BPSD = x_BLD.unflatten(1, (slots, -1)).transpose(1, 2)
    return attention(x_BPSD.flatten(0, 1)).view(x_BPSD.shape).transpose(1, 2).flatten(1, 2)


def _over_space(slots: int, attention: Attention, x_BLD: Tensor) -> Tensor:
    x_BSPD = x_BLD.unflatten(1, (slots, -1))
    return attention(x_BSPD.flatten(0, 1)).view(x_BLD.shape)


def _over_same(group_BV: Tensor, attention: Attention, x_BVD: Tensor) -> Tensor:
    return attention(x_BVD, attn_mask_BVV=group_BV[:, :, None] == group_BV[:, None, :])
