"""What a masking strategy is given."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mgm.masking import Edge, prng


@dataclass(frozen=True)
class Grid:
    """The token grid of a clip: `slots` in time, each of `height` x `width` patches."""

    slots: int
    height: int
    width: int

    @property
    def patches(self) -> int:
        """Patches of one slot."""
        return self.height * self.width


@dataclass(frozen=True)
class Clips:
    """A batch of clips to mask.

    Lengths are in patches: patch (row, column) covers [column, column + 1] x [row, row + 1].
    """

    grid: Grid
    ratio: float
    seed_B: Tensor  # int64
    motion_BSHW: (
        Tensor | None
    )  # float32, >= 0, at any resolution; a slot without motion information is all zero
    edge: Edge
    jitter: bool
    guided_start: bool = False
    displacement_BSHW2: Tensor | None = (
        # (dx, dy) of what lies there, in frame sides since the slot before, on the motion's cells
        None
    )

    @property
    def hidden(self) -> int:
        """K, the patches hidden in every slot; `hidden_patches` says which mask hides others."""
        return int(self.ratio * self.grid.patches)

    def uniform(self, stream: int, n: int) -> Tensor:
        return prng.uniform(self.seed_B, stream, n)

    def bits(self, stream: int, n: int) -> Tensor:
        return prng.bits(self.seed_B, stream, n)


def at_places(cells_BSHWX: Tensor, rows: int, columns: int) -> Tensor:
    """Return the value of the cell that holds each place's centre, (B, S, rows, columns, ...).

    Args:
        cells_BSHWX: values on any grid of the frame, perhaps with more axes after it.
        rows, columns: places along the frame's sides.
    """
    device = cells_BSHWX.device
    height, width = cells_BSHWX.shape[2:4]
    row = (2 * torch.arange(rows, device=device) + 1) * height // (2 * rows)
    column = (2 * torch.arange(columns, device=device) + 1) * width // (2 * columns)
    return cells_BSHWX[:, :, row][:, :, :, column]
