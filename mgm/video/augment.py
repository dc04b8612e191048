"""RandAugment and random erasing for clips. A worker draws, and the device applies what was drawn.

The draws are timm's, one per clip for all of its frames, since other draws would change its motion.
Motion vectors are not changed, so augmentation is for training without motion. A worker writes
whole frames; the device augments, cuts, scales, mirrors and erases them. Nothing here copies
numbers to a GPU or reads some, so it waits for nothing.

Source: MCG-NJU/VideoMAE, kinetics.py, `_aug_frame`.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgm.rng import seeded
from mgm.spec import Augment, Clips
from mgm.video.crop import Crop

# The arrays of a clip (`ClipAugmentation.blank`).
WHOLE = ("whole_BTPC", "drawn_BN2", "place_B11")
GREY = 128  # of pixels that come from outside the frame
# ImageNet's mean and standard deviation of R, G and B.
NOISE = ((123.675, 58.395), (116.28, 57.12), (103.53, 57.375))


class ClipAugmentation:
    """The draws of a clip's augmentation, by timm."""

    def __init__(self, augment: Augment):
        # Optional packages, which take seconds to import.
        from timm.data.auto_augment import rand_augment_transform
        from timm.data.random_erasing import RandomErasing

        self._rand = rand_augment_transform(augment.rand, {}) if augment.rand else None
        self.layers = self._rand.num_layers if self._rand else 0
        for operation in self._rand.ops if self._rand else ():
            number = OPERATIONS.index(operation.aug_fn.__name__)
            operation.aug_fn = partial(_noted, number)
        erase = RandomErasing(augment.erasing, device="cpu")
        self._kept = lambda size: erase(torch.ones(1, size, size))[0].bool().numpy()

    def blank(self, clips: Clips, pixels: int) -> dict[str, np.ndarray]:
        """Return the arrays of one clip, of zeros.

        Args:
            pixels: of the largest frame.

        Returns:
            whole_BTPC: its frames, as uint8 RGB. P: the pixels of a frame, row by row.
            drawn_BN2: per operation, its number and argument; -1: none.
            place_B11: height and width of a frame; the crop's first row and column, the row and the
                column after it, and whether it is mirrored; the first row and column, the height
                and the width of the erased box in the clip.
        """
        return {
            "whole_BTPC": np.zeros((1, clips.frames, pixels, 3), np.uint8),
            "drawn_BN2": np.full((1, self.layers, 2), -1.0),
            "place_B11": np.zeros((1, 11), np.int64),
        }

    def draw(
        self,
        rng: np.random.Generator,
        sides: tuple[int, int],
        crop: Crop,
        size: int,
        into: Mapping[str, np.ndarray],
    ) -> None:
        """Draw a clip's augmentation, and write it into `drawn_BN2` and `place_B11` of one clip.

        Args:
            sides: height and width of the frames.
            crop: of the frames, scaled to `size` x `size` pixels.
        """
        drawn = self.operations(rng)
        into["drawn_BN2"][:] = -1
        into["drawn_BN2"][: len(drawn)] = np.array(drawn).reshape(-1, 2)
        into["place_B11"][:] = *sides, *crop.edges, crop.flip, *self.box(size, rng)

    def operations(self, rng: np.random.Generator) -> list[tuple[int, float]]:
        """Draw the operations of RandAugment: number and argument of each."""
        if self._rand is None:
            return []
        # timm draws from global generators.
        with seeded(int(rng.integers(2**32))):
            drawn: list[tuple[int, float]] = self._rand([])
        return drawn

    def box(self, size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw the box that is erased, with the given probability: top, left, height and width."""
        with seeded(int(rng.integers(2**32))):
            erased_HW = ~self._kept(size)
        if not erased_HW.any():
            return 0, 0, 0, 0
        (row, *rows), (column, *columns) = (np.flatnonzero(erased_HW.any(axis)) for axis in (1, 0))
        return int(row), int(column), 1 + len(rows), 1 + len(columns)


def _noted(number: int, drawn: list[Any], argument: float = 0.0, **_: Any) -> list[Any]:
    """Add an operation to those that are drawn, in place of timm's, which changes an image."""
    return [*drawn, (number, float(argument))]


def augmented(size: int, whole_BTPC: Tensor, host: Mapping[str, Tensor]) -> Tensor:
    """Augment, cut, scale, mirror and erase clips: (B, T, size, size, 3) uint8.

    Scaling is bilinear, and averages over all pixels when scaling down. The erased box is filled
    with noise per frame, pixel and channel, normal with ImageNet's mean and standard deviation
    (VideoMAE's "pixel" mode), in whole values.

    Args:
        whole_BTPC: on the device.
        host: `drawn_BN2`, `place_B11` and `seed_B` on the host. The seeds are of the noise.
    """
    from torchvision.transforms.v2.functional import resize_image

    count, frames = whole_BTPC.shape[:2]
    shape, device = (count, frames, size, size, 3), whole_BTPC.device
    frames_BTHWC = torch.zeros(shape, dtype=torch.uint8, device=device)
    rows = zip(*(host[name].tolist() for name in ("drawn_BN2", "place_B11", "seed_B")))
    for clip, (operations, place, seed) in enumerate(rows):
        height, width, top, left, bottom, right, flip, *box = place
        if not height:
            # The video could not be read.
            continue
        whole_TPC = whole_BTPC[clip, :, : height * width]
        x_TCHW = whole_TPC.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        for number, argument in operations:
            if number >= 0:
                x_TCHW = operate(OPERATIONS[int(number)], x_TCHW, argument)
        x_TCHW = resize_image(x_TCHW[:, :, top:bottom, left:right], [size, size], antialias=True)
        x_TCHW = x_TCHW.flip(3) if flip else x_TCHW
        frames_BTHWC[clip] = x_TCHW.permute(0, 2, 3, 1)
        if box[2]:
            first, column, high, wide = box
            generator = torch.Generator(device).manual_seed(seed)
            noise_TRCN = torch.empty((frames, high, wide, 3), device=device)
            noise_TRCN.normal_(generator=generator)
            into = frames_BTHWC[clip, :, first : first + high, column : column + wide]
            for channel, (mean, deviation) in enumerate(NOISE):
                noise_TRC = noise_TRCN[..., channel] * deviation + mean
                into[..., channel] = noise_TRC.round_().clamp_(0, 255).to(torch.uint8)
    return frames_BTHWC


def operate(name: str, x_TCHW: Tensor, argument: float) -> Tensor:
    """Apply one of timm's operations to all frames of a clip, uint8 RGB."""
    # An optional package, which takes seconds to import.
    from torchvision.transforms.v2 import functional as vision

    return FUNCTIONS[name](vision, x_TCHW, argument)


def _turned(x_TCHW: Tensor, degrees: float) -> Tensor:
    """Rotate frames about their centre."""
    height, width = x_TCHW.shape[2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return _moved(x_TCHW, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _sharper(x_TCHW: Tensor, factor: float) -> Tensor:
    """Extrapolate from a smoothed clip, as Pillow's `Sharpness` does.

    torchvision's copies its 3 x 3 kernel to the device, which a GPU waits for.
    """
    kernel_C1HW = torch.full((3, 1, 3, 3), 1 / 13, device=x_TCHW.device)
    kernel_C1HW[:, :, 1, 1] = 5 / 13
    own_TCHW = x_TCHW.float()
    # Pixels at the border stay as they are.
    smooth_TCHW = own_TCHW.clone()
    smooth_TCHW[:, :, 1:-1, 1:-1] = F.conv2d(own_TCHW, kernel_C1HW, groups=3).round_()
    return torch.lerp(smooth_TCHW, own_TCHW, factor).clamp_(0, 255).to(torch.uint8)


def _moved(x_TCHW: Tensor, a: float, b: float, c: float, d: float, e: float, f: float) -> Tensor:
    """Return the frames whose pixel (x, y) is at (ax + by + c, dx + ey + f) of these, bicubic.

    Pixels from outside are grey. torchvision's `affine` copies the numbers to the device.
    """
    height, width = x_TCHW.shape[2:]
    x_W = torch.arange(width, device=x_TCHW.device) + 0.5
    y_H1 = torch.arange(height, device=x_TCHW.device)[:, None] + 0.5
    x_HW, y_HW = a * x_W + b * y_H1 + c, d * x_W + e * y_H1 + f
    inside_HW = (x_HW >= 0) & (x_HW < width) & (y_HW >= 0) & (y_HW < height)
    grid_1HW2 = torch.stack([x_HW * (2 / width) - 1, y_HW * (2 / height) - 1], 2)[None]
    # All frames have the same grid, so they are channels of one picture.
    own_1NHW = x_TCHW.float().flatten(0, 1)[None]
    how: Any = {"mode": "bicubic", "padding_mode": "border", "align_corners": False}
    moved_NHW = F.grid_sample(own_1NHW, grid_1HW2, **how)[0].round_().clamp_(0, 255)
    moved_NHW = torch.where(inside_HW, moved_NHW, float(GREY))
    return moved_NHW.to(torch.uint8).view(x_TCHW.shape)


# timm's operations: functions of torchvision's module, a clip and an argument.
FUNCTIONS: dict[str, Callable[[Any, Tensor, float], Tensor]] = {
    "auto_contrast": lambda vision, x, _: vision.autocontrast_image(x),
    "equalize": lambda vision, x, _: vision.equalize_image(x),
    "invert": lambda vision, x, _: 255 - x,
    "posterize": lambda vision, x, bits: vision.posterize_image(x, int(bits)),
    "solarize": lambda vision, x, least: torch.where(x < float(least), x, 255 - x),
    "solarize_add": lambda vision, x, more: torch.where(x < 128, x + int(more), x),
    "color": lambda vision, x, factor: vision.adjust_saturation_image(x, factor),
    "contrast": lambda vision, x, factor: vision.adjust_contrast_image(x, factor),
    "brightness": lambda vision, x, factor: vision.adjust_brightness_image(x, factor),
    "sharpness": lambda vision, x, factor: _sharper(x, factor),
    "rotate": lambda vision, x, degrees: _turned(x, degrees),
    "shear_x": lambda vision, x, share: _moved(x, 1, share, 0, 0, 1, 0),
    "shear_y": lambda vision, x, share: _moved(x, 1, 0, 0, share, 1, 0),
    "translate_x_rel": lambda vision, x, share: _moved(x, 1, 0, share * x.shape[3], 0, 1, 0),
    "translate_y_rel": lambda vision, x, share: _moved(x, 1, 0, 0, 0, 1, share * x.shape[2]),
}
# Their numbers in `drawn_BN2`.
OPERATIONS = tuple(FUNCTIONS)
