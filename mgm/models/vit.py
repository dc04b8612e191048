"""The parts of VideoMAE's vision transformer: tubelet embedding, fixed positions, pre-norm blocks.

Parameter names follow the official code, so that its weights fit (RECIPES: modeling_pretrain.py, modeling_finetune.py).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def sinusoid_table(tokens: int, width: int) -> Tensor:
    """(1, tokens, width) fixed 1-D sine-cosine positions; even channels are sines, odd ones cosines."""
    channel = torch.arange(width, dtype=torch.float64)
    angle_LD = torch.arange(tokens, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / width)
    angle_LD[:, 0::2].sin_()
    angle_LD[:, 1::2].cos_()
    return angle_LD.float()[None]


def patchify(frames_BTHWC: Tensor, tubelet: int, patch: int) -> Tensor:
    """(B, L, tubelet * patch * patch, C): the pixels of each token; tokens in (slot, row, column) order, pixels in (t, y, x) order."""
    B, T, H, W, C = frames_BTHWC.shape
    S, rows, columns = T // tubelet, H // patch, W // patch
    x = frames_BTHWC.reshape(B, S, tubelet, rows, patch, columns, patch, C)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(B, S * rows * columns, tubelet * patch * patch, C)


def gather_tokens(x_BLD: Tensor, index_BN: Tensor) -> Tensor:
    """The tokens `index_BN` of each clip; trailing dimensions are kept."""
    return x_BLD[torch.arange(len(x_BLD), device=x_BLD.device)[:, None], index_BN]


class TubeletEmbedding(nn.Module):
    """A 3-D convolution whose stride is its kernel, computed as one matrix product over the tokens that are asked for."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, tubelet: int, patch: int):
        super().__init__()
        self.proj = nn.Conv3d(3, width, kernel_size=(tubelet, patch, patch), stride=(tubelet, patch, patch))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD), persistent=False)

    def forward(self, patches_BLPC: Tensor) -> Tensor:
        """patches_BLPC: uint8 pixels from `patchify`. Returns (B, L, D)."""
        x_BLPC = (patches_BLPC.to(self.mean.dtype) / 255 - self.mean) / self.std
        weight = self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)  # to the order of a patch: (t, y, x), channel fastest
        return F.linear(x_BLPC.flatten(2), weight, self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention; queries and values have biases, keys have none. `joined_BVV` says which tokens see which; default: all."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x_BVD: Tensor, joined_BVV: Tensor | None = None) -> Tensor:
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        qkv = F.linear(x_BVD, self.qkv.weight, bias).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=None if joined_BVV is None else joined_BVV[:, None])
        return self.proj(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block. In training, each clip skips each branch with probability `drop_path`."""

    def __init__(self, width: int, heads: int, drop_path: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)
        self.drop_path = drop_path

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self._keep(self.attn(self.norm1(x_BLD)))
        return x_BLD + self._keep(self.mlp(self.norm2(x_BLD)))

    def _keep(self, branch_BLD: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch_BLD
        keep = 1 - self.drop_path
        return branch_BLD * branch_BLD.new_empty(len(branch_BLD), 1, 1).bernoulli_(keep) / keep
