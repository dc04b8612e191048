"""The video masked autoencoder:

the encoder sees the visible tokens, a light decoder predicts the hidden ones.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgm.models.encoder import Encoder, position_table
from mgm.models.kernels import Linear
from mgm.models.vit import Block, gather_tokens, patchify
from mgm.models.weight_init import init_pixel_head, init_pretraining
from mgm.spec import Pretrain


class PixelDecoder(nn.Module):
    """Blocks over all tokens;

    what the last block gives, norm and head are for the hidden ones alone, which stand last.
    """

    def __init__(self, spec: Pretrain):
        super().__init__()
        width = spec.decoder.width
        self.blocks = nn.ModuleList(
            Block(width, spec.decoder.heads) for _ in range(spec.decoder.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = Linear(width, spec.model.channels * spec.model.tubelet * spec.model.patch**2)
        init_pixel_head(self.head, spec.head_init)

    def forward(self, x_BLD: Tensor, hidden: int) -> Tensor:
        *blocks, final = self.blocks
        for block in blocks:
            x_BLD = block(x_BLD)
        return self.head(self.norm(final(x_BLD, last=hidden)))


class MAE(nn.Module):
    """VideoMAE's pretraining model (paper, eqs.

    1-4). As many tokens are hidden, and predicted, in every clip, so all shapes are static.
    """

    pos_embed: Tensor

    def __init__(self, spec: Pretrain):
        super().__init__()
        tokens = math.prod(spec.grid)
        self.visible = tokens - spec.grid[0] * spec.hidden
        self.half_hidden = spec.grid[0] * (spec.hidden // 2)  # tokens of a second mask
        self.std_floor = spec.std_floor
        self.encoder = Encoder(spec.grid, spec.model)
        self.encoder_to_decoder = Linear(spec.model.width, spec.decoder.width, bias=False)
        self.mask_token = nn.Parameter(torch.empty(1, 1, spec.decoder.width))
        self.decoder = PixelDecoder(spec)
        self.register_buffer(
            "pos_embed",
            position_table(spec.decoder.width, spec.grid, spec.model.positions),
            persistent=False,
        )
        init_pretraining(self)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def forward(
        self, frames_BTHWC: Tensor, masked_BL: Tensor, predicted_BL: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predicted and true patches, each (B, M, P * C), for uint8 frames and a mask that is True
        where hidden: all hidden ones, or of those that `predicted_BL` names (VideoMAE V2's second
        mask; the decoder never sees the others)."""
        rank_BL = (
            masked_BL.byte() if predicted_BL is None else masked_BL.byte() * 2 - predicted_BL.byte()
        )
        order_BL = rank_BL.argsort(
            dim=1, stable=True
        )  # visible tokens first, then predicted ones, each in token order
        visible_BV, masked_BM = order_BL[:, : self.visible], order_BL[:, self.visible :]
        if predicted_BL is not None:
            masked_BM = masked_BM[:, : self.half_hidden]
        patches_BLPC = patchify(frames_BTHWC, self.encoder.tubelet, self.encoder.patch)
        latent_BVD = self.encoder(gather_tokens(patches_BLPC, visible_BV), visible_BV)

        positions_LD = self.pos_embed[0]
        visible_BVD = self.encoder_to_decoder(latent_BVD) + positions_LD[visible_BV]
        masked_BMD = (self.mask_token + positions_LD[masked_BM]).to(visible_BVD.dtype)
        predicted_BMP = self.decoder(
            torch.cat((visible_BVD, masked_BMD), dim=1), hidden=masked_BM.shape[1]
        )
        return predicted_BMP, self.target(gather_tokens(patches_BLPC, masked_BM))

    def target(self, patches_BMPC: Tensor) -> Tensor:
        """Pixels in [0, 1], normalised per tubelet and channel by mean and unbiased deviation (V:
        engine_for_pretraining.py).

        In few passes over memory, which is what it costs; pixels stay within 0 to 255, so the floor
        is 255 times as high.
        """
        x_BMCP = patches_BMPC.transpose(2, 3).contiguous().float()
        x_BMCP -= x_BMCP.mean(dim=3, keepdim=True)
        deviation_BMC1 = torch.linalg.vector_norm(x_BMCP, dim=3, keepdim=True) / math.sqrt(
            x_BMCP.shape[3] - 1
        )
        x_BMCP /= deviation_BMC1 + 255 * self.std_floor
        return x_BMCP.transpose(2, 3).flatten(2)


def reconstruction_loss(predicted_BMP: Tensor, target_BMP: Tensor, weight_B: Tensor) -> Tensor:
    """Mean squared error over the hidden tokens; a clip of weight 0 keeps its place in the mean."""
    loss_B = F.mse_loss(predicted_BMP.float(), target_BMP, reduction="none").mean(dim=(1, 2))
    return (loss_B * weight_B).mean()


def build_mae(spec: Pretrain) -> MAE:
    """The model of a pretraining spec, initialised from its seed."""
    torch.manual_seed(spec.seed)
    return MAE(spec)
