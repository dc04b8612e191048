"""Figures that draw every run of some cells:

a dot a seed, and how far each row lies from one of them, paired by seed.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mgm.paper.registry import Plot
from mgm.report.cells import row_of
from mgm.report.figures.style import ACCENT, INK, LINE, QUIET, STYLE, blank, wrapped, write_below
from mgm.results.result import RunStatus
from mgm.results.statistics import over_seeds

WIDTH, ROW = 7.4, 0.27  # inches


def runs_of(plot: Plot, found: Mapping[str, RunStatus]) -> pd.DataFrame:
    """Return one row per finished run: `line`, `tick` (its cell's row), `seed`, `value`."""
    lines = []
    for name, cells in plot.lines.items():
        for _, cell in cells:
            values = row_of(cell, found).values
            lines += [
                (name, cell.row, run.seed, value)
                for run, value in zip(cell.runs, values, strict=True)
                if value is not None
            ]
    return pd.DataFrame(lines, columns=["line", "tick", "seed", "value"])


def differences(runs: pd.DataFrame, beside: str) -> pd.DataFrame:
    """Return one row per line and tick that has at least two seeds in common with tick `beside`.

    Columns: `line`, `tick`, and `mean`, `low`, `high` of the difference.
    """
    lines = []
    for line, some in runs.groupby("line", sort=False):
        values = some.pivot(index="seed", columns="tick", values="value").reindex(
            columns=some.tick.unique()
        )
        for tick in values.columns.drop(beside) if beside in values else ():
            apart = (values[tick] - values[beside]).dropna()
            if len(apart) > 1:
                gaps = over_seeds(apart.tolist())
                lines.append((line, tick, gaps.mean, gaps.low, gaps.high))
    return pd.DataFrame(lines, columns=["line", "tick", "mean", "low", "high"])


def intervals(axes: Axes, gaps: pd.DataFrame, ticks: Sequence[str]) -> None:
    """Draw `mean`, `low` and `high` of each `tick` on its own line of `ticks`, beside a line at
    zero.
    """
    places = [ticks.index(tick) for tick in gaps.tick]
    reach = gaps[["low", "high"]].sub(gaps["mean"], axis=0).abs().to_numpy().T
    axes.errorbar(
        gaps["mean"].to_numpy(),
        places,
        xerr=reach,
        fmt="o",
        markersize=3.6,
        color=INK,
        elinewidth=1.2,
    )
    axes.axvline(0, color=ACCENT, linewidth=0.9)


@mpl.rc_context(STYLE)
def seeds(plot: Plot, runs: pd.DataFrame, missing: str) -> Figure:
    """Two panels a line: every seed of every row (of `runs_of`) with its mean, and each row minus
    `plot.beside` with the 95 % interval of Student's t. `missing` is a sentence on the runs that
    are not done."""
    gaps = differences(runs, plot.beside)
    key = (
        f"Dots are seeds, bars their means. Right: a row minus {plot.beside}, paired by seed, "
        "with its 95 % interval."
    )
    text = wrapped((key, missing), WIDTH)
    foot, panel = 0.5 + (len(text) + 0.8) * LINE, ROW * len(plot.ticks) + 0.75
    shown = list(runs.line.unique()) or [*plot.lines][:1]
    height = panel * len(shown) + foot
    figure = blank(WIDTH, height)
    panels = figure.subplots(len(shown), 2, squeeze=False, sharey="row", width_ratios=(3, 2))
    figure.subplots_adjust(
        left=1.5 / WIDTH,
        right=1 - 0.15 / WIDTH,
        top=1 - 0.34 / height,
        bottom=foot / height,
        wspace=0.07,
        hspace=0.75 / panel,
    )
    for (dots, bars), name in zip(panels, shown, strict=True):
        some, apart = runs[runs.line == name], gaps[gaps.line == name]
        colours = {tick: ACCENT if tick == plot.beside else INK for tick in plot.ticks}
        if len(some):
            look = {
                "hue": "tick",
                "palette": colours,
                "size": 3.6,
                "alpha": 0.45,
                "jitter": 0,
                "legend": False,
            }
            sns.stripplot(some, x="value", y="tick", order=plot.ticks, ax=dots, **look)
            for tick, mean in some.groupby("tick").value.mean().items():
                dots.plot(
                    mean, tick, "|", markersize=13, markeredgewidth=1.8, color=colours[str(tick)]
                )
        intervals(bars, apart, plot.ticks)
        dots.set_title(plot.shown.get(name, name), loc="left", size=9.5)
        bars.set_title(f"Minus {plot.beside} (points)", loc="left", size=9.5)
        dots.set_yticks(range(len(plot.ticks)), plot.ticks)
        for axes in (dots, bars):
            axes.set(xlabel=plot.x if axes is dots else "", ylabel="")
            axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(color=QUIET, width=0.6, labelsize=8)
            axes.tick_params(axis="y", length=0)
    write_below(figure, text)
    return figure
