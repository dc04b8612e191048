"""Tests of masks on real H.264 motion vectors.

The dense MGM box follows moving objects, because of the vectors.
"""

from pathlib import Path

import numpy as np
import pytest

from mgm.data.synthetic.generator import generate, load_boxes
from mgm.data.synthetic.params import Synthetic
from mgm.masking import Grid, make_boxes
from mgm.video import read_clip, slot_magnitude

SIZE, FRAMES = 224, 24
SAMPLED = range(0, FRAMES, 2)  # the paper's stride on SSv2
GRID = Grid(len(SAMPLED) // 2, 14, 14)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn")
    index = generate(
        Synthetic(
            train_per_class=2,
            test_per_class=1,
            size=SIZE,
            frames=FRAMES,
            pan=2.8,
            sprites=2,
            seed=1,
        ),
        out,
    )
    return index, load_boxes(out)


def _in(x, y, top, left, bottom, right) -> bool:
    return bottom > top and top - 4 <= y <= bottom + 4 and left - 4 <= x <= right + 4


def share_in_a_moving_box(index, boxes, shuffle: bool) -> float:
    """Return the share of boxes that are centred in an annotated sprite of their slot's two frames.

    Slots without motion are not counted. The centre of a box is that of a cell of 8 x 8 pixels. The
    cell may only touch the sprite, so half a cell of distance is allowed.
    """
    rng = np.random.default_rng(0)
    inside = []
    for position, video in enumerate(index.videos):
        clip = read_clip(video.path, SAMPLED)
        motion_SHW = slot_magnitude(
            clip.motion_THW2, clip.distance_THW, clip.has_motion_T, tubelet=2
        )
        # Shuffling moves the same vectors to other places.
        if shuffle:
            motion_SHW = np.stack(
                [rng.permutation(slot.ravel()).reshape(slot.shape) for slot in motion_SHW]
            )
        chosen = make_boxes("mgm", GRID, motion_SHW[None], np.array([position]))
        for slot in range(1, GRID.slots):
            if motion_SHW[slot].any():
                x, y = (float(centre[0, slot]) * SIZE / 14 for centre in (chosen.x_BS, chosen.y_BS))
                annotated = boxes[Path(video.path).stem][SAMPLED[2 * slot : 2 * slot + 2]].reshape(
                    -1, 4
                )
                inside.append(any(_in(x, y, *box) for box in annotated))
    assert len(inside) > 150
    return float(np.mean(inside))


def test_the_dense_box_is_centred_on_moving_things(drawn):
    assert share_in_a_moving_box(*drawn, shuffle=False) >= 0.9


def test_on_shuffled_vectors_it_is_not(drawn):
    assert share_in_a_moving_box(*drawn, shuffle=True) < 0.5
