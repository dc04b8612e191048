"""Simulated-motion masking (3.2, eq. 5): a box carried by random velocities."""

import torch
from torch import Tensor

from mgm.masking import prng
from mgm.masking.boxes import Boxes, constant_size, first_centre
from mgm.masking.clips import Clips

SPEED = 1 / 7  # largest velocity, in frame sides a slot (2 of 14 patches); the paper gives no range


def velocities(clips: Clips) -> tuple[Tensor, Tensor]:
    """v_x and v_y of slots 1, 2, ..., each (B, S - 1), drawn anew for every slot as eq.

    5 indexes them, uniform in +-SPEED.
    """
    steps = clips.grid.slots - 1
    steps_B2N = 2 * clips.uniform(prng.VELOCITIES, 2 * steps).unflatten(1, (2, steps)) - 1
    return steps_B2N[:, 0] * (SPEED * clips.grid.width), steps_B2N[:, 1] * (
        SPEED * clips.grid.height
    )


def smm(clips: Clips) -> Boxes:
    """Eq. 5 without its scaling s_t, which keeps w = h and so changes nothing when K patches are
    hidden whatever the box's size.

    The paper does not say what happens at the edge: here the centre lives in the frame and bounces
    off its border.
    """
    x_BS, y_BS = (
        _walk(start_B, step_BN, side)
        for start_B, step_BN, side in zip(
            first_centre(clips), velocities(clips), (clips.grid.width, clips.grid.height)
        )
    )
    return Boxes(x_BS, y_BS, *constant_size(clips))


def _walk(start_B: Tensor, step_BN: Tensor, side: int) -> Tensor:
    positions = [start_B]
    for step_B in step_BN.unbind(1):
        bounced_B = (positions[-1] + step_B).abs()  # off 0 ...
        positions.append(side - (side - bounced_B).abs())  # ... and off the far side
    return torch.stack(positions, 1)
