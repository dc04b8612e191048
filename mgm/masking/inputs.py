"""The inputs of a mask: the token grid, the clips' motion and their seeds."""

from dataclasses import dataclass

import numpy as np

from mgm.masking import draws
from mgm.spec import Mask, hidden_patches


@dataclass(frozen=True)
class Grid:
    """The token grid of a clip: `slots` in time, each of `height` x `width` patches."""

    slots: int
    height: int
    width: int

    @property
    def patches(self) -> int:
        """Return the number of patches per slot."""
        return self.height * self.width


@dataclass(frozen=True)
class SlotMotion:
    """The motion of a batch of clips, slot by slot.

    Args:
        magnitude_BSHW: magnitude of the motion, at any resolution. A slot without motion
            information is all zero. Negative values count as zero.
        displacement_BSHW2: (dx, dy) of each cell's content since the previous slot, in units of the
            frame's width and height. Only masks with `MaskInfo.directional` read it.
    """

    magnitude_BSHW: np.ndarray
    displacement_BSHW2: np.ndarray | None = None


@dataclass(frozen=True)
class MaskInput:
    """A batch of clips to mask.

    Lengths are in patches: patch (row, column) covers [column, column + 1] x [row, row + 1].
    `motion` is None for masks that do not read it.
    """

    mask: Mask
    grid: Grid
    motion: SlotMotion | None
    seed_B: np.ndarray  # int64

    @property
    def hidden(self) -> int:
        """Return K, the number of patches hidden in every slot."""
        return hidden_patches(self.mask.name, self.mask.ratio, self.grid.patches)

    @property
    def magnitude_BSHW(self) -> np.ndarray:
        """Return the magnitude of the motion, for guided masks."""
        assert self.motion is not None
        return self.motion.magnitude_BSHW

    def uniform(self, stream: int, n: int) -> np.ndarray:
        """Return `n` random numbers in [0, 1) per clip: (B, n)."""
        return draws.uniform(self.seed_B, stream, n)

    def bits(self, stream: int, n: int) -> np.ndarray:
        """Return `n` random integers of 32 bits per clip: (B, n)."""
        return draws.bits(self.seed_B, stream, n)
