"""Feed the patches that a codec mask keeps to an encoder that sees tokens by their positions.

OneVision-Encoder reads a few whole patches of many frames, each with its place (t, h, w). Here they
are chosen by the motion of the file: `mgm.masks` hides the rest, and `mgm.patch_positions` says
where the others lie. The encoder is a small random ViT with rotary positions in three axes.

    tokens_VD, position_V3 = kept_patches("video.mp4", range(0, 32, 2))
    feature_D = Encoder()(tokens_VD[None], position_V3[None])[0]
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mgm

PATCH = 16  # pixels


def kept_patches(
    video: str, index_T: Sequence[int] | np.ndarray, mask: str = "codec-keep", ratio: float = 0.75
) -> tuple[Tensor, Tensor]:
    """Return the pixels of the patches that stay, (V, 768) float32, and their positions, (V, 3)."""
    clip = mgm.read(video, index_T).cut_to(224)
    side = 224 // PATCH
    masked_THW = mgm.masks(clip, mask, ratio=ratio, tubelet=1, grid=(side, side))
    position_V3 = mgm.patch_positions(masked_THW, index_T)
    patches = clip.frames_THWC.reshape(-1, side, PATCH, side, PATCH, 3).swapaxes(2, 3)
    pixels_VD = patches[~masked_THW].reshape(len(position_V3), -1)
    return torch.from_numpy(pixels_VD / np.float32(255)), torch.from_numpy(position_V3)


class Encoder(nn.Module):
    """A ViT over any set of patches. Its only notion of place is `position_BV3`."""

    def __init__(self, width: int = 96, depth: int = 2, heads: int = 2):
        super().__init__()
        self.embed = nn.Linear(3 * PATCH**2, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels_BVD: Tensor, position_BV3: Tensor) -> Tensor:
        """Return the mean token, (B, width)."""
        x = self.embed(pixels_BVD)
        for block in self.blocks:
            x = block(x, position_BV3)
        return self.norm(x).mean(1)


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, position_BV3: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = rotated(q, position_BV3), rotated(k, position_BV3)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + self.out(attended.reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))


def rotated(x_BNVD: Tensor, position_BV3: Tensor) -> Tensor:
    """Rotate pairs of channels by the token's t, h and w: a third of the channels each."""
    parts = []
    for part, place_BV in zip(x_BNVD.chunk(3, -1), position_BV3.unbind(-1)):
        one, two = part.chunk(2, -1)
        frequency = 0.01 ** torch.linspace(0, 1, one.shape[-1])
        angle = place_BV[:, None, :, None] * frequency
        cos, sin = angle.cos(), angle.sin()
        parts += [one * cos - two * sin, one * sin + two * cos]
    return torch.cat(parts, -1)
