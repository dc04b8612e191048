"""Charts of cells and of paired differences: a mark with its interval per number.

One chart has names on its vertical axis, or a number such as epochs on its horizontal axis. Marks
stand at their true places. MGM has the same colour everywhere.
"""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mgm.report.style import ACCENT, COLOURS, INK, MARKS, caption, colours_of
from mgm.spec import MASKS
from mgm.study.schema import View

# Inches. A phone shows a figure of this width at its full size, so panels stand below one another.
WIDTH, HEIGHT, ROW = 4.2, 2.5, 0.24  # of a figure, a panel, a name with its mark
AXES = {"epochs": "Pretraining epochs", "ratio": "Mask ratio", "steps": "Pretraining steps"}
COVERAGE = (
    "Filled: share of the moving pixels that each mask hides, mean over {:,.0f} test videos. Open: "
    "share of all patches. A mask that ignores motion hides about as much of both. Orange: masks "
    "guided by motion."
)


def points_of(numbers: pd.DataFrame, view: View, together: bool = False) -> pd.DataFrame:
    """Return a mark per number, with its `panel`, `hue` and place `x`.

    Args:
        numbers: cells, or paired differences with the same columns. `paper` is the paper's number,
            NaN if there is none.
        together: whether the paper's numbers are of the same size of experiment, so that they can
            share a panel with ours. Else they have one of their own.
    """
    named = view.rows or numbers.row[~numbers.control].unique()
    points = numbers[numbers.row.isin(named) & (numbers["mean"].notna() | numbers.paper.notna())]
    # A dataset is shown by its title.
    names = {"dataset": "title", "": None}
    for part in ("panel", "hue"):
        column = names.get(kind := getattr(view, part), kind)
        points = points.assign(**{part: points[column] if column else ""})
    points = points.assign(x=points[names.get(view.x, view.x)])
    if together or not view.quoted:
        return points
    quoted = points[points.paper.notna()].assign(mean=np.nan, panel="As the paper prints it")
    ours = points[points["mean"].notna()].assign(paper=np.nan)
    # One number, or the same for several panels, needs no panel of its own.
    quoted = quoted.drop_duplicates(["hue", "x", "paper"])
    if len(quoted) < 2:
        return ours
    return pd.concat([ours.replace({"panel": {"": "Ours"}}), quoted], ignore_index=True)


def draw(points: pd.DataFrame, x: str = "", minus: str = "") -> Figure:
    """Draw marks that have a `panel`, a `hue` and a place `x`.

    Args:
        x: epochs, ratio or steps, for a horizontal axis of numbers. Else `points.x` are names.
        minus: the row that was subtracted.
    """
    # A level over all of a horizontal axis has no mark.
    hues = list(dict.fromkeys(points.hue[points.x.notna()]))
    colours, marks = colours_of(hues), dict(zip(hues, MARKS * len(hues)))
    numeric, panels = x in AXES, points.panel.nunique()
    names = points.groupby("panel", sort=False).x.nunique()
    line = ROW * (1 + 0.35 * (len(hues) - 1))
    heights = [HEIGHT] * panels if numeric else (line * (names + 0.5) + 0.45).tolist()
    grid = sns.FacetGrid(
        points,
        row="panel",
        sharex=bool(minus) and not numeric,
        sharey=False,
        gridspec_kws={"height_ratios": heights},
    )
    for panel, axes in grid.axes_dict.items():
        part = points[points.panel == panel]
        (_curves if numeric else _names)(axes, part, colours, marks)
        if minus:
            zero = axes.axhline if numeric else axes.axvline
            zero(0, color=INK, linewidth=0.8, zorder=0)
    amount = _amount(points, minus)
    grid.set_axis_labels(*((AXES[x], amount) if numeric else (amount, "")))
    grid.set_titles("{row_name}")
    grid.figure.set_size_inches(WIDTH, sum(heights) + 0.25)
    grid.tight_layout()
    if any(hues):
        handles = [axes.errorbar([], [], fmt=marks[hue], color=colours[hue], ms=5) for hue in hues]
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
        place |= {"ncols": 1 if max(map(len, hues)) > 24 else 2}
        grid.figure.legend(handles, hues, **place)
    return caption(grid.figure, _key(points, numeric))


def _names(axes: Axes, points: pd.DataFrame, colours: Mapping, marks: Mapping) -> None:
    """Draw a line per name, and marks of several colours below one another."""
    names, hues = list(dict.fromkeys(points.x)), list(colours)
    room = 0.6 / max(len(hues) - 1, 2) if len(hues) > 1 else 0
    for hue, own in points.groupby("hue", sort=False):
        shift = room * (hues.index(hue) - (len(hues) - 1) / 2)
        # Without a colour's meaning, orange is MGM in all its variants.
        guided = own.x.str.startswith("MGM") if not hue else own.x.isna()
        for colour, part in ((colours[hue], own[~guided]), (ACCENT, own[guided])):
            places = part.x.map(names.index).astype(float) + shift
            _marks(axes, part, part["mean"], places, colour, marks[hue], "xerr")
            axes.plot(part.paper, places, marks[hue], color=colour, mfc="white", ms=5.5, zorder=3)
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 28) for name in names], size=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def _curves(axes: Axes, points: pd.DataFrame, colours: Mapping, marks: Mapping) -> None:
    """Draw a line per colour over a number. Rows without the number are dotted levels."""
    for level in points[points.x.isna()].to_dict("records"):
        axes.axhline(level["mean"], color=INK, linewidth=1, linestyle=":")
    points = points[points.x.notna()].sort_values("x")
    for hue, own in points.groupby("hue", sort=False):
        ours, paper = own[own["mean"].notna()], own[own.paper.notna()]
        look: dict[str, Any] = {"color": colours[hue], "linewidth": 1}
        axes.plot(ours.x, ours["mean"], **look)
        _marks(axes, ours, ours.x, ours["mean"], colours[hue], marks[hue], "yerr")
        axes.plot(paper.x, paper.paper, marks[hue], mfc="white", ms=5.5, ls="--", **look)
    ticks = sorted(points.x.unique())
    if ticks and ticks[-1] > 20 * ticks[0] > 0:
        axes.set_xscale("log")
    # Labels of neighbours would overlap.
    apart = [x for n, x in enumerate(ticks) if not n or x - ticks[n - 1] > 0.06 * np.ptp(ticks)]
    axes.set_xticks(apart, [f"{x:,g}" for x in apart], rotation=45 if len(apart) > 5 else 0)
    axes.minorticks_off()
    axes.grid(axis="y")


def _marks(axes: Axes, own: pd.DataFrame, x: Any, y: Any, colour: str, mark: str, bar: str) -> None:
    reach = own[["low", "high"]].sub(own["mean"], axis=0).abs().to_numpy(float).T
    # Without an interval, its ends are infinite.
    reach = np.where(np.isfinite(reach), reach, np.nan)
    look: dict[str, Any] = {"markersize": 5, "elinewidth": 1.1, "zorder": 4, bar: reach}
    axes.errorbar(x, y, fmt=mark, color=colour, **look)


def _amount(points: pd.DataFrame, minus: str) -> str:
    """Return the title of the axis of the numbers, with its unit."""
    if minus:
        return f"Gain over {minus} (points of {points.metric.iloc[0].replace('top1', 'top-1')})"
    return "Top-1 accuracy (%)" if (points.metric == "top1").all() else points.column.iloc[0]


def _key(points: pd.DataFrame, numeric: bool) -> str:
    """Return how to read the marks."""
    ours, parts = points[points["mean"].notna()], []
    for unit, own in ours[np.isfinite(ours.low)].groupby("unit", sort=False):
        ends = dict.fromkeys((f"{own.n.min():,.0f}", f"{own.n.max():,.0f}"))
        parts.append(f"{' to '.join(ends)} {unit}")
    key = "Marks: means." + f" Bars: 95 % intervals over {'; '.join(parts)}." * bool(parts)
    if numeric and len(levels := ours[ours.x.isna()]):
        key += f" Dotted: {', '.join(levels.row.unique())}."
    return key + " Open marks: the paper's numbers." * bool(points.paper.notna().any())


def coverage(metrics: Mapping[str, float], note: str = "") -> Figure:
    """Draw the share of the moving pixels that each mask hides.

    Args:
        metrics: of a run that measures coverage (`mgm.stages.coverage`).
    """
    masks = [name for name in MASKS if f"coverage_{name}" in metrics]
    size = WIDTH, ROW * (len(masks) + 0.5) + 0.7
    figure, axes = plt.subplots(figsize=size)
    for place, name in enumerate(masks):
        colour = ACCENT if MASKS[name].guided else COLOURS[1]
        axes.plot(100 * MASKS[name].ratio, place, "o", color=colour, mfc="white", ms=5.5)
        axes.plot(metrics[f"coverage_{name}"], place, "o", color=colour, ms=5)
    axes.set_yticks(range(len(masks)), [MASKS[name].row or name for name in masks], size=8)
    axes.set_ylim(len(masks) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("Share hidden (%)")
    figure.tight_layout()
    return caption(figure, f"{COVERAGE.format(metrics['videos'])} {note}".strip())
