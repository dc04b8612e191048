"""What each row gains over another, in the order of the view's rows: a line per dataset."""

from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from mgm.report.estimates import minus
from mgm.report.views import options_of
from mgm.spec import FrozenModel
from mgm.study.schema import View


class Options(FrozenModel):
    # The row that is subtracted.
    minus: str
    # Datasets of one colour, by the colour's name in the legend. The last are drawn bold.
    colours: Annotated[dict[str, tuple[str, ...]], Field(min_length=1, max_length=6)]


def data(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    """Return a row per mark of datasets whose runs are all finished: a panel per column."""
    options = options_of(view)
    colours = {name: colour for colour, names in options.colours.items() for name in names}
    # Lines of a study in progress would rest on fewer datasets than the others.
    whole = frame.groupby("dataset").status.transform(lambda status: (status == "finished").all())
    if not whole.any():
        return frame[whole]
    parts = [minus(part, options.minus) for _, part in frame[whole].groupby("column", sort=False)]
    points = pd.concat(parts, ignore_index=True)
    rows = [row for row in view.rows if row != options.minus]
    points = points[points.row.isin(rows) & points.dataset.isin(list(colours))]
    points = points.assign(
        panel=points.column, place=points.row.map(rows.index), colour=points.dataset.map(colours)
    )
    names = ["panel", "title", "colour", "row", "place", "steps", "mean", "low", "high", "unit"]
    return points[names]


def draw(points: pd.DataFrame, view: View) -> Any:
    import numpy as np
    import seaborn as sns

    from mgm.report.figures.panels import FACETS, WIDTH, colours_of
    from mgm.report.figures.style import INK, caption

    options, places = options_of(view), points.drop_duplicates("place").sort_values("place")
    colours = colours_of([*options.colours])
    bold, shortest = [*colours][-1], points.steps.min()
    grid = sns.FacetGrid(points, **FACETS | {"height": 3.4, "aspect": WIDTH / 3.4}, sharey=False)
    for panel, axes in grid.axes_dict.items():
        lines = points[points.panel == panel].groupby(["title", "colour", "steps"], sort=False)
        for nth, ((_, colour, steps), line) in enumerate(lines):
            line = line.sort_values("place").replace([-np.inf, np.inf], np.nan)
            # Bars of several lines would hide one another.
            x = line.place + 0.03 * (nth - (lines.ngroups - 1) / 2)
            look = {"color": colours[colour], "linewidth": 2.6 if colour == bold else 1.2}
            dashes = "-" if steps == shortest else "--"
            axes.plot(x, line["mean"], marker="o", markersize=3.5, linestyle=dashes, **look)
            axes.vlines(x, line.low, line.high, colours[colour], linewidth=0.8, alpha=0.5)
        axes.axhline(0, color=INK, linewidth=0.8, zorder=0)
        axes.set_xticks(places.place, places.row, rotation=30, ha="right")
        axes.grid(axis="y")
    for colour in points.colour.unique():
        axes.plot([], [], color=colours[colour], label=colour)
    grid.set_axis_labels("", f"Gain over {options.minus.lower()} (points)")
    grid.set_titles("{col_name}")
    grid.figure.legend(*axes.get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0, 1))
    grid.tight_layout()
    text = f"A line per setting: mean and 95 % interval over {points.unit.iloc[0]}s."
    longer = f" Dashed: more than {shortest:,.0f} steps." if points.steps.nunique() > 1 else ""
    return caption(grid.figure, text + longer)
