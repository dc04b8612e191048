"""Figures of every seed of some cells, and of each row minus a reference row, paired by seed."""

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

WIDTH, ROW, BETWEEN = 7.4, 0.27, 0.85  # inches


def runs_of(plot: Plot, found: Mapping[str, RunStatus]) -> pd.DataFrame:
    """Return a frame with one row per finished run: `line`, `tick` (table row), `seed`, `value`."""
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


def differences(runs: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return each tick minus tick `reference`, paired by seed, with a 95 % interval.

    Columns: `line`, `tick`, and `mean`, `low`, `high` of the difference. Ticks with fewer than two
    seeds in common with the reference are left out.
    """
    lines = []
    for line, some in runs.groupby("line", sort=False):
        values = some.pivot(index="seed", columns="tick", values="value").reindex(
            columns=some.tick.unique()
        )
        for tick in values.columns.drop(reference) if reference in values else ():
            paired = (values[tick] - values[reference]).dropna()
            if len(paired) > 1:
                gap = over_seeds(paired.tolist())
                lines.append((line, tick, gap.mean, gap.low, gap.high))
    return pd.DataFrame(lines, columns=["line", "tick", "mean", "low", "high"])


def intervals(axes: Axes, gaps: pd.DataFrame, ticks: Sequence[str]) -> None:
    """Draw mean and interval of each tick at its place in `ticks`, and a line at zero."""
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
    """Draw two panels per line: every seed with its mean, and differences from the reference.

    Args:
        runs: as `runs_of` returns them.
        missing: sentence on the runs that are not finished.
    """
    gaps = differences(runs, plot.reference)
    key = (
        f"Left: a dot per seed and a bar at the mean. Right: row minus {plot.reference}, paired by "
        "seed, with 95 % intervals."
    )
    text = wrapped((key, missing), WIDTH)
    foot, panel = 0.5 + (len(text) + 0.8) * LINE, ROW * len(plot.ticks) + BETWEEN
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
        hspace=BETWEEN / (panel - BETWEEN),
    )
    for (dots, bars), name in zip(panels, shown, strict=True):
        some, paired = runs[runs.line == name], gaps[gaps.line == name]
        colours = {tick: ACCENT if tick == plot.reference else INK for tick in plot.ticks}
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
        intervals(bars, paired, plot.ticks)
        dots.set_title(plot.shown.get(name, name), loc="left", size=9.5)
        bars.set_title(f"Row minus {plot.reference} (points)", loc="left", size=9.5)
        dots.set_yticks(range(len(plot.ticks)), plot.ticks)
        for axes in (dots, bars):
            axes.set(xlabel=plot.x if axes is dots else "", ylabel="")
            axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(color=QUIET, width=0.6, labelsize=8)
            axes.tick_params(axis="y", length=0)
    write_below(figure, text)
    return figure
