import subprocess
import sys

import numpy as np
import pytest

from mgm.report.figures import masks_on_a_clip, save


def arrays(slots=4, masks=("tube", "mgm")):
    rng = np.random.default_rng(0)
    boxes_NS4 = np.full((len(masks), slots, 4), np.nan, np.float32)
    boxes_NS4[1] = (1, 2, 5, 5)
    return {
        "frames_SHWC": rng.integers(0, 256, (slots, 48, 48, 3), dtype=np.uint8),
        "index_S": np.arange(slots) * 4,
        "motion_SHW2": rng.normal(size=(slots, 6, 6, 2)).astype(np.float32),
        "magnitude_SHW": rng.random((slots, 6, 6)).astype(np.float32),
        "has_motion_S": np.arange(slots) > 0,
        "names_N": np.array(masks),
        "ratio_N": np.array([0.9, 0.75]),
        "masked_NSHW": rng.random((len(masks), slots, 6, 6)) < 0.75,
        "boxes_NS4": boxes_NS4,
    }


@pytest.mark.parametrize("slots", [1, 4, 8])
def test_all_text_lies_inside_and_apart(slots):
    figure = masks_on_a_clip(
        arrays(slots), "Scale smoke: toy models trained for seconds on generated videos; it says nothing about which mask is best."
    )
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts if text.get_text()]
    assert len(boxes) >= slots + 4
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        for other in boxes[:i]:
            assert not box.overlaps(other)


def test_three_formats_and_the_arrays_the_same_each_time(tmp_path):
    for name in ("a", "b"):
        save(masks_on_a_clip(arrays()), tmp_path / name / "figure5", arrays())
    for ending in ("svg", "pdf", "png", "npz"):
        first, second = ((tmp_path / name / f"figure5.{ending}").read_bytes() for name in ("a", "b"))
        assert first == second
    with np.load(tmp_path / "a" / "figure5.npz") as saved:
        assert np.array_equal(saved["masked_NSHW"], arrays()["masked_NSHW"])


def test_still_clips_and_other_masks_can_be_drawn(tmp_path):
    still = arrays()
    still["motion_SHW2"][:] = still["magnitude_SHW"][:] = 0
    still["names_N"] = np.array(["mine", "yours"])
    save(masks_on_a_clip(still), tmp_path / "figure", still)


def test_drawing_needs_no_torch():
    code = "import sys; import mgm.report.figures; assert 'torch' not in sys.modules; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
