"""Figures of every seed of some cells, and of each row minus a reference row, paired by seed."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mgm.report.cells import FilledCell, Key, paired
from mgm.report.figures.style import ACCENT, INK, QUIET, STYLE, panels
from mgm.results.statistics import Estimate
from mgm.study.registry import Plot

ROW, BETWEEN = 0.27, 0.85  # inches


def seeds_of(plot: Plot, filled: Mapping[Key, FilledCell]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row per finished run, and each table row minus the reference, paired by seed.

    Returns:
        `line`, `tick` (table row), `seed` and `value` of the runs. `line`, `tick`, and `mean`,
        `low`, `high` and `n` of the differences, without those of fewer than two seeds.
    """
    runs, gaps = [], []
    for name, points in plot.lines.items():
        rows = {cell.row: filled[cell.table, cell.row, cell.column] for _, cell in points}
        base = rows[plot.reference]
        for tick, row in rows.items():
            pairs = zip(row.runs, row.values, strict=True)
            runs += [(name, tick, run.seed, value) for run, value in pairs if value is not None]
            gap = paired((row, base), lambda pair: pair[0] - pair[1])
            if row is not base and gap and gap.n > 1:
                gaps.append((name, tick, *gap))
    return (
        pd.DataFrame(runs, columns=["line", "tick", "seed", "value"]),
        pd.DataFrame(gaps, columns=["line", "tick", *Estimate._fields]),
    )


def reach_2N(table: pd.DataFrame) -> np.ndarray:
    """Return how far `low` and `high` are from `mean`; NaN, which draws no bar, if unknown."""
    reach = table[["low", "high"]].sub(table["mean"], axis=0).abs()
    return reach.replace(np.inf, np.nan).to_numpy().T


def intervals(axes: Axes, gaps: pd.DataFrame, places: Sequence[float]) -> None:
    """Draw `mean`, `low` and `high` of each row at its place in y, and a line at zero."""
    look: dict[str, Any] = {"fmt": "o", "markersize": 4, "color": INK, "elinewidth": 1.4}
    axes.errorbar(gaps["mean"], places, xerr=reach_2N(gaps), **look)
    axes.axvline(0, color=ACCENT, linewidth=0.9, zorder=0)


@mpl.rc_context(STYLE)
def seeds(plot: Plot, runs: pd.DataFrame, gaps: pd.DataFrame, missing: str) -> Figure:
    """Draw two panels per line: every seed with its mean, and differences from the reference.

    Args:
        runs, gaps: as `seeds_of` returns them.
        missing: sentence on the runs that are not finished.
    """
    key = (
        f"Left: a dot per seed and a bar at the mean. Right: row minus {plot.reference}, paired by "
        "seed, with 95 % intervals."
    )
    shown = list(runs.line.unique()) or [*plot.lines][:1]
    panel = ROW * len(plot.ticks) + BETWEEN
    figure, axes_R2 = panels(
        (len(shown), 2),
        (7.4, panel * len(shown)),
        (1.5, 0.15, 0.34, 0.5),
        (key, missing),
        sharey="row",
        width_ratios=(3, 2),
        gridspec_kw={"wspace": 0.07, "hspace": BETWEEN / (panel - BETWEEN)},
    )
    for (dots, bars), name in zip(axes_R2, shown, strict=True):
        own_runs, own_gaps = runs[runs.line == name], gaps[gaps.line == name]
        for place, tick in enumerate(plot.ticks):
            values = own_runs[own_runs.tick == tick].value
            colour = ACCENT if tick == plot.reference else INK
            look = {"alpha": 0.45, "markeredgewidth": 0, "markersize": 3.6}
            dots.plot(values, [place] * len(values), "o", color=colour, **look)
            if len(values):
                large = {"markersize": 13, "markeredgewidth": 1.8}
                dots.plot(values.mean(), place, "|", color=colour, **large)
        intervals(bars, own_gaps, [plot.ticks.index(tick) for tick in own_gaps.tick])
        dots.set_title(plot.shown.get(name, name))
        bars.set_title(f"Row minus {plot.reference} (points)")
        dots.set_yticks(range(len(plot.ticks)), plot.ticks)
        dots.set_ylim(len(plot.ticks) - 0.5, -0.5)
        for axes in (dots, bars):
            axes.set(xlabel=plot.x if axes is dots else "", ylabel="")
            axes.grid(axis="x")
            axes.tick_params(color=QUIET, width=0.6, labelsize=8)
            axes.tick_params(axis="y", length=0)
    return figure
