"""Charts of tidy frames by seaborn: curves, paired differences, gains with a trend, levels.

Marks stand at their true places. MGM has the same colour everywhere. Intervals are those of
`mgm.results.statistics`, so seaborn computes none.
"""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from mgm.report.style import ACCENT, COLOURS, INK, MARKS, caption, colours_of
from mgm.results.statistics import Estimate, slope
from mgm.spec import MASKS
from mgm.study.schema import View

# Inches. A phone shows a figure of this width at its full size, so panels stand below one another.
WIDTH, HEIGHT = 3.7, 2.3  # of a figure, a panel of curves
ROW, LINE = 0.23, 0.13  # of a name with its mark, a further line of a name
LETTERS = 21  # of a line of a name
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
    points = numbers[~numbers.control.astype(bool) | numbers.row.isin(view.rows)]
    points = points[points["mean"].notna() | points.paper.notna()]
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
    """Draw a line per `hue` over a number, a name of AXES, in a panel per `panel`.

    Rows without the number are dotted levels.
    """
    panels, curves = [*dict.fromkeys(points.panel)], points[points.x.notna()]
    hues = [*dict.fromkeys(curves.hue)]
    colours, marks = colours_of(hues), dict(zip(hues, MARKS * len(hues)))
    figure = Figure((WIDTH, HEIGHT * len(panels) + 0.3), layout="constrained")
    same = (points.metric == "top1").all()
    for panel, axes in zip(panels, figure.subplots(len(panels), squeeze=False).flat):
        own = points[points.panel == panel]
        for level in own["mean"][own.x.isna()]:
            axes.axhline(level, color=INK, linewidth=1, linestyle=":")
        for n, hue in enumerate(hues):
            line = curves[(curves.panel == panel) & (curves.hue == hue)]
            _curve(axes, line, colours[hue], marks[hue], 2.5 * (n - (len(hues) - 1) / 2))
        _ticks(axes, sorted(own.x.dropna().unique()))
        axes.set(title=panel, ylabel="Top-1 accuracy (%)" if same else points.column.iloc[0])
        axes.set_xlabel(AXES[x] if panel == panels[-1] else "")
        axes.grid(axis="y")
    if any(hues):
        handles = [axes.plot([], [], marks[hue], color=colours[hue])[0] for hue in hues]
        columns = 1 if max(map(len, hues)) > 22 else 2
        figure.legend(handles, hues, loc="outside upper left", ncols=columns)
    return caption(figure, _key(points))


def _curve(axes: Axes, own: pd.DataFrame, colour: str, mark: str, aside: float) -> None:
    """Draw our means and the paper's numbers, with intervals some points `aside` of their place."""
    look: dict[str, Any] = {"x": "x", "color": colour, "marker": mark, "mec": colour, "ax": axes}
    look |= {"errorbar": None, "linewidth": 1, "markersize": 5}
    if own["mean"].notna().any():
        sns.lineplot(own, y="mean", **look)
    if own.paper.notna().any():
        sns.lineplot(own, y="paper", linestyle="--", mfc="white", **look)
    bars = own[np.isfinite(own.low) & own["mean"].notna()]
    beside = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    axes.vlines(bars.x, bars.low, bars.high, color=colour, linewidth=1.1, transform=beside)
    axes.update_datalim([*zip(bars.x, bars.low), *zip(bars.x, bars.high)])


def _ticks(axes: Axes, places: list[float]) -> None:
    """Label the places of marks."""
    if places and places[-1] > 20 * places[0] > 0:
        axes.set_xscale("log")
    # Labels of neighbours would overlap, and those of measured numbers are too long.
    apart = [x for n, x in enumerate(places) if not n or x - places[n - 1] > 0.06 * np.ptp(places)]
    if max(len(f"{x:g}") for x in [*places, 0]) < 6:
        axes.set_xticks(apart, [f"{x:,g}" for x in apart], rotation=45 if len(apart) > 5 else 0)
    axes.minorticks_off()


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
    panels = [own for _, own in lines.groupby("panel", sort=False)]
    # Inches of a panel: each of its names has the room of the longest.
    names = [[_wrapped(name) for name in own.name] for own in panels]
    rooms = [len(own) * (ROW + LINE * max(name.count("\n") for name in own)) + 0.1 for own in names]
    figure = Figure((WIDTH, sum(rooms) + 0.55 * len(panels) + 0.4), layout="constrained")
    every = figure.subplots(len(panels), squeeze=False, sharex=True, height_ratios=rooms)
    for axes, own, texts in zip(every.flat, panels, names):
        _differences(axes, own.assign(place=range(len(own))))
        axes.set_yticks(range(len(own)), texts)
        # From the figure's left, above the names.
        title = textwrap.fill(own.panel.iloc[0], 46)
        axes.annotate(
            title,
            (0.01, 1),
            xycoords=(figure.transFigure, axes.transAxes),
            weight="bold",
            xytext=(0, 4),
            textcoords="offset points",
            va="bottom",
        )
        axes.tick_params(axis="x", labelbottom=True)
    unit = "points" if (lines.metric == "top1").all() else lines.metric.iloc[0]
    axes.set_xlabel(
        textwrap.fill(f"Difference from {minus} ({unit})" if minus else f"Difference ({unit})", 40)
    )
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


def _differences(axes: Axes, lines: pd.DataFrame) -> None:
    """Draw the differences of a panel at their `place`, from the top."""
    mgm = lines.row.str.startswith("MGM")
    lines = lines.assign(colour=np.where(mgm, ACCENT, COLOURS[1]))
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    bars = lines[np.isfinite(lines.low) & np.isfinite(lines.high)]
    axes.hlines(bars.place, bars.low, bars.high, colors=bars.colour, linewidth=1.3)
    marks: dict[str, Any] = {"y": "place", "ax": axes, "legend": False, "zorder": 3}
    fill = lines.colour.where(lines.predicted, "white")
    sns.scatterplot(lines, x="mean", c=fill, edgecolor=lines.colour, s=30, linewidth=1.2, **marks)
    if lines.paper.notna().any():
        marks |= {"marker": "D", "s": 18, "zorder": 4}
        sns.scatterplot(lines, x="paper", color="none", edgecolor=INK, linewidth=1, **marks)
    for line in lines.to_dict("records"):
        said = f"{line['mean']:z.1f}"
        if np.isfinite([line["low"], line["high"]]).all():
            said += f" [{line['low']:z.1f}, {line['high']:z.1f}]"
        look: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "va": "center", "size": 8.5}
        axes.annotate(said, (1.03, line["place"]), **look)
    axes.set(ylim=(len(lines) - 0.5, -0.5), xlabel="", ylabel="")
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
    size = WIDTH, (HEIGHT + 0.6) * len(panels)
    figure, said = Figure(size, layout="constrained"), list[str]()
    every = figure.subplots(len(panels), squeeze=False)
    for axes, ((title, column, row), own) in zip(every.flat, panels):
        first, found = own.iloc[0], slope(own.x.tolist(), own.y.tolist())
        over, compared = first.over, f"{row} minus {first['minus']}"
        colour = ACCENT if row.startswith("MGM") else COLOURS[1]
        axes.axhline(0, color=INK, linewidth=0.8)
        trend = {"fit_reg": bool(np.isfinite(found.mean)), "ci": None, "color": colour}
        hollow = {"facecolor": "none", "edgecolor": colour, "s": 20, "alpha": 1}
        sns.regplot(own, x="x", y="y", ax=axes, scatter_kws=hollow, line_kws={"lw": 1.5}, **trend)
        axes.set_title(textwrap.fill(f"{column}: {compared} ({title})", 46))
        axes.set_xlabel(textwrap.fill(f"{over}: {compared}{first.points}", 46))
        axes.set_ylabel("Gain (points)" if first.share else "Gain")
        axes.grid(axis="y")
        said.append(f"{column}: " * (len(panels) > 1) + _trend(found, first["unit"], over))
    key = f"Each mark is a {marks['unit'].iloc[0].removesuffix('s')}. Line: least squares."
    return caption(figure, "\n".join([key, *said]))


def _trend(found: Estimate, units: str, over: str) -> str:
    """Return what a slope says, in words."""
    if not np.isfinite(found.mean):
        return f"All {found.n} {units} have the same difference in {over}."
    said = f"Slope: {found.mean:.2f} points of gain per point of {over}"
    if not found.has_interval:
        return f"{said}, without an interval, over {found.n} {units}."
    shown = "a trend" if found.low > 0 or found.high < 0 else "no trend"
    said += f" [{found.low:.2f}, {found.high:.2f}], 95 % interval over {found.n} {units}"
    return f"{said}: {shown} is shown."


def coverage(metrics: Mapping[str, float], note: str = "") -> Figure:
    """Draw the share of moving pixels that each mask hides, as `mgm.stages.coverage` measures."""
    known = [(name, mask) for name, mask in MASKS.items() if f"coverage_{name}" in metrics]
    names = [mask.row or name for name, mask in known]
    colours = [ACCENT if mask.guided else COLOURS[1] for _, mask in known]
    figure = Figure((WIDTH, ROW * (len(known) + 0.5) + 0.7), layout="constrained")
    axes = figure.subplots()
    look: dict[str, Any] = {"y": names, "ax": axes, "edgecolor": colours, "linewidth": 1.2, "s": 30}
    sns.scatterplot(x=[100 * mask.ratio for _, mask in known], c="white", **look)
    sns.scatterplot(x=[metrics[f"coverage_{name}"] for name, _ in known], c=colours, **look)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("Share hidden (%)")
    return caption(figure, f"{COVERAGE.format(metrics['videos'])} {note}".strip())
