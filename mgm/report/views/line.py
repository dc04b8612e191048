"""A line per kind of pretraining, with 95 % intervals."""

from typing import Any, Literal

import pandas as pd

from mgm.report.views import options_of
from mgm.spec import FrozenModel
from mgm.study.schema import View


class Options(FrozenModel):
    # The run's own field on the x axis, and the title of that axis.
    x: Literal["ratio", "epochs", "steps", "size"]
    axis: str


def data(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    """Return a row per point of ours and of the paper, with its panel, line and `x`.

    Rows without pretraining have no `x`: they are levels. A panel with one `x` is left out.
    """
    frame = frame[~frame.control & frame.evaluated]
    points = frame.assign(x=frame[options_of(view).x])
    several = points.groupby(["dataset", "column"]).x.transform("nunique") > 1
    names = ["panel", "line", "row", "x", "mean", "low", "high", "paper", "epochs", "steps"]
    return points[several][[*names, "share", "metric", "unit"]].reset_index(drop=True)


def draw(points: pd.DataFrame, view: View) -> Any:
    import numpy as np
    import seaborn as sns

    from mgm.report.figures.panels import PANELS, colours_of, finished
    from mgm.report.figures.style import INK

    options = options_of(view)
    below = {}
    if options.x == "epochs":
        below = {epochs: f"{n:,.0f}" for epochs, n in zip(points.epochs, points.steps) if n > 0}
    ours = points[points["mean"].notna()]
    levels = ours[ours.x.isna()]
    paper = points.assign(mean=points.paper, panel="The paper")[points.paper.notna()]
    # The paper's only number needs no panel of its own.
    parts = [paper.assign(low=np.nan, high=np.nan), ours] if len(paper) > 1 else [ours]
    lines = pd.concat(parts, ignore_index=True)
    lines = lines[lines.x.notna()]
    names = list(lines.line.unique())
    colours = colours_of(names)
    # Bars of several lines would hide one another.
    place = lines.line.map(names.index) - (len(names) - 1) / 2
    lines = lines.assign(shifted=lines.x * 1.03**place)
    grid = sns.relplot(
        lines,
        **PANELS,
        x="shifted",
        y="mean",
        hue="line",
        style="line",
        palette=colours,
        kind="line",
        markers=True,
        dashes=False,
        # Each point is a mean already.
        estimator=None,
    )
    for name, axes in grid.axes_dict.items():
        part = lines[lines.panel == name]
        for line, own in part.groupby("line"):
            reach = own[["low", "high"]].sub(own["mean"], axis=0).abs().replace(np.inf, np.nan)
            look = {"color": colours[line], "elinewidth": 0.9, "fmt": "none"}
            axes.errorbar(own.shifted, own["mean"], reach.T, **look)
        for level in levels[levels.panel == name].to_dict("records"):
            axes.axhline(level["mean"], color=INK, linewidth=1, linestyle=":")
        axes.set_xscale("log")
        ticks = sorted(part.x.unique())
        turned = 45 if len(ticks) > 5 else 0
        own_below = below if name != "The paper" else {}
        texts = [f"{x:,g}" + (f"\n{own_below[x]}" if x in own_below else "") for x in ticks]
        axes.set_xticks(ticks, texts, rotation=turned, size=7 if below else None)
        axes.minorticks_off()
        axes.grid(axis="y")
    dotted = f" Dotted: {', '.join(levels.line.unique())}." if len(levels) else ""
    x = f"{options.axis}, with our steps below" if below else options.axis
    y = "Share (%)" if points.share.all() else ""
    y = "Top-1 accuracy (%)" if {*points.metric} == {"top1"} else y
    return finished(grid, x, y, names, points.unit.iloc[0], dotted)
