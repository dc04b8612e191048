"""The token grid of clips, and dense masks: one box per slot, and the patches nearest to it."""

from dataclasses import dataclass

import numpy as np


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
class Boxes:
    """Centres and sizes in patches, each (B, S) float32."""

    x_BS: np.ndarray
    y_BS: np.ndarray
    width_BS: np.ndarray
    height_BS: np.ndarray


def distance(boxes: Boxes, grid: Grid) -> np.ndarray:
    """Return the box-scaled Chebyshev distance of every patch's centre from the box's centre.

    Returns:
        (B, S, patches) float32, 0.5 on the box's outline.
    """
    row_H = np.arange(grid.height, dtype=np.float32) + 0.5
    column_W = np.arange(grid.width, dtype=np.float32) + 0.5
    y_BSH = np.abs(row_H - boxes.y_BS[:, :, None]) / boxes.height_BS[:, :, None]
    x_BSW = np.abs(column_W - boxes.x_BS[:, :, None]) / boxes.width_BS[:, :, None]
    away_BSHW = np.maximum(y_BSH[:, :, :, None], x_BSW[:, :, None, :])
    return away_BSHW.reshape(*away_BSHW.shape[:2], grid.patches)
