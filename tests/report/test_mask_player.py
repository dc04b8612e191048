import base64
import io

import numpy as np
import pytest
from matplotlib.image import imread

from mgm.report.page.mask_player import mask_player
from tests.helpers.fake_results import clip_arrays

SLOTS, SIDE, ROWS = 4, 48, 6


@pytest.fixture
def arrays():
    smooth_SHWC = np.broadcast_to(np.linspace(0, 255, SIDE)[None, :, None, None], (SLOTS, SIDE, SIDE, 3)).astype(np.uint8)
    return clip_arrays(SLOTS) | {"frames_SHWC": smooth_SHWC}


def pixels(uri, kind):
    head, data = uri.split(",")
    assert head == f"data:image/{kind};base64"
    return imread(io.BytesIO(base64.b64decode(data)), format=kind)


def test_each_strip_holds_its_mask_slot_by_slot(arrays):
    shown = mask_player(arrays, "run")
    assert [one.name for one in shown.strips] == ["the clip", "motion", "tube", "mgm"]
    assert (shown.slots, shown.rows, shown.columns) == (SLOTS, ROWS, ROWS)
    for one, masked_SHW in zip(shown.strips[2:], arrays["masked_NSHW"]):
        strip = pixels(one.strip, "png")
        assert strip.shape == (ROWS, SLOTS * ROWS, 4)
        for slot in range(SLOTS):
            assert np.array_equal(strip[:, slot * ROWS : (slot + 1) * ROWS, 3] > 0.5, masked_SHW[slot])
    assert shown.strips[3].about == "motion-guided, dense, 75% hidden"


def test_the_clip_is_the_clip(arrays):
    strip = pixels(mask_player(arrays, "run").clip, "webp")
    assert strip.shape[:2] == (SIDE, SLOTS * SIDE)
    given = np.concatenate(list(arrays["frames_SHWC"]), axis=1)
    assert np.abs(strip[..., :3].astype(float) - given).mean() < 3  # of 255: WebP is lossy


def test_boxes_are_corners_and_sides_and_only_where_there_are_any(arrays):
    tube, mgm = mask_player(arrays, "run").strips[2:]
    assert tube.boxes == ()
    assert mgm.boxes == [[-1.5, -0.5, 5, 5]] * SLOTS
