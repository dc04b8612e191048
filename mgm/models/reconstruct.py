"""A masked autoencoder's prediction as pixels: the paper's Figure 8."""

import torch
from torch import Tensor

from mgm.models.mae import MAE
from mgm.models.vit import gather_tokens, patchify


def reconstruct(model: MAE, frames_BTHWC: Tensor, masked_BL: Tensor) -> Tensor:
    """The clip as `model` completes it: visible patches as they are, hidden ones as predicted from
    them.

    The model predicts patches normalised by their own mean and deviation, per channel. Undoing that
    with the hidden patch's own two numbers, as is common, would show colours and contrast that the
    model never predicted. Here nothing of a hidden patch is used: its mean and deviation are those
    of the visible patches of its clip, weighted by 1 / distance^4 on the grid of tokens (a slot, a
    row and a column are each one apart), so that the nearest ones decide. Structure is the model's,
    colour and contrast are the neighbours'.

    Args:
        frames_BTHWC: uint8.
        masked_BL: True where hidden, as many tokens in every clip as in the model's training.

    Returns:
        uint8 frames of the same shape.
    """
    predicted_BMP, _ = model(frames_BTHWC, masked_BL)
    order_BL = masked_BL.byte().argsort(dim=1, stable=True)  # as in the model
    visible_BV, masked_BM = order_BL[:, : model.visible], order_BL[:, model.visible :]
    patches_BLPC = patchify(frames_BTHWC, model.encoder.tubelet, model.encoder.patch).clone()

    seen_BVPC = gather_tokens(patches_BLPC, visible_BV).float() / 255
    sides = (
        torch.arange(side, device=masked_BL.device, dtype=torch.float32)
        for side in model.encoder.grid
    )
    place_L3 = torch.cartesian_prod(*sides)
    weight_BMV = torch.cdist(place_L3[masked_BM], place_L3[visible_BV]) ** -4
    weight_BMV = weight_BMV / weight_BMV.sum(dim=2, keepdim=True)
    mean_BMC, deviation_BMC = weight_BMV @ seen_BVPC.mean(dim=2), weight_BMV @ seen_BVPC.std(dim=2)

    normal_BMPC = predicted_BMP.float().unflatten(2, (-1, frames_BTHWC.shape[-1]))
    painted_BMPC = (
        normal_BMPC * (deviation_BMC + model.std_floor)[:, :, None] + mean_BMC[:, :, None]
    )
    clip_B1 = torch.arange(len(masked_BL), device=masked_BL.device)[:, None]
    patches_BLPC[clip_B1, masked_BM] = (painted_BMPC.clamp(0, 1) * 255).round().to(torch.uint8)
    return unpatchify(patches_BLPC, model.encoder.grid, model.encoder.tubelet, model.encoder.patch)


def unpatchify(
    patches_BLPC: Tensor, grid: tuple[int, int, int], tubelet: int, patch: int
) -> Tensor:
    """Frames (B, T, H, W, C) from the pixels of each token: what `patchify` took apart."""
    slots, rows, columns = grid
    x = patches_BLPC.reshape(len(patches_BLPC), slots, rows, columns, tubelet, patch, patch, -1)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(
        len(x), slots * tubelet, rows * patch, columns * patch, -1
    )
