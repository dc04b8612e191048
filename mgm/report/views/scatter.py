"""Each mark is a row: its gain over another row, against what is measured of it."""

from typing import Annotated, Any

import pandas as pd
from pydantic import BeforeValidator, Field

from mgm.report.estimates import minus
from mgm.report.views import options_of
from mgm.spec import FrozenModel
from mgm.study.schema import View


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Options(FrozenModel):
    # Measured columns: one, or several, each with its panel.
    x: Annotated[tuple[str, ...], BeforeValidator(_one_or_several), Field(min_length=1)]
    # The column and the row of the gain.
    y: str
    minus: str


def data(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    """Return a row per mark: a dataset, a row and a measured column, whose mean is `x`.

    Of one measured column, a panel is a dataset; of several, a panel is a column, and a mark's
    shape says the dataset too.
    """
    options, parts = options_of(view), []
    gained = minus(frame[frame.column == options.y], options.minus)
    for column in options.x:
        measured = frame[(frame.column == column) & frame["mean"].notna()]
        measured = measured.assign(x=measured["mean"])[["dataset", "row", "x"]]
        parts.append(gained.merge(measured, on=["dataset", "row"]).assign(column=column))
    points = pd.concat(parts, ignore_index=True)
    if len(options.x) > 1:
        shape = (points.title + ", " + points.mark).str.strip(", ")
        points = points.assign(panel=points.column, shape=shape)
    else:
        points = points.assign(panel=points.title, shape=points.mark)
    names = ["panel", "line", "shape", "column", "row", "x", "mean", "low", "high", "unit"]
    return points[names]


def draw(points: pd.DataFrame, view: View) -> Any:
    import numpy as np
    import seaborn as sns

    from mgm.report.figures.panels import PANELS, colours_of, finished
    from mgm.report.figures.style import INK

    options, several = options_of(view), points.column.nunique() > 1
    shape = "Dataset" if several else "Hidden"
    points = points.rename(columns={"line": "Pretraining", "shape": shape})
    names = list(points.Pretraining.unique())
    colours = colours_of(names)
    look: dict[str, Any] = {"hue": "Pretraining", "palette": colours, "s": 38}
    style = shape if (points[shape] != "").any() else None
    grid = sns.relplot(points, **PANELS, **look, x="x", y="mean", style=style)
    for name, axes in grid.axes_dict.items():
        for row in points[points.panel == name].to_dict("records"):
            if np.isfinite(row["low"]):
                colour = colours[row["Pretraining"]]
                axes.vlines(row["x"], row["low"], row["high"], colour, linewidth=0.9, alpha=0.6)
        axes.axhline(0, color=INK, linewidth=0.8, zorder=0)
        axes.grid(axis="y")
    x = "Share (%)" if several else f"{points.column.iloc[0]} (%)"
    y = f"Gain over {options.minus} (points)"
    return finished(grid, x, y, names, points.unit.iloc[0], "")
