"""What figures of several panels share."""

from collections.abc import Sequence
from typing import Any

import seaborn as sns
from matplotlib.figure import Figure

from mgm.report.figures.style import ACCENT, LOOKS, caption

# Inches. A phone shows a figure of this width at its full size, so panels stand below one another.
WIDTH, HEIGHT, ROW = 4.2, 2.6, 0.34  # of a figure, a panel, a row of dots
# A panel per `panel`.
FACETS: dict[str, Any] = {
    "col": "panel",
    "col_wrap": 1,
    "height": HEIGHT,
    "aspect": WIDTH / HEIGHT,
}
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


def legend(grid: sns.FacetGrid, names: Sequence[str]) -> None:
    """Move the legend above the panels, as wide as they are."""
    ncols = 1 if max(map(len, names)) > 24 else 2
    sns.move_legend(grid, "lower left", bbox_to_anchor=(0, 1), ncols=ncols, title=None)


def finished(
    grid: sns.FacetGrid, x: str, y: str, names: Sequence[str], unit: str, more: str
) -> Figure:
    """Write titles, legend and caption of a figure of `PANELS`. `more` ends the caption."""
    grid.set_axis_labels(x, y)
    grid.set_titles("{col_name}")
    legend(grid, names)
    return caption(grid.figure, f"Marks and bars: mean and 95 % interval over {unit}s.{more}")
