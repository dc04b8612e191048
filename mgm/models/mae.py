"""The video masked autoencoder: the encoder sees the visible tokens, a light decoder predicts the hidden ones."""

import torch
from torch import Tensor, nn

from mgm.models.vit import Block, Encoder, gather_tokens, patchify, sinusoid_table
from mgm.spec import Pretrain


class MAE(nn.Module):
    """VideoMAE's pretraining model (paper, eqs. 1-4). `hidden` tokens of every clip are masked, so all shapes are static."""

    def __init__(self, spec: Pretrain):
        super().__init__()
        model, decoder = spec.model, spec.decoder
        slots, rows, columns = spec.grid
        tokens = slots * rows * columns
        self.visible = tokens - slots * spec.hidden
        self.std_floor = spec.std_floor
        self.encoder = Encoder(spec.grid, model.width, model.depth, model.heads, model.tubelet, model.patch)
        self.encoder.norm = nn.LayerNorm(model.width, eps=1e-6)
        self.encoder_to_decoder = nn.Linear(model.width, decoder.width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder.width))
        self.decoder = nn.Module()
        self.decoder.blocks = nn.ModuleList(Block(decoder.width, decoder.heads) for _ in range(decoder.depth))
        self.decoder.norm = nn.LayerNorm(decoder.width, eps=1e-6)
        self.decoder.head = nn.Linear(decoder.width, 3 * model.tubelet * model.patch**2)
        self.register_buffer("pos_embed", sinusoid_table(tokens, decoder.width), persistent=False)
        self.apply(self._init)
        nn.init.xavier_uniform_(self.decoder.head.weight)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    @staticmethod
    def _init(module: nn.Module) -> None:
        """V: xavier uniform inside the encoder and decoder; `encoder_to_decoder` and the convolution keep PyTorch's default."""
        if isinstance(module, Block):
            for linear in (module.attn.qkv, module.attn.proj, module.mlp.fc1, module.mlp.fc2):
                nn.init.xavier_uniform_(linear.weight)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)

    def forward(self, frames_BTHWC: Tensor, masked_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted and true hidden patches, each (B, M, P * C), for uint8 frames and a mask that is True where hidden."""
        order_BL = masked_BL.byte().argsort(dim=1, stable=True)  # visible tokens first, both in token order
        visible_BV, masked_BM = order_BL[:, : self.visible], order_BL[:, self.visible :]
        patches_BLPC = patchify(frames_BTHWC, self.encoder.tubelet, self.encoder.patch)
        latent_BVD = self.encoder.norm(self.encoder(gather_tokens(patches_BLPC, visible_BV), visible_BV))
        predicted_BMP = self.decode(latent_BVD, visible_BV, masked_BM)
        return predicted_BMP, self.target(gather_tokens(patches_BLPC, masked_BM))

    def decode(self, latent_BVD: Tensor, visible_BV: Tensor, masked_BM: Tensor) -> Tensor:
        positions = self.pos_embed[0]
        x_BVD = self.encoder_to_decoder(latent_BVD) + positions[visible_BV]
        mask_BMD = self.mask_token + positions[masked_BM]
        x_BLD = torch.cat((x_BVD, mask_BMD.to(x_BVD.dtype)), dim=1)
        for block in self.decoder.blocks:
            x_BLD = block(x_BLD)
        return self.decoder.head(self.decoder.norm(x_BLD[:, -masked_BM.shape[1] :]))

    def target(self, patches_BMPC: Tensor) -> Tensor:
        """Pixels in [0, 1], normalised per tubelet and channel by mean and unbiased deviation (V: engine_for_pretraining.py)."""
        x_BMCP = patches_BMPC.transpose(2, 3).contiguous().float() / 255
        x_BMCP = x_BMCP - x_BMCP.mean(dim=3, keepdim=True)
        variance_BMC1 = x_BMCP.square().sum(dim=3, keepdim=True) / (x_BMCP.shape[3] - 1)  # several times faster than torch.var here
        return (x_BMCP / (variance_BMC1.sqrt() + self.std_floor)).transpose(2, 3).flatten(2)


def reconstruction_loss(predicted_BMP: Tensor, target_BMP: Tensor, weight_B: Tensor) -> Tensor:
    """Mean squared error over the hidden tokens; a clip of weight 0 keeps its place in the mean."""
    loss_B = (predicted_BMP.float() - target_BMP).square().mean(dim=(1, 2))
    return (loss_B * weight_B).mean()


def build_mae(spec: Pretrain) -> MAE:
    """The model of a pretraining spec, initialised from its seed."""
    torch.manual_seed(spec.seed)
    return MAE(spec)
