"""What a ViT's last block looks at: the paper's Figures 6 and 7."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mgm.errors import UserError
from mgm.models.encoder import Encoder
from mgm.models.vit import Block, patchify


def attention_map(encoder: Encoder, frames_BTHWC: Tensor, query: tuple[int, int, int]) -> Tensor:
    """How much one token attends to each token: the mean over the heads of the last block, all
    tokens visible (paper, Figure 6d).

    Args:
        frames_BTHWC: uint8.
        query: slot, row and column of the token that looks.

    Returns:
        (B, S, H, W) float32 on the grid of tokens; each clip's sums to 1.

    Raises:
        UserError: the encoder is a TimeSformer, whose tokens attend over time and over space apart.
    """
    if encoder.divided:
        raise UserError(
            "a TimeSformer attends over time and over space apart, so it has no one attention map; choose a ViT's run"
        )
    x_BLD = (
        encoder.patch_embed(patchify(frames_BTHWC, encoder.tubelet, encoder.patch))
        + encoder.pos_embed
    )
    *blocks, last = encoder.blocks
    assert isinstance(last, Block)
    for block in blocks:
        x_BLD = block(x_BLD)
    _, rows, columns = encoder.grid
    token = (query[0] * rows + query[1]) * columns + query[2]
    return _weights(last, x_BLD, token).mean(dim=1).unflatten(1, encoder.grid)


def _weights(block: Block, x_BLD: Tensor, query: int) -> Tensor:
    """(B, heads, L):

    what a block's attention weighs its values with for one query. Its forward never holds them, so
    that it is fast.
    """
    attention = block.attn
    width = attention.proj.in_features
    bias = torch.cat((attention.q_bias, torch.zeros_like(attention.q_bias)))
    qk = F.linear(block.norm1(x_BLD), attention.qkv.weight[: 2 * width], bias).unflatten(
        -1, (2, attention.heads, -1)
    )
    q_BLND, k_BLND = qk.float().unbind(2)
    scores_BNL = torch.einsum("bnd,blnd->bnl", q_BLND[:, query], k_BLND) / q_BLND.shape[-1] ** 0.5
    return scores_BNL.softmax(dim=-1)
