"""The video masked autoencoder: an encoder for visible tokens, a light decoder for all tokens."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgm.models.encoder import Encoder, init_pretraining
from mgm.models.vit import Block, gather_tokens, patchify, run_block, sinusoid_table
from mgm.spec import Pretrain


class TokenDecoder(nn.Module):
    """Blocks over all tokens, then a norm and a linear layer over the hidden tokens."""

    def __init__(self, spec: Pretrain):
        super().__init__()
        width = spec.decoder.width
        blocks = (Block(width, spec.decoder.heads) for _ in range(spec.decoder.depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 3 * spec.model.tubelet * spec.model.patch**2)
        # With zeros, the first loss is that of predicting zeros: a short run needs no steps to it.
        zero = spec.head_init == "zero"
        (nn.init.zeros_ if zero else nn.init.xavier_uniform_)(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x_BLD: Tensor, hidden: int, recompute: bool = False) -> Tensor:
        """Predict the last `hidden` tokens. The last block computes only these."""
        *blocks, final = self.blocks
        for block in blocks:
            x_BLD = run_block(block, x_BLD, recompute=recompute)
        return self.head(self.norm(run_block(final, x_BLD, hidden, recompute=recompute)))


class MAE(nn.Module):
    """VideoMAE's pretraining model (paper, eqs. 1-4).

    Every clip has the same number of hidden tokens, so all shapes are static.
    """

    pos_embed: Tensor

    def __init__(self, spec: Pretrain):
        super().__init__()
        tokens = math.prod(spec.grid)
        self.hidden = spec.grid[0] * spec.hidden
        self.visible = tokens - self.hidden
        self.std_floor = spec.std_floor
        self.encoder = Encoder(spec.grid, spec.model)
        self.encoder_to_decoder = nn.Linear(spec.model.width, spec.decoder.width, bias=False)
        self.mask_token = nn.Parameter(torch.empty(1, 1, spec.decoder.width))
        self.decoder = TokenDecoder(spec)
        table_1LD = sinusoid_table(tokens, spec.decoder.width)
        self.register_buffer("pos_embed", table_1LD, persistent=False)
        init_pretraining(self)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def forward(
        self, frames_BTHWC: Tensor, masked_BL: Tensor, weight_B: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, so that it is compiled in one function with the model.

        Args:
            frames_BTHWC: uint8.
            masked_BL: bool, True where hidden. Every clip hides `hidden` tokens.
            weight_B: weights of the clips' losses (`reconstruction_loss`).

        Returns:
            The loss, () float32, and numbers for the log: the loss of predicting zeros.
        """
        predicted_BMP, target_BMP = self.predict(frames_BTHWC, masked_BL)
        trivial = torch.linalg.vector_norm(target_BMP).square() / target_BMP.numel()
        return reconstruction_loss(predicted_BMP, target_BMP, weight_B), {"trivial_loss": trivial}

    def predict(self, frames_BTHWC: Tensor, masked_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and targets for the masked tokens, each (B, M, P * C)."""
        visible_BV, masked_BM = self.split(masked_BL)
        patches_BLPC = patchify(frames_BTHWC, self.encoder.tubelet, self.encoder.patch)
        latent_BVD = self.encoder(gather_tokens(patches_BLPC, visible_BV), visible_BV)

        latent_BVD = self.encoder_to_decoder(latent_BVD)
        positions_LD = self.pos_embed[0]
        visible_BVD = latent_BVD + positions_LD[visible_BV].to(latent_BVD.dtype)
        masked_BMD = (self.mask_token + positions_LD[masked_BM]).to(latent_BVD.dtype)
        tokens_BLD = torch.cat((visible_BVD, masked_BMD), dim=1)
        predicted_BMP = self.decoder(tokens_BLD, masked_BM.shape[1], self.encoder.recompute)
        return predicted_BMP, self.target(gather_tokens(patches_BLPC, masked_BM))

    def split(self, masked_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions of the visible and of the masked tokens, in order: int64."""
        order_BL = masked_BL.byte().argsort(dim=1, stable=True)
        return order_BL[:, : self.visible], order_BL[:, self.visible :]

    def target(self, patches_BMPC: Tensor) -> Tensor:
        """Normalise pixels per patch and channel: (B, M, P * C).

        The mean of pixels in [0, 1] is subtracted, then they are divided by their unbiased standard
        deviation plus `std_floor` (VideoMAE: engine_for_pretraining.py).
        """
        # To save a pass over memory, pixels stay in [0, 255], and the floor is scaled.
        x_BMCP = patches_BMPC.transpose(2, 3).contiguous().float()
        x_BMCP -= x_BMCP.mean(dim=3, keepdim=True)
        norm_BMC1 = torch.linalg.vector_norm(x_BMCP, dim=3, keepdim=True)
        deviation_BMC1 = norm_BMC1 / math.sqrt(x_BMCP.shape[3] - 1)
        x_BMCP /= deviation_BMC1 + 255 * self.std_floor
        return x_BMCP.transpose(2, 3).flatten(2)


def reconstruction_loss(predicted_BMP: Tensor, target_BMP: Tensor, weight_B: Tensor) -> Tensor:
    """Return the mean squared error of the masked tokens: () float32.

    A clip of weight 0, whose video could not be read, adds nothing, but counts in the mean's
    denominator.
    """
    loss_B = F.mse_loss(predicted_BMP.float(), target_BMP, reduction="none").mean(dim=(1, 2))
    return (loss_B * weight_B).mean()


def build_mae(spec: Pretrain) -> MAE:
    """Return a pretraining run's model, initialised from the run's seed."""
    torch.manual_seed(spec.seed)
    return MAE(spec)


def reconstruct(model: MAE, frames_BTHWC: Tensor, masked_BL: Tensor) -> Tensor:
    """Return the clip with the hidden patches as the model predicts them (the paper's Figure 8).

    Visible patches are not changed. The model predicts hidden patches normalised by their own mean
    and standard deviation. The true ones would show colours and contrast that it did not predict.
    Here both come from the clip's visible patches, weighted by 1 / distance^4 on the token grid.

    Args:
        frames_BTHWC: uint8.
        masked_BL: True where hidden, with as many hidden tokens as in the model's training.

    Returns:
        uint8 frames of the same shape.
    """
    predicted_BMP, _ = model.predict(frames_BTHWC, masked_BL)
    visible_BV, masked_BM = model.split(masked_BL)
    patches_BLPC = patchify(frames_BTHWC, model.encoder.tubelet, model.encoder.patch).clone()

    seen_BVPC = gather_tokens(patches_BLPC, visible_BV).float() / 255
    sides = (torch.arange(side, device=masked_BL.device) for side in model.encoder.grid)
    place_L3 = torch.cartesian_prod(*sides).float()
    weight_BMV = torch.cdist(place_L3[masked_BM], place_L3[visible_BV]) ** -4
    weight_BMV = weight_BMV / weight_BMV.sum(dim=2, keepdim=True)
    mean_BMC, deviation_BMC = weight_BMV @ seen_BVPC.mean(dim=2), weight_BMV @ seen_BVPC.std(dim=2)

    normal_BMPC = predicted_BMP.float().unflatten(2, (-1, frames_BTHWC.shape[-1]))
    contrast_BM1C = (deviation_BMC + model.std_floor)[:, :, None]
    painted_BMPC = normal_BMPC * contrast_BM1C + mean_BMC[:, :, None]
    clip_B1 = torch.arange(len(masked_BL), device=masked_BL.device)[:, None]
    patches_BLPC[clip_B1, masked_BM] = (painted_BMPC.clamp(0, 1) * 255).round().to(torch.uint8)
    return unpatchify(patches_BLPC, model.encoder.grid, model.encoder.tubelet, model.encoder.patch)


def unpatchify(
    patches_BLPC: Tensor, grid: tuple[int, int, int], tubelet: int, patch: int
) -> Tensor:
    """Return the frames (B, T, H, W, C) of patches: the inverse of `patchify`."""
    slots, rows, columns = grid
    x = patches_BLPC.reshape(len(patches_BLPC), slots, rows, columns, tubelet, patch, patch, -1)
    shape = slots * tubelet, rows * patch, columns * patch
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(x), *shape, -1)
