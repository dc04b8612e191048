"""Clips as decoded: planes of YUV 4:2:0, which the device converts, scales and mirrors.

They have half of the bytes of RGB, and a worker neither converts nor scales them. The frames differ
from those of `mgm.video.read.read_pixels` by rounding: the CPU converts to RGB first, where swscale
rounds down, and scales after it. They are brighter by 1 of 255 on average.
"""

from collections.abc import Mapping

import av
import numpy as np
import torch
from torch import Tensor

from mgm.spec import Clips
from mgm.video.clip import Crop, cut_frames
from mgm.video.container import DecodedFrame, VideoReader, plane_pixels

FULL_RANGE = 32  # added to the number of the colour space
# Weights of red and blue in luma, by FFmpeg's number of the colour space. Others: as in BT.601.
WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
WEIGHTS[10] = WEIGHTS[9]
BT601 = (0.299, 0.114)


def no_planes(clips: Clips) -> dict[str, np.ndarray]:
    """Return the arrays of one clip, of zeros.

    Returns:
        luma_BTHW, chroma_BT2HW: they have room for crops of copies of short side 256 at size 224.
        place_B6: first row and column, height and width of the crop in luma, whether it is
            mirrored, and its colour space.
    """
    side = 2 * (clips.size * 4 // 7 + 1)
    return {
        "luma_BTHW": np.zeros((1, clips.frames, side, side), np.uint8),
        "chroma_BT2HW": np.zeros((1, clips.frames, 2, side // 2, side // 2), np.uint8),
        "place_B6": np.array([[0, 0, clips.size, clips.size, 0, 0]]),
    }


def write_planes(
    source: VideoReader,
    picture: DecodedFrame,
    crop: Crop,
    size: int,
    video: tuple[int, int],
    into: Mapping[str, np.ndarray],
    t: int,
) -> None:
    """Write the planes of a picture under a crop.

    A crop that is larger than the room is scaled first. So is a picture that is turned or has
    another format than 4:2:0 of 8 bits.

    Args:
        size, video: see `mgm.video.read.read_pixels`.
        into: the arrays of one clip.
        t: the frame's place in it.
    """
    frame, room = picture.frame, into["luma_BTHW"].shape[-1]
    own = crop.on(picture.size, video)
    top, left, height, width = map(int, (own.top, own.left, own.height, own.width))
    fits = max(top % 2 + height, left % 2 + width) <= room
    if frame.format.name not in ("yuv420p", "yuvj420p") or any(picture.rotation) or not fits:
        (cut_HWC,) = cut_frames(source.pixels(picture)[None], crop, size, video)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(cut_HWC), "rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU601", threads=1)
        top, left, height, width, crop = 0, 0, size, size, Crop(0, 0, size, size)
    luma_HW, *chroma = (plane_pixels(plane, 1)[..., 0] for plane in frame.planes)
    row, column = top % 2, left % 2
    part_HW = luma_HW[top - row : top + height, left - column : left + width]
    into["luma_BTHW"][t, : part_HW.shape[0], : part_HW.shape[1]] = part_HW
    halves = slice(top // 2, -(-(top + height) // 2)), slice(left // 2, -(-(left + width) // 2))
    for number, plane_HW in enumerate(chroma):
        part_HW = plane_HW[halves]
        into["chroma_BT2HW"][t, number, : part_HW.shape[0], : part_HW.shape[1]] = part_HW
    colours = int(frame.colorspace) + FULL_RANGE * (frame.format.name == "yuvj420p")
    into["place_B6"][:] = row, column, height, width, crop.flip, colours


def frames_of(size: int, luma_BTHW: Tensor, chroma_BT2HW: Tensor, place_B6: Tensor) -> Tensor:
    """Convert planes to RGB, scale and mirror them: (B, T, size, size, 3) uint8.

    Scaling is bilinear, averages over all pixels when scaling down, and is one product of matrices
    per axis. It has half precision, which holds pixels exactly.
    """
    row_B, column_B, height_B, width_B, flip_B, colours_B = place_B6.unbind(1)
    room = luma_BTHW.shape[-1]
    down_BIJ = _scaling(row_B, height_B, size, room)
    across_BIJ = _scaling(column_B, width_B, size, room)
    across_BIJ = torch.where(flip_B[:, None, None] > 0, across_BIJ.flip(1), across_BIJ)
    luma = down_BIJ[:, None] @ luma_BTHW.half() @ across_BIJ[:, None].mT
    # A pixel of chroma belongs to two rows and columns of luma.
    down_BIJ, across_BIJ = (x.unflatten(2, (-1, 2)).sum(3) for x in (down_BIJ, across_BIJ))
    chroma = down_BIJ[:, None, None] @ chroma_BT2HW.half() @ across_BIJ[:, None, None].mT
    yuv_BT3HW = torch.cat([luma[:, :, None], chroma], 2).float()
    matrix_B33, shift_B3 = _colours(colours_B)
    rgb_BTHWC = torch.einsum("bcy,btyhw->bthwc", matrix_B33, yuv_BT3HW)
    rgb_BTHWC += shift_B3[:, None, None, None]
    return rgb_BTHWC.round_().clamp_(0, 255).to(torch.uint8)


def _scaling(start_B: Tensor, length_B: Tensor, size: int, room: int) -> Tensor:
    """Return the weights of `room` pixels in each of `size`: (B, size, room) in half precision.

    They are those of PyTorch's `interpolate` of the pixels from start to start + length.
    """
    scale_B11 = (length_B / size)[:, None, None]
    centre_BI1 = scale_B11 * (torch.arange(size, device=start_B.device)[:, None] + 0.5)
    pixel_B1J = torch.arange(room, device=start_B.device) - start_B[:, None, None]
    weight_BIJ = 1 - (pixel_B1J + 0.5 - centre_BI1).abs() / scale_B11.clamp(min=1)
    inside_B1J = (pixel_B1J >= 0) & (pixel_B1J < length_B[:, None, None])
    weight_BIJ = weight_BIJ.clamp(min=0) * inside_B1J
    return (weight_BIJ / weight_BIJ.sum(2, keepdim=True)).half()


def _colours(colours_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrices (B, 3, 3) and shifts (B, 3) from YUV to RGB, all of 0 to 255."""
    table = torch.tensor([_colour(number) for number in range(2 * FULL_RANGE)])
    own_B34 = table.to(colours_B.device)[colours_B]
    return own_B34[..., :3], own_B34[..., 3]


def _colour(number: int) -> list[list[float]]:
    red, blue = WEIGHTS.get(number % FULL_RANGE, BT601)
    green = 1 - red - blue
    full = number >= FULL_RANGE
    luma, chroma, black = (1.0, 1.0, 0) if full else (255 / 219, 255 / 224, 16)
    rows = [
        [luma, 0.0, 2 * (1 - red) * chroma],
        [
            luma,
            -2 * (1 - blue) * blue / green * chroma,
            -2 * (1 - red) * red / green * chroma,
        ],
        [luma, 2 * (1 - blue) * chroma, 0.0],
    ]
    return [[*row, -black * row[0] - 128 * (row[1] + row[2])] for row in rows]
