import re

import pytest

from mgm.report.page.svg import PERCENT, POINTS_OF, TEMPLATES, Axis
from mgm.results.statistics import Estimate


def test_an_axis_of_percentages_stays_within_them():
    assert Axis.over([-5.2, 58.0, 119.3], within=PERCENT) == Axis(0, 100)
    assert Axis.over([31.0, 62.0], within=PERCENT) == Axis(30, 70)
    assert (
        Axis.over([100.0], within=PERCENT).high,
        Axis.over([-130.0, 20.0], within=POINTS_OF).low,
    ) == (100, -100)
    assert Axis.over([2500.0]).high > 2500


@pytest.mark.parametrize(
    ("low", "high", "arrows"), [(20, 80, 0), (0, 100, 0), (-5, 58, 1), (-10, 119, 2)]
)
def test_an_interval_beyond_the_axis_ends_there_with_an_arrow(low, high, arrows):
    axis = Axis(0, 100)
    interval = TEMPLATES.get_template("svg.html.j2").module.interval
    drawn = interval(axis, Estimate((low + high) / 2, low, high, 3))
    assert drawn.count('class="beyond"') == arrows
    x1, x2 = map(float, re.search(r'class="bar" x1="([\d.]+)" x2="([\d.]+)"', drawn).groups())
    assert (x1, x2) == (axis.at(max(low, 0)), axis.at(min(high, 100)))
    assert 0 < x1 < x2 < axis.width
    assert "bar" not in interval(axis, Estimate(0))
