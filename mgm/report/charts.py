"""Charts: paired differences with their intervals, and accuracies over a number such as epochs.

Marks stand at their true places. MGM has the same colour everywhere.
"""

import re
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from mgm.report.style import ACCENT, COLOURS, INK, MARKS, caption, colours_of
from mgm.results.statistics import Estimate, slope
from mgm.spec import MASKS
from mgm.study.schema import View

# Inches. A phone shows a figure of this width at its full size, so panels stand below one another.
WIDTH, HEIGHT = 4.2, 2.5  # of a figure, a panel of curves
TITLE, ROW = 0.32, 0.22  # of a title, a name with its mark
LETTERS = 27  # of a line of a name
AXES = {
    "epochs": "Pretraining epochs",
    "ratio": "Mask ratio",
    "steps": "Pretraining steps",
    "computing": "Multiply-adds of pretraining",
}
COVERAGE = (
    "Filled: share of the moving pixels that each mask hides, mean over {:,.0f} test videos. Open: "
    "share of all patches. A mask that ignores motion hides about as much of both. Orange: masks "
    "guided by motion."
)


def points_of(numbers: pd.DataFrame, view: View, together: bool = False) -> pd.DataFrame:
    """Return a mark per number, with its `panel`, `hue` and place `x`.

    Args:
        numbers: cells. `paper` is the paper's number, NaN if there is none.
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
    points = points.assign(x=points[view.x])
    if together or not view.quoted:
        return points
    quoted = points[points.paper.notna()].assign(mean=np.nan, panel="As the paper prints it")
    ours = points[points["mean"].notna()].assign(paper=np.nan)
    # One number, or the same for several panels, needs no panel of its own.
    quoted = quoted.drop_duplicates(["hue", "x", "paper"])
    if len(quoted) < 2:
        return ours
    return pd.concat([ours.replace({"panel": {"": "Ours"}}), quoted], ignore_index=True)


def draw(points: pd.DataFrame, x: str) -> Figure:
    """Draw a line per `hue` over a number, a name of AXES, in a panel per `panel`."""
    # A level over all of a horizontal axis has no mark.
    hues = list(dict.fromkeys(points.hue[points.x.notna()]))
    colours, marks = colours_of(hues), dict(zip(hues, MARKS * len(hues)))
    panels = list(dict.fromkeys(points.panel))
    size = WIDTH, HEIGHT * len(panels) + 0.25
    figure = Figure(size)
    every = figure.subplots(len(panels), squeeze=False)
    same = (points.metric == "top1").all()
    for panel, axes in zip(panels, every.flat):
        _curves(axes, points[points.panel == panel], colours, marks)
        axes.set(title=panel, ylabel="Top-1 accuracy (%)" if same else points.column.iloc[0])
    axes.set_xlabel(AXES[x])
    figure.tight_layout()
    if any(hues):
        handles = [axes.errorbar([], [], fmt=marks[hue], color=colours[hue], ms=5) for hue in hues]
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
        place |= {"ncols": 1 if max(map(len, hues)) > 24 else 2}
        figure.legend(handles, hues, **place)
    return caption(figure, _key(points))


def _curves(axes: Axes, points: pd.DataFrame, colours: Mapping, marks: Mapping) -> None:
    """Draw a line per colour over a number. Rows without the number are dotted levels."""
    for level in points[points.x.isna()].to_dict("records"):
        axes.axhline(level["mean"], color=INK, linewidth=1, linestyle=":")
    points = points[points.x.notna()].sort_values("x")
    for hue, own in points.groupby("hue", sort=False):
        ours, paper = own[own["mean"].notna()], own[own.paper.notna()]
        look: dict[str, Any] = {"color": colours[hue], "linewidth": 1}
        axes.plot(ours.x, ours["mean"], **look)
        # Without an interval, its ends are infinite.
        reach = ours[["low", "high"]].sub(ours["mean"], axis=0).abs().to_numpy(float).T
        bars: dict[str, Any] = {"yerr": np.where(np.isfinite(reach), reach, np.nan)}
        bars |= {"markersize": 5, "elinewidth": 1.1, "zorder": 4, "color": colours[hue]}
        axes.errorbar(ours.x, ours["mean"], fmt=marks[hue], **bars)
        axes.plot(paper.x, paper.paper, marks[hue], mfc="white", ms=5.5, ls="--", **look)
    ticks = sorted(points.x.unique())
    if ticks and ticks[-1] > 20 * ticks[0] > 0:
        axes.set_xscale("log")
    # Labels of neighbours would overlap, and those of measured numbers are too long.
    apart = [x for n, x in enumerate(ticks) if not n or x - ticks[n - 1] > 0.06 * np.ptp(ticks)]
    if max(len(f"{x:g}") for x in [*ticks, 0]) < 6:
        axes.set_xticks(apart, [f"{x:,g}" for x in apart], rotation=45 if len(apart) > 5 else 0)
    axes.minorticks_off()
    axes.grid(axis="y")


def _key(points: pd.DataFrame) -> str:
    """Return how to read the marks."""
    ours = points[points["mean"].notna()]
    key = f"Marks: means.{_bars(ours)}"
    if len(levels := ours[ours.x.isna()]):
        key += f" Dotted: {', '.join(levels.row.unique())}."
    return key + " Open marks: the paper's numbers." * bool(points.paper.notna().any())


def _bars(ours: pd.DataFrame) -> str:
    """Return what the intervals are over."""
    parts = []
    for unit, own in ours[np.isfinite(ours.low)].groupby("unit", sort=False):
        ends = dict.fromkeys((f"{own.n.min():,.0f}", f"{own.n.max():,.0f}"))
        parts.append(f"{' to '.join(ends)} {unit}")
    return f" Bars: 95 % intervals over {'; '.join(parts)}." * bool(parts)


def differences(lines: pd.DataFrame, minus: str = "") -> Figure:
    """Draw paired differences, a line per difference, with its numbers.

    Args:
        lines: in their order, with `panel`, `name`, `row`, `mean`, `low`, `high`, `n`, `unit`,
            `metric`, `predicted` (before the runs) and `paper` (its difference, or NaN).
        minus: the row that all others are subtracted from, if it is one.
    """
    panels = list(dict.fromkeys(lines.panel))
    lines = lines.assign(name=[_wrapped(name) for name in lines.name])
    longest = max(len(part) for name in lines.name for part in name.split("\n"))
    left, right = (0.2 + 0.06 * longest) / WIDTH, 1 - 1.15 / WIDTH
    figure = Figure((WIDTH, 1.0))
    # Inches of a panel: its title, and per difference one line or as many as its name has.
    inner = [sum(_height(name) for name in lines.name[lines.panel == panel]) for panel in panels]
    titles = [textwrap.fill(panel, 58) for panel in panels]
    above = [TITLE + 0.14 * title.count("\n") for title in titles]
    height = sum(inner) + sum(above) + 0.45
    figure.set_figheight(height)
    top, first = height, None
    for panel, title, own, room in zip(panels, titles, inner, above):
        top -= room + own
        place = (left, top / height, right - left, own / height)
        axes = figure.add_axes(place, sharex=first)
        first = first or axes
        axes.tick_params(axis="x", labelbottom=panel == panels[-1])
        _differences(axes, lines[lines.panel == panel])
        at = blended_transform_factory(figure.transFigure, axes.transAxes)
        axes.text(0.01, 1.0, title, size=9, transform=at, va="bottom", weight="bold")
    unit = "points" if (lines.metric == "top1").all() else lines.metric.iloc[0]
    axes.set_xlabel(f"Difference from {minus} ({unit})" if minus else f"Difference ({unit})")
    key = "Marks: mean paired differences of top-1 accuracy." + _bars(lines)
    if lines.predicted.any():
        key += " Filled: predicted before the runs."
        key += " Hollow: not predicted." * (not lines.predicted.all())
    key += " Diamonds: the paper's differences." * bool(lines.paper.notna().any())
    return caption(figure, key)


def _wrapped(name: str) -> str:
    """Break a long name, first where one row is subtracted from another."""
    for sign in (" minus ", "\nminus ", " minus\n"):
        lines = name.replace(" minus ", sign)
        if max(map(len, lines.split("\n"))) <= LETTERS:
            return lines
    return textwrap.fill(name, LETTERS)


def _height(name: str) -> float:
    """Return the room of a line in inches."""
    return ROW + 0.12 * name.count("\n")


def _differences(axes: Axes, lines: pd.DataFrame) -> None:
    heights = [_height(name) for name in lines.name]
    places = np.cumsum(heights) - np.array(heights) / 2
    for place, line in zip(places, lines.to_dict("records")):
        colour = ACCENT if line["row"].startswith("MGM") else COLOURS[1]
        ends, said = [line["low"], line["high"]], f"{line['mean']:.1f}"
        if np.isfinite(ends).all():
            axes.plot(ends, [place] * 2, color=colour, linewidth=1.3, zorder=3)
            said += " [{:.1f}, {:.1f}]".format(*ends)
        axes.plot(line["paper"], place, "D", color=INK, mfc="none", ms=4.5, zorder=5)
        fill = colour if line["predicted"] else "white"
        axes.plot(line["mean"], place, "o", color=colour, mfc=fill, ms=5.5, zorder=4)
        # A mean of -0.04 is 0.0.
        said = re.sub(r"-0\.0\b", "0.0", said)
        axes.annotate(
            said, (1.04, place), xycoords=axes.get_yaxis_transform(), va="center", size=7.5
        )
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axes.set_yticks(places, lines.name, size=8)
    axes.set_ylim(sum(heights), 0)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def gains(marks: pd.DataFrame) -> Figure:
    """Draw paired differences of units over other differences, in a panel per pair of rows.

    Args:
        marks: one per unit, with `row`, `minus`, `title`, `column`, `unit`, `share`, `x` and `y`;
            `over`, what x is a difference of, and `points`, its unit in brackets.
    """
    panels = [*marks.groupby(["title", "column", "row"], sort=False)]
    figure, said = Figure((WIDTH, (HEIGHT + 0.6) * len(panels))), list[str]()
    every = figure.subplots(len(panels), squeeze=False)
    for axes, ((title, column, row), own) in zip(every.flat, panels):
        first, found = own.iloc[0], slope(own.x.tolist(), own.y.tolist())
        over, compared = first.over, f"{row} minus {first['minus']}"
        colour = ACCENT if row.startswith("MGM") else COLOURS[1]
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.plot(own.x, own.y, "o", color=colour, ms=4, mfc="none")
        if np.isfinite(found.mean):
            ends = np.array([own.x.min(), own.x.max()])
            axes.plot(ends, own.y.mean() + found.mean * (ends - own.x.mean()), color=colour)
        axes.set_title(textwrap.fill(f"{column}: {compared} ({title})", 50))
        axes.set_xlabel(textwrap.fill(f"{over}: {compared}{first.points}", 50))
        axes.set_ylabel("Gain (points)" if first.share else "Gain")
        axes.grid(axis="y")
        said.append(f"{column}: " * (len(panels) > 1) + _trend(found, first["unit"], over))
    figure.tight_layout()
    key = f"Each mark is a {marks['unit'].iloc[0].removesuffix('s')}. Line: least squares."
    return caption(figure, "\n".join([key, *said]))


def _trend(found: Estimate, units: str, over: str) -> str:
    """Return what a slope says, in words."""
    unit = units.removesuffix("s")
    if not np.isfinite(found.mean):
        return f"All {found.n} {units} have the same difference in {over}."
    more = "larger" if found.mean > 0 else "smaller"
    said = f"A {unit} with a difference in {over} that is 1 larger has a gain that is on average "
    said += f"{abs(found.mean):.2f} {more} (slope {found.mean:.2f}"
    if not found.has_interval:
        return f"{said}, without an interval, over {found.n} {units})."
    shown = "a trend" if found.low > 0 or found.high < 0 else "no trend"
    said += f" [{found.low:.2f}, {found.high:.2f}], 95 % interval over {found.n} {units})"
    return f"{said}: {shown} is shown."


def coverage(metrics: Mapping[str, float], note: str = "") -> Figure:
    """Draw the share of moving pixels that each mask hides, as `mgm.stages.coverage` measures."""
    masks = [name for name in MASKS if f"coverage_{name}" in metrics]
    size = WIDTH, ROW * (len(masks) + 0.5) + 0.7
    figure = Figure(size)
    axes = figure.subplots()
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
