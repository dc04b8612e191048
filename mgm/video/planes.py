"""Clips as decoded: planes of YUV 4:2:0, which the device converts, scales and mirrors.

They have two thirds of the bytes of RGB crops, and a worker neither converts nor scales them. All
frames of the store have one format: the full range of BT.601, and even sides. The frames differ
from those of `mgm.video.store.read_clips` by rounding and by how they are scaled.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mgm.spec import Clips
from mgm.video.crop import Crop

if TYPE_CHECKING:
    from torch import Tensor

# Shares of V - 128 in R, of U - 128 and V - 128 in G, and of U - 128 in B (BT.601, full range). As
# numbers and not as a tensor, since a GPU would wait for a copy of that.
V_R, U_G, V_G, U_B = 1.402, -0.344136, -0.714136, 1.772


def no_planes(clips: Clips, short_side: int) -> dict[str, np.ndarray]:
    """Return the arrays of one clip, of zeros.

    Args:
        short_side: the largest short side of the videos, which no crop exceeds.

    Returns:
        luma_BTHW, chroma_BT2HW: they have room for the largest crop.
        place_B5: first row and column, height and width of the crop in luma, and whether it is
            mirrored.
    """
    # An odd first row or column of a crop takes one pixel more on both sides.
    side = short_side // 2 * 2 + 2
    return {
        "luma_BTHW": np.zeros((1, clips.frames, side, side), np.uint8),
        "chroma_BT2HW": np.zeros((1, clips.frames, 2, side // 2, side // 2), np.uint8),
        "place_B5": np.array([[0, 0, clips.size, clips.size, 0]]),
    }


def write_planes(
    planes: Sequence[np.ndarray], crop: Crop, into: Mapping[str, np.ndarray], t: int
) -> None:
    """Write the planes of a frame, luma_HW and two of chroma, under a crop into a clip's arrays."""
    luma_HW, *chroma = planes
    top, left, bottom, right = crop.edges
    row, column = top % 2, left % 2
    part_HW = luma_HW[top - row : bottom, left - column : right]
    into["luma_BTHW"][t, : part_HW.shape[0], : part_HW.shape[1]] = part_HW
    halves = slice(top // 2, -(-bottom // 2)), slice(left // 2, -(-right // 2))
    for number, plane_HW in enumerate(chroma):
        part_HW = plane_HW[halves]
        into["chroma_BT2HW"][t, number, : part_HW.shape[0], : part_HW.shape[1]] = part_HW
    into["place_B5"][:] = row, column, bottom - top, right - left, crop.flip


def frames_of(
    size: int, luma_BTHW: "Tensor", chroma_BT2HW: "Tensor", place_B5: "Tensor"
) -> "Tensor":
    """Convert planes to RGB, scale and mirror them: (B, T, size, size, 3) uint8.

    Scaling is bilinear, averages over all pixels when scaling down, and is one product of matrices
    per axis. It has half precision, which holds pixels exactly.
    """
    import torch

    row_B, column_B, height_B, width_B, flip_B = place_B5.unbind(1)
    room = luma_BTHW.shape[-1]
    down_BIJ = _scaling(row_B, height_B, size, room)
    across_BIJ = _scaling(column_B, width_B, size, room)
    across_BIJ = torch.where(flip_B[:, None, None] > 0, across_BIJ.flip(1), across_BIJ)
    luma = down_BIJ[:, None] @ luma_BTHW.half() @ across_BIJ[:, None].mT
    # A pixel of chroma belongs to two rows and columns of luma.
    down_BIJ, across_BIJ = (x.unflatten(2, (-1, 2)).sum(3) for x in (down_BIJ, across_BIJ))
    chroma = down_BIJ[:, None, None] @ chroma_BT2HW.half() @ across_BIJ[:, None, None].mT
    y, (u, v) = luma.float(), (chroma - 128).float().unbind(2)
    rgb_BTHWC = torch.stack([y + V_R * v, y + U_G * u + V_G * v, y + U_B * u], 4)
    return rgb_BTHWC.round_().clamp_(0, 255).to(torch.uint8)


def _scaling(start_B: "Tensor", length_B: "Tensor", size: int, room: int) -> "Tensor":
    """Return the weights of `room` pixels in each of `size`: (B, size, room) in half precision.

    They are those of PyTorch's `interpolate` of the pixels from start to start + length.
    """
    import torch

    scale_B11 = (length_B / size)[:, None, None]
    centre_BI1 = scale_B11 * (torch.arange(size, device=start_B.device)[:, None] + 0.5)
    pixel_B1J = torch.arange(room, device=start_B.device) - start_B[:, None, None]
    weight_BIJ = 1 - (pixel_B1J + 0.5 - centre_BI1).abs() / scale_B11.clamp(min=1)
    inside_B1J = (pixel_B1J >= 0) & (pixel_B1J < length_B[:, None, None])
    weight_BIJ = weight_BIJ.clamp(min=0) * inside_B1J
    return (weight_BIJ / weight_BIJ.sum(2, keepdim=True)).half()
