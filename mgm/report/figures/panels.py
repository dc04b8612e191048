"""What figures of several panels share."""

from collections.abc import Sequence
from typing import Any

import seaborn as sns
from matplotlib.figure import Figure

from mgm.report.figures.style import ACCENT, LOOKS, caption

HEIGHT, ROW = 3.0, 0.3  # inches of a panel, and of a row of dots
# A panel per `panel`, two in a row.
FACETS: dict[str, Any] = {"col": "panel", "col_wrap": 2, "height": HEIGHT, "aspect": 1.25}
PANELS: dict[str, Any] = {**FACETS, "facet_kws": {"sharex": False, "sharey": False}}
MEAN: dict[str, Any] = {
    "linestyle": "none",
    "marker": "|",
    "markersize": 13,
    "markeredgewidth": 1.8,
    "elinewidth": 1.4,
    "color": ACCENT,
}


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Return a colour per name. MGM has the same in all figures."""
    others = iter(LOOKS[1:] * len(names))
    return {name: ACCENT if name == "MGM" else next(others) for name in names}


def finished(
    grid: sns.FacetGrid, x: str, y: str, names: Sequence[str], unit: str, more: str
) -> Figure:
    """Write titles, legend and caption of a figure of `PANELS`. `more` ends the caption."""
    grid.set_axis_labels(x, y)
    grid.set_titles("{col_name}")
    sns.move_legend(grid, "lower left", bbox_to_anchor=(0, 1), ncols=min(len(names), 4), title=None)
    return caption(grid.figure, f"Marks and bars: mean and 95 % interval over {unit}s.{more}")
