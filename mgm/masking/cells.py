"""Bring a map of motion to the token grid.

A map's cells are not the grid's patches. Of a clip, or of a crop scaled to `size`, they are 8 x 8
pixels: 28 x 28 cells for 14 x 14 patches at 224 pixels, 6 x 6 for 6 x 6 at 48. Of frames that are
not cut, they are the source's, whose number need not be a multiple of the grid's.
"""

import numpy as np

from mgm.masking.boxes import Grid

FINE = 2  # fine cells per side of a patch


def largest_motion(grid: Grid, magnitude_BSHW: np.ndarray) -> np.ndarray:
    """Return the largest magnitude of the cells that each patch touches: (B, S, patches)."""
    largest = magnitude_BSHW
    for axis, patches in ((2, grid.height), (3, grid.width)):
        cells = largest.shape[axis]
        parts = [
            largest.take(range(i * cells // patches, -(-(i + 1) * cells // patches)), axis)
            for i in range(patches)
        ]
        largest = np.stack([part.max(axis) for part in parts], axis)
    return largest.reshape(-1, grid.slots, grid.patches)


def summed_motion(grid: Grid, magnitude_BSHW: np.ndarray) -> np.ndarray:
    """Return the magnitude of each patch, summed over its 2 x 2 quarters: (B, S, patches)."""
    return sum_per_patch(resampled(magnitude_BSHW, FINE * grid.height, FINE * grid.width))


def resampled(cells_BSHWX: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the value of any grid at the centre of each fine cell: (B, S, rows, columns, ...)."""
    height, width = cells_BSHWX.shape[2:4]
    row = (2 * np.arange(rows) + 1) * height // (2 * rows)
    column = (2 * np.arange(columns) + 1) * width // (2 * columns)
    return cells_BSHWX[:, :, row][:, :, :, column]


def sum_per_patch(x_BSHW: np.ndarray) -> np.ndarray:
    """Sum the FINE x FINE fine cells of each patch: (B, S, rows, columns) to (B, S, patches)."""
    fine = [x_BSHW[:, :, i::FINE, j::FINE] for i in range(FINE) for j in range(FINE)]
    sum_BSHW = sum(fine[1:], start=fine[0])
    return sum_BSHW.reshape(*sum_BSHW.shape[:2], -1)
