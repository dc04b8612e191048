"""Figures that draw every run of some cells: a dot a seed, and how far each row lies from one of them, paired by seed."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mgm.experiments.registry import Plot
from mgm.report.cells import gain, row_of
from mgm.report.figures.style import ACCENT, INK, LINE, QUIET, STYLE, blank, wrapped, write_below
from mgm.runs.result import RunStatus

WIDTH, ROW = 7.4, 0.27  # inches


def runs_of(plot: Plot, found: Mapping[str, RunStatus]) -> pd.DataFrame:
    """A row a run that is done: `line`, `tick` (its cell's row), `seed`, `value`."""
    lines = []
    for name, cells in plot.lines.items():
        for _, cell in cells:
            values = row_of(cell, found).values
            lines += [(name, cell.row, run.seed, value) for run, value in zip(cell.runs, values, strict=True) if value is not None]
    return pd.DataFrame(lines, columns=["line", "tick", "seed", "value"])


def differences(plot: Plot, found: Mapping[str, RunStatus]) -> pd.DataFrame:
    """A row a cell that shares two seeds with its line's `plot.beside`: `line`, `tick`, and `mean`, `low`, `high` of the difference."""
    lines = []
    for name, cells in plot.lines.items():
        rows = {cell.row: row_of(cell, found) for _, cell in cells}
        for tick, row in rows.items():
            if tick != plot.beside and (less := gain(row, rows[plot.beside])) and less.low is not None:
                lines.append((name, tick, less.mean, less.low, less.high))
    return pd.DataFrame(lines, columns=["line", "tick", "mean", "low", "high"])


@mpl.rc_context(STYLE)
def seeds(plot: Plot, found: Mapping[str, RunStatus], missing: str) -> Figure:
    """Two panels a line: every seed of every row with its mean, and each row less `plot.beside` with the 95 % interval of Student's t."""
    runs, less = runs_of(plot, found), differences(plot, found)
    key = f"Dots are seeds, bars their means. Right: a row less {plot.beside}, paired by seed, with its 95 % interval."
    text = wrapped((key, missing), WIDTH)
    foot, panel = 0.5 + (len(text) + 0.8) * LINE, ROW * len(plot.ticks) + 0.75
    shown = list(runs.line.unique()) or [*plot.lines][:1]
    height = panel * len(shown) + foot
    figure = blank(WIDTH, height)
    panels = figure.subplots(len(shown), 2, squeeze=False, sharey="row", width_ratios=(3, 2))
    figure.subplots_adjust(
        left=1.5 / WIDTH, right=1 - 0.15 / WIDTH, top=1 - 0.34 / height, bottom=foot / height, wspace=0.07, hspace=0.75 / panel
    )
    for (dots, bars), name in zip(panels, shown, strict=True):
        some, apart = runs[runs.line == name], less[less.line == name]
        colours = {tick: ACCENT if tick == plot.beside else INK for tick in plot.ticks}
        if len(some):
            sns.stripplot(
                some,
                x="value",
                y="tick",
                order=plot.ticks,
                hue="tick",
                palette=colours,
                size=3.6,
                alpha=0.65,
                jitter=0,
                legend=False,
                ax=dots,
            )
            for tick, mean in some.groupby("tick").value.mean().items():
                dots.plot(mean, tick, "|", markersize=13, markeredgewidth=1.8, color=colours[str(tick)])
        if len(apart):
            places = [plot.ticks.index(tick) for tick in apart.tick]
            reach = np.abs(apart[["low", "high"]].sub(apart["mean"], axis=0)).T
            bars.errorbar(apart["mean"], places, xerr=reach, fmt="o", markersize=3.6, color=INK, elinewidth=1.2)
        bars.axvline(0, color=ACCENT, linewidth=0.9)
        dots.set_title(name, loc="left", size=9.5)
        bars.set_title(f"less {plot.beside}, in points", loc="left", size=9.5)
        dots.set_yticks(range(len(plot.ticks)), plot.ticks)
        for axes in (dots, bars):
            axes.set(xlabel=plot.x if axes is dots else "", ylabel="")
            axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(color=QUIET, width=0.6, labelsize=8)
            axes.tick_params(axis="y", length=0)
    write_below(figure, text)
    return figure
