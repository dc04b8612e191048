"""The figure of mask coverage shows the numbers it is given, and its text can be read."""

import numpy as np
import pytest
from matplotlib.text import Text

from mgm.report.figures.draw import coverage
from mgm.report.figures.style import KIND, save


def arrays(slots=4, names=tuple(KIND), seed=0):
    rng = np.random.default_rng(seed)
    share_NS = rng.uniform(70, 95, (len(names), slots))
    overall_N = share_NS.mean(1)
    return {
        "names_N": np.array(names),
        "ratio_N": np.full(len(names), 0.75),
        "hidden_N": np.full(len(names), 75.0),
        "share_NS": share_NS,
        "low_NS": share_NS - 2,
        "high_NS": share_NS + 2,
        "overall_N": overall_N,
        "overall_low_N": overall_N - 1,
        "overall_high_N": overall_N + 1,
        "clips_S": np.arange(200, 200 + slots),
    }


def panels(figure):
    """Return each mask's panel by its title."""
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


@pytest.mark.parametrize("slots", [1, 8])
def test_a_panel_shows_its_masks_numbers(slots):
    given = arrays(slots)
    figure = coverage(given)
    found = panels(figure)
    assert set(found) == set(KIND)
    for row, name in enumerate(given["names_N"]):
        axes = found[str(name)]
        line = next(line for line in axes.lines if line.get_marker() == "o")
        assert np.array_equal(line.get_xdata(), np.arange(1, slots + 1))
        assert np.array_equal(line.get_ydata(), given["share_NS"][row])
        bars = axes.collections[0].get_segments()
        assert np.array_equal(
            [bar[:, 1] for bar in bars], np.stack([given["low_NS"][row], given["high_NS"][row]], 1)
        )
        assert axes.texts[0].get_text() == f"{given['overall_N'][row]:.1f}"
        low, high = axes.get_ylim()
        assert low < given["low_NS"].min()
        assert high >= 100


@pytest.mark.parametrize("slots", [4, 8])
def test_all_text_lies_inside_and_apart(slots):
    figure = coverage(
        arrays(slots),
        "Scale smoke: toy models trained for seconds; it says nothing about which mask is best. "
        * 2,
    )
    renderer = figure.canvas.get_renderer()
    titles = [text for text in figure.findobj(Text) if text.get_text() in KIND]
    texts = [*figure.texts, *titles, *(text for axes in figure.axes for text in axes.texts)]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    assert len(boxes) == 3 * len(KIND) + 2
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])
    below = figure.texts[0].get_window_extent(renderer)
    assert below.y1 <= min(axes.get_tightbbox(renderer).y0 for axes in figure.axes)
    # Each panel's number is below its lowest error bar.
    for axes in figure.axes:
        number = axes.texts[0].get_window_extent(renderer)
        lowest = min(
            axes.transData.transform(bar)[:, 1].min() for bar in axes.collections[0].get_segments()
        )
        assert number.y1 < lowest


def test_other_masks_and_slots_without_motion_can_be_drawn(tmp_path):
    given = arrays(4, ("mine", "tube"))
    for key in ("share_NS", "low_NS", "high_NS"):
        given[key][:, 1] = np.nan
    figure = coverage(given)
    assert list(panels(figure)) == ["tube", "mine"]
    save(figure, tmp_path / "figure", given)
