import base64
import io

import numpy as np
from matplotlib.image import imread

from mgm.report.page.pictures import mask_player
from tests.helpers.fake_results import clip_arrays

SLOTS, SIDE, ROWS = 4, 48, 6


def pixels(uri, kind):
    head, data = uri.split(",")
    assert head == f"data:image/{kind};base64"
    return imread(io.BytesIO(base64.b64decode(data)), format=kind)


def test_each_strip_holds_its_mask_slot_by_slot():
    smooth_SHWC = np.broadcast_to(
        np.linspace(0, 255, SIDE)[None, :, None, None], (SLOTS, SIDE, SIDE, 3)
    ).astype(np.uint8)
    arrays = clip_arrays(SLOTS) | {"frames_SHWC": smooth_SHWC}
    shown = mask_player(arrays, "run")
    assert [one["name"] for one in shown["strips"]] == ["clip", "motion", "tube", "mgm"]
    assert (shown["slots"], shown["rows"], shown["columns"]) == (SLOTS, ROWS, ROWS)
    for one, masked_SHW in zip(shown["strips"][2:], arrays["masked_NSHW"]):
        strip = pixels(one["strip"], "png")
        assert strip.shape == (ROWS, SLOTS * ROWS, 4)
        for slot in range(SLOTS):
            assert np.array_equal(
                strip[:, slot * ROWS : (slot + 1) * ROWS, 3] > 0.5, masked_SHW[slot]
            )
    assert shown["strips"][3].get("about") == "motion-guided, dense, 75\u00a0% hidden"
    assert [one["boxes"] for one in shown["strips"][2:]] == [
        (),
        [[-1.5, -0.5, 5, 5]] * SLOTS,
    ]  # left, top, width and height in patches
    strip, given = (
        pixels(shown["clip"], "webp"),
        np.concatenate(list(arrays["frames_SHWC"]), axis=1),
    )
    assert np.abs(strip[..., :3].astype(float) - given).mean() < 3  # of 255: WebP is lossy
