"""Feed the patches that a codec chooses to an encoder that sees tokens by their positions.

OneVision-Encoder reads a few patches of many frames, each with its place (t, h, w). `chosen` is its
own recipe, from motion vectors and residuals, without a patched FFmpeg:

    frames_THWC, position_V3 = chosen("video.mp4")  # 10,368 of 82,944 patches
    model(pixel_values, visible_indices=flat(position_V3)[None], patch_positions=position_V3[None])

Their model is not a class of transformers: load it with `trust_remote_code=True`. Its patches may
have another size than the tool's 16 pixels: compare `config.patch_size`.

`kept_patches` takes any mask of mgm instead, and `Encoder` is a small random ViT with rotary
positions in three axes:

    tokens_VD, position_V3 = kept_patches("video.mp4", range(0, 32, 2))
    feature_D = Encoder()(tokens_VD[None], position_V3[None])[0]

What is asked most about the choice, and where EvolvingLMMs-Lab/OneVision-Encoder answers it, in
llava_next/Compressed_Video_Reader/tool/stage1.py unless another file is named:

1. Where is it? In `compute_fused_volume_square576` and `global_topk_thw_square576`. The model gets
   its result as `patch_positions` (onevision_encoder/modeling_onevision_encoder.py, `forward`).
2. Which frames are whole? By default none. `--keep_first_full_frame` keeps the first sampled frame,
   with its padding, as here. I-frames have no special part.
3. What of groups of pictures? Nothing depends on them: 64 frames are spread evenly over the video
   (`sample_frame_ids_uniform`).
4. How are scores normalised? Each of motion and residual by the 95th percentile of its own frame,
   cut off at 1 (`_mv_energy_norm`, `_residual_energy_norm`). So a static frame has as much as one
   that moves. The motion has its median subtracted first, for the camera.
5. What is t? The number among the 64 frames, not that of the video, and K is over the clip.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mgm

PATCH = 16  # pixels
SIDE, FRAMES, BUDGET = 576, 64, 8  # pixels of the square, frames, and patches in whole frames


def chosen(video: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the padded frames, (64, 576, 576, 3) uint8, and the kept patches' (t, h, w), (V, 3).

    Differences: the residual is mgm's estimate, which I-frames have too (what differs from the mean
    of 8 x 8 pixels), and vectors have cells of 8 x 8 pixels.
    """
    count = len(mgm.track(video))
    clip = mgm.read(video, np.linspace(0, count - 1, FRAMES, dtype=int), residual=True)
    motion_THW2 = clip.motion_THW2 - np.median(clip.motion_THW2, (1, 2), keepdims=True)
    speed_THW = share(np.hypot(*np.moveaxis(motion_THW2, -1, 0)), 1e-6)
    speed_THW = speed_THW.repeat(8, 1).repeat(8, 2)[:, : clip.height, : clip.width]
    fused_THW = (speed_THW + share(np.abs(clip.residual_THW), 1.0)) / 2
    score_THW = np.stack([square(fused_HW) for fused_HW in fused_THW.astype(np.float32)])
    side = SIDE // PATCH
    score_TN = score_THW.reshape(FRAMES, side, PATCH, side, PATCH).sum((2, 4)).reshape(FRAMES, -1)
    # A patch with padding is a little worse than one where nothing happens.
    inside_HW = square(np.ones(fused_THW.shape[1:], np.float32))
    whole_N = inside_HW.reshape(side, PATCH, side, PATCH).all((1, 3)).ravel()
    score_TN[:, ~whole_N] = -1e-4
    score_TN[0] = np.inf
    best = np.argsort(-score_TN, axis=None, kind="stable")[: BUDGET * side * side]
    position_V3 = np.stack(np.unravel_index(np.sort(best), (FRAMES, side, side)), 1)
    return np.stack([square(frame_HWC) for frame_HWC in clip.frames_THWC]), position_V3


def share(x_THW: np.ndarray, least: float) -> np.ndarray:
    """Return values over their frame's 95th percentile, at most 1."""
    top_T = np.percentile(x_THW, 95, axis=(1, 2), keepdims=True)
    return np.minimum(x_THW / np.maximum(top_T, least), 1)


def square(x_HW: np.ndarray) -> np.ndarray:
    """Scale the longer side to 576 pixels, and pad the other."""
    height, width = x_HW.shape[:2]
    scale = SIDE / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    out = np.zeros((SIDE, SIDE, *x_HW.shape[2:]), x_HW.dtype)
    out[top : top + height, left : left + width] = cv2.resize(x_HW, (width, height))
    return out


def flat(position_V3: np.ndarray) -> np.ndarray:
    """Return the numbers of patches among all of a clip's, as `visible_indices` has them."""
    side = SIDE // PATCH
    return np.ravel_multi_index(tuple(position_V3.T), (FRAMES, side, side))


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
