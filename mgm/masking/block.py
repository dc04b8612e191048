"""Block: a box at a random place, the same in every slot (Table 4e, static and dense)."""

from mgm.masking.boxes import Boxes, constant_size, first_centre
from mgm.masking.clips import Clips


def block(clips: Clips) -> Boxes:
    x_B, y_B = first_centre(clips)
    width_BS, height_BS = constant_size(clips)
    return Boxes(
        x_B[:, None].expand_as(width_BS), y_B[:, None].expand_as(width_BS), width_BS, height_BS
    )
