"""The encoder: tubelets, positions, and the blocks of a ViT or of a TimeSformer."""

import math

import torch
from torch import Tensor, nn

from mgm.models.timesformer import DividedBlock, divided_attention
from mgm.models.vit import Block, TubeletEmbedding, sinusoid_table
from mgm.spec import Model


class Encoder(nn.Module):
    """Tubelets, positions, blocks and, unless a classifier replaces it, the final norm.

    A ViT's blocks join all tokens; `timesformer`'s join them over time, then over space
    (`mgm.models.timesformer`).
    """

    pos_embed: Tensor

    def __init__(
        self, grid: tuple[int, int, int], model: Model, drop_path: float = 0.0, norm: bool = True
    ):
        super().__init__()
        self.grid, self.tubelet, self.patch = grid, model.tubelet, model.patch
        self.divided = model.backbone == "timesformer"
        self.patch_embed = TubeletEmbedding(model.width, model.tubelet, model.patch, model.channels)
        self.positions = math.prod(
            model.positions or grid
        )  # of the table that weights were made with
        self.register_buffer(
            "pos_embed", position_table(model.width, grid, model.positions), persistent=False
        )
        block = DividedBlock if self.divided else Block
        rates = torch.linspace(
            0, drop_path, model.depth, device="cpu"
        ).tolist()  # deeper blocks drop more (V)
        self.blocks = nn.ModuleList(block(model.width, model.heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(model.width, eps=1e-6) if norm else nn.Identity()

    def forward(self, patches_BLPC: Tensor, index_BV: Tensor | None = None) -> Tensor:
        """patches_BLPC:

        the pixels of all tokens, or of those in `index_BV` alone. Returns (B, V, D).
        """
        positions = self.pos_embed if index_BV is None else self.pos_embed[0, index_BV]
        x_BVD = self.patch_embed(patches_BLPC) + positions
        time_and_space = divided_attention(self.grid, index_BV) if self.divided else ()
        for block in self.blocks:
            x_BVD = block(x_BVD, *time_and_space)
        return self.norm(x_BVD)


def freeze(encoder: Encoder, blocks: int) -> None:
    """Let the tubelet embedding and the first blocks keep their weights in training."""
    for part in (encoder.patch_embed, *encoder.blocks[:blocks]):
        part.requires_grad_(False)


def position_table(
    width: int, grid: tuple[int, int, int], made_for: tuple[int, int, int] | tuple[()] = ()
) -> Tensor:
    """(1, tokens, width):

    the fixed table of the grid; or that of the grid `made_for`, interpolated to it (trilinear,
    between centres).
    """
    if not made_for or made_for == grid:
        return sinusoid_table(math.prod(grid), width)
    table_1DSHW = sinusoid_table(math.prod(made_for), width).transpose(1, 2).unflatten(2, made_for)
    return (
        nn.functional.interpolate(table_1DSHW, size=grid, mode="trilinear")
        .flatten(2)
        .transpose(1, 2)
    )
