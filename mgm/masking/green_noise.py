"""Green3D noise: white noise, band-passed in space and time (Bhowmik et al., 2025, after ColorMAE,
Hinojosa et al., ECCV 2024).

The papers define green noise as the difference of two Gaussian blurs, and show where it is strong
(carlosh93/ColorMAE: models/utils/masking_generator.py). The widths of the two are our reading.
Whole numbers throughout, so that every device agrees.
"""

from functools import cache
from math import exp

from torch import Tensor

from mgm.masking import prng
from mgm.masking.choose import topk_mask
from mgm.masking.clips import Clips

NARROW, WIDE = 1.0, 2.0  # standard deviations of the two blurs, in patches and slots
REACH = 6  # of the kernels: three times the wider one
UNIT = 1 << 8  # what a kernel sums to


def green_noise(clips: Clips) -> Tensor:
    """Noise is drawn beyond the clip, as far as the filter reaches;

    in every slot the patches of its highest values are visible.
    """
    slots, height, width = (
        side + 2 * REACH for side in (clips.grid.slots, clips.grid.height, clips.grid.width)
    )
    white_BSHW = (clips.bits(prng.NOISE, slots * height * width) >> 8).unflatten(
        1, (slots, height, width)
    )
    green_BSHW = _blurred(white_BSHW, NARROW) - _blurred(white_BSHW, WIDE)
    return topk_mask(green_BSHW.flatten(2), clips.hidden)


def _blurred(x_BSHW: Tensor, width: float) -> Tensor:
    """Blurred along each axis in turn, without the margin; times UNIT**3."""
    for axis in (3, 2, 1):
        inner = x_BSHW.shape[axis] - 2 * REACH
        x_BSHW = sum(
            weight * x_BSHW.narrow(axis, shift, inner)
            for shift, weight in enumerate(_kernel(width))
            if weight
        )  # type: ignore
    return x_BSHW


@cache
def _kernel(width: float) -> list[int]:
    """A Gaussian in whole numbers that sum to UNIT; the middle takes what rounding leaves."""
    weights = [exp(-0.5 * (x / width) ** 2) for x in range(-REACH, REACH + 1)]
    whole = [round(UNIT * weight / sum(weights)) for weight in weights]
    whole[REACH] += UNIT - sum(whole)
    return whole
