"""MGM's pretraining in one file, to be read from top to bottom.

Motion-Guided Masking for Spatiotemporal Representation Learning, Fan et al., ICCV 2023
(arXiv 2308.12962). A masked autoencoder sees a quarter of a clip's patches, and learns to predict
the others. MGM hides what moves: a box that follows the codec's motion vectors.

    python pretrain.py docs/walk.mp4 --toy     # a small model, about a minute on a CPU core
    python pretrain.py FOLDER                  # the paper's model and recipe for Kinetics-400

The package draws clips and crops, reads motion vectors, and has the random numbers of masks. A test
compares the mask, the target, the loss, all gradients and the weights after a step with its own.
Comments name the paper's sections, equations and tables; V is VideoMAE's code, which it follows.

Names end with axes: B clips, T frames, H rows, W columns, C colours, S slots of two frames,
N patches or cells of a slot, L tokens of a clip, V visible tokens, P pixels of a token, D width.
"""

import math
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler

import mgm
from mgm.masking import draws

TUBELET, PATCH = 2, 16  # a token is 2 frames of 16 x 16 pixels (4.2)
MEAN, STD = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])  # of ImageNet (V)


@dataclass
class Recipe:  # for Kinetics-400 (4.2 and Table 5)
    frames: int = 16
    stride: int = 4  # from one frame of a clip to the next; SSv2: 2
    size: int = 224  # pixels per side
    flip: bool = True  # SSv2: False
    ratio: float = 0.75  # gamma
    encoder: tuple[int, int, int] = (768, 12, 12)  # width, blocks, heads: ViT-B
    decoder: tuple[int, int, int] = (384, 4, 6)  # V
    batch: int = 512
    epochs: int = 800
    warmup_epochs: int = 40
    base_lr: float = 1.5e-4  # per 256 clips
    min_lr: float = 1e-5  # V, per 256 clips


TOY = Recipe(8, 2, 96, True, 0.75, (128, 2, 2), (64, 1, 2), 8, 2400, 240, 9.6e-2, 9.6e-4)


# --- The mask (3.3) ---
def motion_guided_mask(speed_SHW: np.ndarray, side: int, ratio: float, seed: int) -> np.ndarray:
    """Return the patches to hide, (S, N), of slots with side x side patches.

    `speed_SHW` is the length of the motion vectors, on any grid of cells. Lengths are in patches.
    """
    seeds, (slots, rows, columns) = np.array([seed]), speed_SHW.shape
    tie_N = draws.bits(seeds, draws.TIES, max(rows * columns, side**2))[0]  # breaks ties at random
    cell_x_N = np.tile(np.arange(columns, dtype=np.float32) + 0.5, rows) * (side / columns)
    cell_y_N = np.repeat(np.arange(rows, dtype=np.float32) + 0.5, columns) * (side / rows)
    centre_N = np.arange(side, dtype=np.float32) + 0.5  # of the patches
    # Slot 0: a square of the share gamma, anywhere in the frame.
    first = math.sqrt(ratio * side**2)
    sides_2 = np.float32([first, first])  # width and height
    x, y = draws.uniform(seeds, draws.START, 2)[0] * (side - first) + first / 2
    # Eq. 7: both sides change from slot to slot, by about a tenth (ours). The changes sum to zero.
    draw_S2 = draws.uniform(seeds, draws.SIZES, 2 * (slots - 1)).reshape(2, -1).T
    change_S2 = (2 * draw_S2 - 1) * 0.1 * np.float32(first)
    change_S2 = np.pad(change_S2 - sum(change_S2) * (1 / max(slots - 1, 1)), ((1, 0), (0, 0)))
    hidden_SN, guided = np.zeros((slots, side * side), bool), False
    for slot in range(slots):
        speed_N, sides_2 = speed_SHW[slot].ravel(), sides_2 + change_S2[slot]
        # Eqs. 6 and 7: the centre is that of the largest vector. Of equal ones it is the nearest to
        # the last such centre. A slot without motion vectors, as of I-frames, keeps the centre.
        if slot > 0 and speed_N.max() > 0:
            away_N = np.square(cell_x_N - x) + np.square(cell_y_N - y)
            largest = np.flatnonzero(speed_N == speed_N.max())
            cell = min(largest, key=lambda n: (away_N[n] if guided else 0, tie_N[n]))
            x, y, guided = cell_x_N[cell], cell_y_N[cell], True
        # The box hides as many patches at the edge as elsewhere: the K patches that are nearest to
        # its centre, in units of its width and height.
        width, height = sides_2.clip(max(1, first / 2), 2 * first)
        across_W, down_H = np.abs(centre_N - x) / width, np.abs(centre_N - y) / height
        away_N = np.maximum(down_H[:, None], across_W).ravel()
        nearest = np.lexsort((tie_N[: side**2], away_N))
        hidden_SN[slot, nearest[: int(ratio * side**2)]] = True
    return hidden_SN


# --- Clips (4.2 and Table 5) ---
@dataclass
class Clips(Dataset):
    """A random clip of each video, and the tokens that it hides."""

    decoded = staticmethod(lru_cache(4)(mgm.read))  # all frames and motion vectors of a video
    videos: list[Path]
    recipe: Recipe

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        recipe, video = self.recipe, self.decoded(self.videos[number])
        seed = int(torch.randint(2**31, ()))
        # Every `stride`-th frame from a random start, MultiScaleCrop, and flip. Motion vectors are
        # cut, scaled and mirrored with the frames.
        index_T = mgm.draw_frames(len(video.frames_THWC), recipe.frames, recipe.stride, seed)
        clip = video[index_T].cut_at_random(recipe.size, seed, flip=recipe.flip)
        # The speed of a slot is the sum over its frames, in pixels per frame.
        speed_SHW, side = clip.motion.magnitude(TUBELET), recipe.size // PATCH
        hidden_SN = motion_guided_mask(speed_SHW, side, recipe.ratio, seed)
        return clip.frames_THWC, hidden_SN.ravel()


# --- The model (3.1). Its weights have VideoMAE's names. ---
class Attention(nn.Module):
    """Joint space-time attention (4.2): each token attends to all. Keys have no bias (V)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.proj = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        q_BLD, k_BLD, v_BLD = self.qkv(x_BLD).chunk(3, dim=2)
        q_BLD, v_BLD = q_BLD + self.q_bias, v_BLD + self.v_bias
        q, k, v = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (q_BLD, k_BLD, v_BLD))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = Attention(width, heads)
        layers = {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        self.mlp = nn.ModuleDict(layers)

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self.attn(self.norm1(x_BLD))
        return x_BLD + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x_BLD))))


class Transformer(nn.Module):
    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.norm(self.blocks(x_BLD))


class MaskedAutoencoder(nn.Module):
    def __init__(self, recipe: Recipe):
        super().__init__()
        width, decoder_width = recipe.encoder[0], recipe.decoder[0]
        token, tokens = (TUBELET, PATCH, PATCH), recipe.frames * recipe.size**2 // (2 * PATCH**2)
        self.encoder, self.decoder = Transformer(*recipe.encoder), Transformer(*recipe.decoder)
        self.encoder.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, width, token, token)})
        self.encoder_to_decoder = nn.Linear(width, decoder_width, bias=False)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_width))
        self.decoder.head = nn.Linear(decoder_width, 3 * math.prod(token))
        self.register_buffer("place_LD", positions(tokens, width), persistent=False)
        self.register_buffer("decoder_LD", positions(tokens, decoder_width), persistent=False)
        # Initial weights (V). The embedding and the layer between keep PyTorch's.
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        for layer in [*self.encoder.blocks.modules(), *self.decoder.modules()]:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
            if isinstance(layer, nn.Linear) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, frames_BTHWC: Tensor, hidden_BL: Tensor) -> Tensor:
        """Return the loss: the mean squared error of the hidden tokens, as many in every clip."""
        # Eq. 1: a token per patch of two frames. It knows its place.
        pixels = (frames_BTHWC / 255 - MEAN.to(frames_BTHWC.device)) / STD.to(frames_BTHWC.device)
        tokens = self.encoder.patch_embed["proj"](pixels.permute(0, 4, 1, 2, 3))
        tokens_BLD = tokens.flatten(2).transpose(1, 2) + self.place_LD
        # Eqs. 2 and 3: the encoder sees the visible tokens alone.
        visible_BVD = tokens_BLD[~hidden_BL].unflatten(0, (len(hidden_BL), -1))
        encoded_BVD = self.encoder_to_decoder(self.encoder(visible_BVD))
        # Eq. 4: the decoder sees all, with one and the same vector in place of the hidden ones.
        all_BLD = self.mask_token.repeat(*hidden_BL.shape, 1)
        all_BLD[~hidden_BL] = encoded_BVD.flatten(0, 1).to(all_BLD.dtype)
        predicted_BLX = self.decoder.head(self.decoder(all_BLD + self.decoder_LD)).float()
        return F.mse_loss(predicted_BLX[hidden_BL], target(frames_BTHWC)[hidden_BL])


def positions(tokens: int, width: int) -> Tensor:
    """Return fixed positions (L, D): sines in even channels, cosines in odd channels (V)."""
    channel_D = torch.arange(width, dtype=torch.float64)
    token_L1 = torch.arange(tokens, dtype=torch.float64)[:, None]
    angle_LD = token_L1 / 10000 ** (2 * (channel_D // 2) / width)
    return torch.where(channel_D % 2 == 0, angle_LD.sin(), angle_LD.cos()).float()


def target(frames_BTHWC: Tensor) -> Tensor:
    """Return the pixels of each token, minus their mean, over their deviation, per colour (V)."""
    x = (frames_BTHWC / 255).unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
    x = x.unflatten(1, (-1, TUBELET)).permute(0, 1, 3, 5, 2, 4, 6, 7)
    x_BLPC = x.flatten(4, 6).flatten(1, 3)
    std_BL1C, mean_BL1C = torch.std_mean(x_BLPC, dim=2, keepdim=True)
    return ((x_BLPC - mean_BL1C) / (std_BL1C + 1e-6)).flatten(2)


# --- Training (4.2 and Table 5) ---
def build_optimiser(model: nn.Module) -> torch.optim.AdamW:
    """Return AdamW. Biases, norms and the mask token have no weight decay (V)."""
    decays = [x for name, x in model.named_parameters() if x.ndim > 1 and name != "mask_token"]
    others = [x for name, x in model.named_parameters() if x.ndim == 1 or name == "mask_token"]
    groups = [{"params": decays, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Return the rate of a step: a linear warm-up, then half a cosine."""
    scale, warmup = recipe.batch / 256, round(steps * recipe.warmup_epochs / recipe.epochs)
    if step < warmup:
        return scale * recipe.base_lr * step / warmup
    share = (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
    return scale * (recipe.min_lr + share * (recipe.base_lr - recipe.min_lr))


if __name__ == "__main__":
    place, recipe = Path(sys.argv[1]), TOY if "--toy" in sys.argv else Recipe()
    videos = sorted(place.rglob("*.mp4")) if place.is_dir() else [place]
    torch.manual_seed(0)
    device, workers = ("cuda", 8) if torch.cuda.is_available() else ("cpu", 0)
    model = MaskedAutoencoder(recipe).to(device)
    clips, optimiser = Clips(videos, recipe), build_optimiser(model)
    every = RandomSampler(clips, num_samples=recipe.epochs * len(clips))  # epoch by epoch
    loader = DataLoader(clips, recipe.batch, sampler=every, drop_last=True, num_workers=workers)
    for step, (frames, hidden) in enumerate(loader):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, len(loader), recipe)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(frames.to(device), hidden.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        print(f"step {step + 1} of {len(loader)}: loss {loss.item():.3f}", flush=True)
    torch.save({"model": model.state_dict()}, "mgm.pth")
