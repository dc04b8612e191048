"""Charts of tidy frames by seaborn: curves, paired differences, gains with a trend, levels.

Marks stand at their true places. MGM has the same colour everywhere. Intervals are those of
`mgm.results.statistics`, so seaborn computes none. Axes have their labels before seaborn draws,
since it would look for the labels of all ticks.
"""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from mgm.report.style import ACCENT, COLOURS, INK, LINE, MARKS, colours_of, panels, sns, wide
from mgm.results.statistics import Estimate, slope
from mgm.spec import MASKS
from mgm.study.schema import View

ROW = 0.25  # inches, of a name of one line
HEIGHT = 1.75  # inches, of a panel of curves
LETTERS = 21  # of a line of a name
MINUS = "\N{MINUS SIGN}"
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
    titles, curves = [*dict.fromkeys(points.panel)], points[points.x.notna()]
    hues = [*dict.fromkeys(curves.hue)]
    colours, marks = colours_of(hues), dict(zip(hues, MARKS * len(hues)))
    columns = 1 if max(map(len, hues), default=0) > 22 else 2
    above = LINE * (1 + -(-len(hues) // columns)) * any(hues)
    sizes = [HEIGHT] * len(titles)
    figure, every = panels(sizes, titles, [AXES[x]] * len(titles), _key(points), above=above)
    same = (points.metric == "top1").all()
    look: dict[str, Any] = {"x": "x", "hue": "hue", "palette": colours, "legend": False}
    look |= {"style": "hue", "markers": marks, "dashes": False, "errorbar": None}
    look |= {"linewidth": 1, "markersize": 5, "mec": "auto"}
    for title, axes in zip(titles, every):
        axes.set_ylabel("Top-1 accuracy (%)" if same else points.column.iloc[0])
        own = points[points.panel == title]
        for level in own["mean"][own.x.isna()]:
            axes.axhline(level, color=INK, linewidth=1, linestyle=":")
        own = own[own.x.notna()]
        if own["mean"].notna().any():
            sns.lineplot(own, y="mean", ax=axes, **look)
        if own.paper.notna().any():
            sns.lineplot(own, y="paper", ax=axes, linestyle="--", mfc="white", **look)
        bars = own[np.isfinite(own.low) & own["mean"].notna()]
        barred = [hue for hue in hues if (bars.hue == hue).any()]
        for n, hue in enumerate(barred):
            # Some points aside, so that intervals at one place do not hide one another.
            aside = ScaledTranslation((n - (len(barred) - 1) / 2) / 29, 0, figure.dpi_scale_trans)
            line = bars[bars.hue == hue]
            at = axes.transData + aside
            axes.vlines(line.x, line.low, line.high, colours[hue], linewidth=1.1, transform=at)
        axes.update_datalim([*zip(bars.x, bars.low), *zip(bars.x, bars.high)])
        _ticks(axes, sorted(own.x.unique()))
        axes.grid(axis="y")
    if any(hues):
        handles = [every[0].plot([], [], marks[hue], color=colours[hue])[0] for hue in hues]
        figure.legend(handles, hues, loc="upper left", ncols=columns)
    return figure


def _ticks(axes: Axes, places: list[float]) -> None:
    """Label the places of marks."""
    at = np.array(places)
    if places and places[-1] > 20 * places[0] > 0:
        axes.set_xscale("log")
        at = np.log(at)
    # Labels of neighbours would overlap, and those of measured numbers are too long.
    apart = [x for n, x in enumerate(places) if not n or at[n] - at[n - 1] > 0.1 * np.ptp(at)]
    if max(len(f"{x:g}") for x in [*places, 0]) < 6:
        axes.set_xticks(apart, [f"{x:,g}" for x in apart])
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
    mgm = lines.row.str.startswith("MGM")
    lines = lines.assign(
        name=lines.name.map(_wrapped),
        said=[_said(*ends) for ends in lines[["mean", "low", "high"]].to_numpy()],
        colour=np.where(mgm, ACCENT, COLOURS[1]),
    )
    every = [own for _, own in lines.groupby("panel", sort=False)]
    # Each name of a panel has the room of the longest.
    rooms = [len(own) * (ROW + LINE * own.name.str.count("\n").max()) for own in every]
    unit = "points" if (lines.metric == "top1").all() else lines.metric.iloc[0]
    label = f"Difference from {minus} ({unit})" if minus else f"Difference ({unit})"
    key = "Marks: mean paired differences of top-1 accuracy." + _bars(lines)
    if lines.predicted.any():
        key += " Filled: predicted before the runs."
        key += " Hollow: not predicted." * (not lines.predicted.all())
    key += " Diamonds: the paper's differences." * bool(lines.paper.notna().any())
    left, right = wide(lines.name) + 0.15, wide(lines.said) + 0.15
    titles = [own.panel.iloc[0] for own in every]
    sides: dict[str, Any] = {"left": left, "right": right, "shared": True}
    figure, drawn = panels(rooms, titles, [label] * len(every), key, **sides)
    for axes, own in zip(drawn, every):
        _differences(axes, own.assign(place=range(len(own))))
    return figure


def _said(mean: float, low: float, high: float) -> str:
    """Return a number with its interval, if it has one."""
    ends = f" [{low:z.1f}, {high:z.1f}]" * bool(np.isfinite([low, high]).all())
    return f"{mean:z.1f}{ends}".replace("-", MINUS)


def _wrapped(name: str) -> str:
    """Break a long name, first where one row is subtracted from another."""
    for sign in (" minus ", "\nminus ", " minus\n"):
        lines = name.replace(" minus ", sign)
        if max(map(len, lines.split("\n"))) <= LETTERS:
            return lines
    return textwrap.fill(name, LETTERS)


def _differences(axes: Axes, lines: pd.DataFrame) -> None:
    """Draw the differences of a panel at their `place`, from the top."""
    axes.set_yticks(lines.place, lines.name)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    bars = lines[np.isfinite(lines.low) & np.isfinite(lines.high)]
    axes.hlines(bars.place, bars.low, bars.high, colors=bars.colour, linewidth=1.3)
    marks: dict[str, Any] = {"y": "place", "ax": axes, "legend": False, "zorder": 3}
    fill = lines.colour.where(lines.predicted, "white")
    sns.scatterplot(lines, x="mean", c=fill, edgecolor=lines.colour, s=30, linewidth=1.2, **marks)
    if lines.paper.notna().any():
        marks |= {"marker": "D", "s": 18, "zorder": 4}
        sns.scatterplot(lines, x="paper", color="none", edgecolor=INK, linewidth=1, **marks)
    for place, said in zip(lines.place, lines.said):
        at = ScaledTranslation(0.1, 0, axes.figure.dpi_scale_trans)
        axes.text(1, place, said, transform=axes.get_yaxis_transform() + at, va="center")
    axes.set(ylim=(len(lines) - 0.5, -0.5), ylabel="")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def gains(marks: pd.DataFrame) -> Figure:
    """Draw paired differences of units over other differences, in a panel per pair of rows.

    Args:
        marks: one per unit, with `row`, `minus`, `title`, `column`, `unit`, `share`, `x` and `y`;
            `over`, what x is a difference of, and `points`, its unit in brackets.
    """
    every = [own for _, own in marks.groupby(["title", "column", "row"], sort=False)]
    key = [f"Each mark is a {marks['unit'].iloc[0].removesuffix('s')}. Line: least squares."]
    titles, labels = list[str](), list[str]()
    for own in every:
        one = own.iloc[0]
        compared = f"{one.row} minus {one['minus']}"
        titles.append(f"{one.column}: {compared} ({one.title})")
        labels.append(f"{one.over}: {compared}{one.points}")
        found = slope(own.x.tolist(), own.y.tolist())
        key.append(f"{one.column}: " * (len(every) > 1) + _trend(found, one.unit, one.over))
    sizes = [HEIGHT] * len(every)
    figure, drawn = panels(sizes, titles, labels, "\n".join(key), left=0.65)
    for axes, own in zip(drawn, every):
        colour = ACCENT if own.row.iloc[0].startswith("MGM") else COLOURS[1]
        axes.axhline(0, color=INK, linewidth=0.8)
        # A line needs marks at two places.
        trend = {"fit_reg": own.x.nunique() > 1, "ci": None, "color": colour}
        hollow = {"facecolor": "none", "edgecolor": colour, "s": 20, "alpha": 1}
        places = own.x.to_numpy(), own.y.to_numpy()
        line = {"lw": 1.5}
        sns.regplot(x=places[0], y=places[1], ax=axes, scatter_kws=hollow, line_kws=line, **trend)
        axes.set_ylabel("Gain (points)" if own.share.iloc[0] else "Gain")
        axes.grid(axis="y")
    return figure


def _trend(found: Estimate, units: str, over: str) -> str:
    """Return what a slope says, in words."""
    if not np.isfinite(found.mean):
        return f"All {found.n} {units} have the same difference in {over}."
    steep, low, high = (f"{x:.2f}".replace("-", MINUS) for x in found[:3])
    said = f"Slope: {steep} points of gain per point of {over}"
    if not found.has_interval:
        return f"{said}, without an interval, over {found.n} {units}."
    shown = "a trend" if found.low > 0 or found.high < 0 else "no trend"
    said += f" [{low}, {high}], 95 % interval over {found.n} {units}"
    return f"{said}: {shown} is shown."


def coverage(metrics: Mapping[str, float], note: str = "") -> Figure:
    """Draw the share of moving pixels that each mask hides, as `mgm.stages.coverage` measures."""
    known = [(name, mask) for name, mask in MASKS.items() if f"coverage_{name}" in metrics]
    names = [mask.row or name for name, mask in known]
    colours = [ACCENT if mask.guided else COLOURS[1] for _, mask in known]
    key = f"{COVERAGE.format(metrics['videos'])} {note}".strip()
    height, left = ROW * (len(known) + 0.5), wide(names) + 0.15
    figure, [axes] = panels([height], [""], ["Share hidden (%)"], key, left=left)
    look: dict[str, Any] = {"y": names, "ax": axes, "edgecolor": colours, "linewidth": 1.2, "s": 30}
    sns.scatterplot(x=[100 * mask.ratio for _, mask in known], c="white", **look)
    sns.scatterplot(x=[metrics[f"coverage_{name}"] for name, _ in known], c=colours, **look)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return figure
