"""Figures of table cells over a number, such as accuracy over pretraining epochs."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path

from mgm.report.cells import FilledCell, Key, filled_of, frame
from mgm.report.figures.style import ACCENT, QUIET, STYLE
from mgm.report.figures.style import panels as blank_panels
from mgm.study.registry import Plot

# Colour and mark of each line. The colours are dark enough for text, and the marks differ in grey.
LOOKS = ((ACCENT, "o"), ("#0072b2", "s"), ("#117a5b", "^"), ("#7d4a86", "v"))
QUOTED = "#767676"
# Look of our lines and of the paper's.
LINES: dict[str, dict[str, Any]] = {
    "ours": {"linestyle": "-", "linewidth": 1.5},
    "paper": {"linestyle": ":", "linewidth": 1.2, "markerfacecolor": "white"},
}


def points_of(plot: Plot, filled: Mapping[Key, FilledCell]) -> pd.DataFrame:
    """Return a frame of cells, one row per point.

    In addition to the columns of `frame` it has `line` (name), `x`, `tick` (text of x) and
    `wanted` (number of runs the cell asks for).
    """
    points = [(name, x, cell) for name, cells in plot.lines.items() for x, cell in cells]
    ticks = [plot.ticks[int(x)] if plot.ticks else f"{x:g}" for _, x, _ in points]
    cells = frame(filled_of(plot, filled))
    # Points are compared, and test videos of one run do not show how much seeds differ.
    cells.loc[cells.n == 1, ["ci_low", "ci_high"]] = np.nan
    return cells.assign(
        line=[name for name, *_ in points],
        x=[float(x) for _, x, _ in points],
        tick=ticks,
        wanted=[len(cell.runs) for *_, cell in points],
    )


def arrays_of(points: pd.DataFrame, plot: Plot) -> dict[str, np.ndarray]:
    """Return the drawn numbers, point by point, with NaN for missing ones.

    Returns:
        line_P (names), x_P, tick_P, paper_P, ours_P, low_P, high_P (per cent), n_P (runs in the
        mean), wanted_P (runs the cell asks for), status_P, and joined (whether lines join points).
    """
    columns = points.rename(columns={"ci_low": "low", "ci_high": "high"})
    texts = {name: columns[name].to_numpy(str) for name in ("line", "tick", "status")}
    numbers = {
        name: columns[name].to_numpy()
        for name in ("x", "paper", "ours", "low", "high", "n", "wanted")
    }
    return {f"{name}_P": values for name, values in (texts | numbers).items()} | {
        "joined": np.array(not plot.ticks)
    }


def missing(points: pd.DataFrame) -> str:
    """Return sentences that list the points with missing runs; empty if all are run."""
    sentences = []
    for status, missing_points in points[~points.status.isin(["run", "quoted"])].groupby("status"):
        ticks = missing_points.groupby("line", sort=False).tick.agg(", ".join)
        sentences.append(f"{str(status).capitalize()}: {'; '.join(ticks.index + ' ' + ticks)}.")
    return " ".join(sentences)


@mpl.rc_context(STYLE)
def curves(points: pd.DataFrame, plot: Plot, scale: str, together: bool) -> Figure:
    """Draw cells over x: our numbers filled with 95 % intervals, the paper's hollow.

    Methods without runs are labelled points.

    Args:
        points: as `points_of` returns them.
        scale: name of the scale.
        together: draw our numbers and the paper's on one axis, because they can be compared.
            Otherwise each has a panel.
    """
    paper = points.dropna(subset="paper")
    # The paper's only number needs no panel of its own.
    quoted = len(paper) > (0 if together else 1)
    beyond = bool(((points.ci_low < 0) | (points.ci_high > 100)).any())
    sentences = {
        "Filled marks are our means, bars their 95 % confidence intervals over seeds.": True,
        "A mark without a bar is one run.": (points.n == 1).any(),
        "Arrows mark intervals that reach beyond 0 or 100.": beyond,
        "Hollow marks are the paper's numbers.": quoted,
        "Diamonds are methods that are not run here.": (paper.wanted == 0).any(),
    }
    key = " ".join(sentence for sentence, applies in sentences.items() if applies)
    apart = ""
    if len(paper) and not together:
        apart = f"Scale {scale} does not repeat the paper's experiments: "
        apart += (
            "do not compare the panels."
            if quoted
            else f"the paper's number, {paper.paper.item():g} at {paper.tick.item()}, is not drawn."
        )
    ours = f"Ours at scale {scale}"
    panels: dict[str, tuple[str, ...]]
    if not quoted:
        panels = {ours: ("ours",)}
    elif together:
        panels = {f"{ours}, and the paper": ("ours", "paper")}
    else:
        panels = {"The paper": ("paper",), ours: ("ours",)}
    figure, (axes_of_panels,) = blank_panels(
        (1, len(panels)),
        (7.4, 3.5),
        (0.62, 0.12, 0.36, 0.55),
        (key, missing(points), apart),
        gridspec_kw={"wspace": 0.2},
    )
    for axes, (title, shown) in zip(axes_of_panels, panels.items(), strict=True):
        _panel(axes, points, shown, joined=not plot.ticks)
        axes.set_title(title)
        axes.set(xlabel=plot.x, ylabel=plot.y if axes is axes_of_panels[0] else "")
    return figure


def _panel(axes: Axes, points: pd.DataFrame, shown: tuple[str, ...], joined: bool) -> None:
    run = list(points[points.wanted > 0].line.unique())
    looks = {name: LOOKS[place % len(LOOKS)] for place, name in enumerate(run)}
    span = (points.x.max() - points.x.min()) or 1.0
    labels: list[tuple[float, float, str, dict[str, Any]]] = []
    for place, (name, (colour, mark)) in enumerate(looks.items()):
        line = points[points.line == name]
        # Shift the lines a little in x, so that their bars do not overlap.
        shifted = line.x + (place - (len(run) - 1) / 2) * 0.014 * span
        ends = []
        for y in (y for y in shown if line[y].notna().any()):
            x = shifted if y == "ours" else line.x
            # A missing point breaks the line.
            look = LINES[y] | ({} if joined else {"linewidth": 0})
            axes.plot(x, line[y], marker=mark, markersize=5, color=colour, **look)
            last = line[y].last_valid_index()
            ends.append((x[last], line[y][last], name, {"color": colour, "weight": "bold"}))
        labels += ends[:1]
        if "ours" in shown:
            _bars(axes, line.assign(x=shifted), colour)
    quoted = points[~points.line.isin(run) & points.paper.notna() & ("paper" in shown)]
    axes.plot(
        quoted.x, quoted.paper, "D", markersize=4, markerfacecolor="white", markeredgecolor=QUOTED
    )
    labels += [
        (x, y, name, {"color": QUOTED}) for x, y, name in zip(quoted.x, quoted.paper, quoted.line)
    ]
    ticks = points[points.line.isin(run or points.line)].drop_duplicates("x").sort_values("x")
    # Hide the text of a tick that is too near to the one before.
    room = ticks.x.diff().fillna(np.inf) >= 0.1 * span
    axes.set_xticks(ticks.x, ticks.tick.where(room, ""))
    axes.set_xlim(points.x.min() - 0.09 * span, points.x.max() + 0.38 * span)
    axes.tick_params(color=QUIET, width=0.6, labelsize=8)
    axes.grid(axis="y")
    values = points[[*shown, *(("ci_low", "ci_high") if "ours" in shown else ())]].to_numpy(float)
    if not np.isfinite(values).any():
        axes.set_yticks([])
        quiet: dict[str, Any] = {"color": QUIET, "ha": "center", "va": "center", "style": "italic"}
        axes.text(0.5, 0.5, "nothing run yet", transform=axes.transAxes, **quiet)
        return
    low, high = np.nanmin(values), np.nanmax(values)
    # The axis spans at least two points, so that a single number has round ticks.
    margin = max(0.12 * (high - low), 1 - (high - low) / 2)
    # Percentages stay within 0 and 100, even if an interval does not.
    axes.set_ylim(max(low - margin, 0), min(high + margin, 100))
    if not joined:
        # Marks side by side leave no room for names, so the names go to a legend.
        for name, (colour, mark) in looks.items():
            axes.plot([], [], mark, color=colour, markersize=5, label=name)
        bold = {"size": 8, "weight": "bold"}
        axes.legend(loc="center right", labelcolor="linecolor", prop=bold)
        return
    _label(axes, labels)


def _bars(axes: Axes, points: pd.DataFrame, colour: str) -> None:
    """Draw 95 % intervals, with arrows where they leave 0 to 100."""
    bars = points.dropna(subset="ci_low")
    low, high = bars.ci_low.clip(lower=0), bars.ci_high.clip(upper=100)
    axes.vlines(bars.x, low, high, color=colour, linewidth=1.1)
    for side, end, mark in ((bars.ci_low < 0, 0, "v"), (bars.ci_high > 100, 100, "^")):
        for x in bars.x[side]:
            axes.plot(x, end, mark, color=colour, markersize=5, clip_on=False)


def _label(axes: Axes, labels: list[tuple[float, float, str, dict[str, Any]]]) -> None:
    """Write names next to their points, without overlaps with marks, lines or names."""
    place_L2 = np.array([(x, y) for x, y, *_ in labels])
    right = axes.transData.transform(place_L2) + np.array([9, 0])
    texts = [
        axes.text(at[0], at[1], name, size=8, va="center", **style)
        for at, (*_, name, style) in zip(axes.transData.inverted().transform(right), labels)
    ]
    lines: list[Any] = [line.get_xydata() for line in axes.lines]
    for bars in axes.collections:
        lines += bars.get_segments()  # type: ignore[attr-defined]
    around = np.concatenate([Path(line).interpolated(25).vertices for line in lines if len(line)])
    around = around[np.isfinite(around).all(1)]
    adjust_text(
        texts,
        *around.T,
        target_x=place_L2[:, 0],
        target_y=place_L2[:, 1],
        ax=axes,
        expand=(1.3, 2),
        min_arrow_len=8,
        iter_lim=300,
        arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.5, "shrinkA": 6},
    )
