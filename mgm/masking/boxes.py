"""The token grid of clips, and dense masks: one box per slot, and the patches nearest to it."""

import math
from dataclasses import dataclass

import numpy as np

from mgm.masking import draws
from mgm.spec.masks import Mask


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


def first_size(ratio: float, grid: Grid) -> tuple[float, float]:
    """Return width and height of the first box: w_0 = h_0 = sqrt(ratio * H' * W') (3.2, 3.3).

    On a grid too narrow for that square, the box is a rectangle of the same area that fits.
    """
    area = ratio * grid.patches
    height = min(max(math.sqrt(area), area / grid.width), grid.height)
    return area / height, height


def first_centre(mask: Mask, grid: Grid, seed_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw the centre of the first box uniformly, with the box inside the frame.

    x_0, y_0 in rand(0, side of the frame - side of the box) (3.2, 3.3).
    """
    width, height = first_size(mask.ratio, grid)
    x_B, y_B = draws.uniform(seed_B, draws.START, 2).T
    return x_B * (grid.width - width) + width / 2, y_B * (grid.height - height) + height / 2


def constant_size(mask: Mask, grid: Grid, seed_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first box's width and height for every slot."""
    width, height = first_size(mask.ratio, grid)
    ones_BS = np.ones((len(seed_B), grid.slots), np.float32)
    return ones_BS * width, ones_BS * height


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
