"""The dense MGM box follows moving objects, because of real H.264 motion vectors."""

import numpy as np

import mgm
from mgm.drawn import discs
from mgm.drawn.params import Synthetic, place
from mgm.drawn.sets import draw
from mgm.masking import Grid, make_boxes

SIZE, FRAMES = 224, 24
SAMPLED = range(0, FRAMES, 2)  # the paper's stride on SSv2
GRID = Grid(len(SAMPLED) // 2, 14, 14)


def _in(x, y, top, left, bottom, right) -> bool:
    # The centre is that of a cell of 8 x 8 pixels, which may only touch the disc.
    return bottom > top and top - 4 <= y <= bottom + 4 and left - 4 <= x <= right + 4


def test_the_box_is_centred_on_moving_things_and_not_with_shuffled_vectors(tmp_path, rng):
    counts = {"train_per_class": 1, "test_per_class": 1, "sprites": 2, "seed": 1}
    params = Synthetic(size=SIZE, frames=FRAMES, pan=2.8, **counts)
    inside = {False: [], True: []}
    for position, name in enumerate(params.videos):
        draw(params, name, tmp_path / f"{name}.mp4")
        boxes_TN4 = discs.boxes(params, discs.scene(params, *place(name)))
        motion_SHW = mgm.track(tmp_path / f"{name}.mp4")[list(SAMPLED)].magnitude(2)
        moved_SHW = np.stack([rng.permutation(x.ravel()).reshape(x.shape) for x in motion_SHW])
        for shuffled, guide_SHW in ((False, motion_SHW), (True, moved_SHW)):
            chosen = make_boxes("mgm", GRID, guide_SHW[None], np.array([position]))
            for slot in range(1, GRID.slots):
                if motion_SHW[slot].any():
                    x, y = (float(c[0, slot]) * SIZE / 14 for c in (chosen.x_BS, chosen.y_BS))
                    own_N4 = boxes_TN4[SAMPLED[2 * slot : 2 * slot + 2]].reshape(-1, 4)
                    inside[shuffled].append(any(_in(x, y, *box) for box in own_N4))
    assert len(inside[False]) > 100
    assert np.mean(inside[False]) >= 0.9
    assert np.mean(inside[True]) < 0.5
