"""A dot per sampling unit of each row, or of each difference between rows, with the mean."""

from typing import Any

import pandas as pd

from mgm.report.estimates import per_unit
from mgm.spec import FrozenModel
from mgm.study.schema import View


class Options(FrozenModel):
    # Title of the x axis, and a value to mark, such as 0.
    axis: str
    rule: float | None = None


def data(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    """Return a row per dot, with the mean and the interval of its row."""
    rows = frame[~frame.control & (frame.n > 0)]
    # With one unit each there is nothing to see beside a table.
    rows = rows[[frame.n.max() > 1] * len(rows)]
    parts = [
        pd.DataFrame({"value": per_unit(row["values"], row["by"])}).assign(
            **{name: row[name] for name in ("title", "row", "mean", "low", "high", "unit")}
        )
        for row in rows.to_dict("records")
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def draw(dots: pd.DataFrame, view: View) -> Any:
    import textwrap

    import numpy as np
    import seaborn as sns

    from mgm.report.figures.panels import MEAN, ROW, WIDTH
    from mgm.report.figures.style import INK, QUIET, caption
    from mgm.report.views import options_of

    options, unit = options_of(view), dots.unit.iloc[0]
    means = dots.drop_duplicates(["title", "row"])
    counts = means.groupby("title", sort=False).row.nunique()
    grid = sns.FacetGrid(
        dots,
        row="title",
        sharey=False,
        gridspec_kws={"height_ratios": counts.tolist()},
    )
    for dataset, axes in grid.axes_dict.items():
        own = means[means.title == dataset]
        places = np.arange(len(own))
        for place, name in zip(places, own.row):
            values = dots.value[(dots.title == dataset) & (dots.row == name)]
            # Equal values stand above one another.
            heights = place + 0.06 * (np.arange(len(values)) % 5 - 2)
            axes.plot(values, heights, "o", color=QUIET, markersize=3.4, alpha=0.7, mew=0)
        reach = own[["low", "high"]].sub(own["mean"], axis=0).abs().replace(np.inf, np.nan)
        axes.errorbar(own["mean"], places, xerr=reach.T, **MEAN)
        axes.set_yticks(places, [textwrap.fill(name, 26) for name in own.row])
        axes.set_ylim(len(own) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        if options.rule is not None:
            axes.axvline(options.rule, color=INK, linewidth=0.8, zorder=0)
    grid.set_axis_labels(options.axis, "")
    grid.set_titles("{row_name}")
    grid.figure.set_size_inches(WIDTH, ROW * counts.sum() + 0.6 * len(counts) + 0.4)
    grid.figure.tight_layout()
    text = f"Dots: one per {unit}. Orange: mean and 95 % interval over {unit}s."
    return caption(grid.figure, text)
