"""Figures of a study's cells, drawn by seaborn from the frames of `mgm.report.findings`.

Their marks are the means of the tables, and their bars the tables' intervals.
"""

import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mgm.report.figures.style import ACCENT, INK, KIND, LOOKS, QUIET, STYLE, caption
from mgm.spec import MASKS

COVERAGE_KEY = (
    "Marks: share of moving pixels under the mask, with 95 % intervals over {clips} clips. "
    "Numbers: mean over time slots. Dotted: share of all pixels under the mask. A mask that "
    "ignores motion hides this share of the moving pixels, too. Orange: masks guided by motion."
)
# Files alone are drawn, on machines with a screen too.
mpl.use("agg")
HEIGHT, ROW = 3.0, 0.3  # inches of a panel, and of a row of dots
# A panel per `panel`, two in a row.
FACETS: dict[str, Any] = {"col": "panel", "col_wrap": 2, "height": HEIGHT, "aspect": 1.25}
PANELS: dict[str, Any] = {**FACETS, "facet_kws": {"sharex": False, "sharey": False}}
MEAN: dict[str, Any] = {
    "linestyle": "none",
    "marker": "|",
    "markersize": 13,
    "markeredgewidth": 1.8,
    "elinewidth": 1.4,
    "color": ACCENT,
}


@mpl.rc_context(STYLE)
def over(
    points: pd.DataFrame,
    axes_titles: tuple[str, str],
    titles: Mapping[str, str],
    unit: str,
    below: Mapping[float, str] = MappingProxyType({}),
) -> Figure:
    """Draw columns over a number: a panel per dataset and column, a line per kind of pretraining.

    Args:
        points: `Findings.points` of one figure.
        axes_titles: of the x and the y axis.
        titles: titles of the datasets.
        unit: name of the sampling unit.
        below: what stands below a number of the x axis.
    """
    # Assign before rows are chosen: pandas adds rows when it assigns a column to an empty frame.
    points = points.assign(panel=_panels(points, titles))
    ours = points[points["mean"].notna()]
    levels = ours[ours.x.isna()]
    paper = points.assign(mean=points.paper, panel="The paper")[points.paper.notna()]
    # The paper's only number needs no panel of its own.
    parts = [paper.assign(low=np.nan, high=np.nan), ours] if len(paper) > 1 else [ours]
    lines = pd.concat(parts, ignore_index=True)
    lines = lines[lines.x.notna()]
    names = list(lines.line.unique())
    colours = _colours(names)
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
        turned = 45 if len(ticks) > 4 else 0
        own_below = below if name != "The paper" else {}
        texts = [f"{x:,g}" + (f"\n{own_below[x]}" if x in own_below else "") for x in ticks]
        axes.set_xticks(ticks, texts, rotation=turned, size=7 if below else None)
        axes.minorticks_off()
        axes.grid(axis="y")
    dotted = f" Dotted: {', '.join(levels.line.unique())}." if len(levels) else ""
    return _finished(grid, *axes_titles, names, unit, dotted)


def _panels(points: pd.DataFrame, titles: Mapping[str, str]) -> pd.Series:
    """Return the titles of panels per dataset and column, without what all have in common."""
    if points.dataset.nunique() == 1:
        return points.column
    if points.column.nunique() == 1:
        return points.dataset.map(titles)
    return points.dataset.map(titles) + ": " + points.column


def _colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour per name. MGM has the same in all figures."""
    others = iter(LOOKS[1:] * len(names))
    return {name: ACCENT if name == "MGM" else next(others) for name in names}


def _finished(
    grid: sns.FacetGrid, x: str, y: str, names: Sequence[str], unit: str, more: str
) -> Figure:
    """Write titles, legend and caption of a figure of `PANELS`. `more` ends the caption."""
    grid.set_axis_labels(x, y)
    grid.set_titles("{col_name}")
    sns.move_legend(grid, "lower left", bbox_to_anchor=(0, 1), ncols=min(len(names), 4), title=None)
    return caption(grid.figure, f"Marks and bars: mean and 95 % interval over {unit}s.{more}")


@mpl.rc_context(STYLE)
def gains(points: pd.DataFrame, y: str, titles: Mapping[str, str], unit: str) -> Figure:
    """Draw what each row gains against measured numbers, a colour per mask.

    Of one measured column, a panel per dataset, and a mark's shape says how much is hidden. Of
    several, a panel per column, and the shape says the dataset.

    Args:
        points: `Findings.gains`. A row's name is a mask, its ratio, and what else is special.
        y: title of the y axis.
        titles: titles of the datasets.
        unit: name of the sampling unit.
    """
    parts = points.row.str.extract(r"^(?P<mask>.*?)(?:,? (?P<ratio>\d+ %)(?:, (?P<rest>.*))?)?$")
    mask, ratio, rest = (parts[name].fillna("") for name in parts)
    dataset = points.dataset.map(titles)
    several = points.column.nunique() > 1
    shape = "Dataset" if several else "Hidden"
    points = points.assign(panel=points.column if several else dataset)
    points["Pretraining"] = _joined(mask, ratio) if several else mask
    points[shape] = _joined(dataset if several else ratio, rest)
    names = list(points.Pretraining.unique())
    colours = _colours(names)
    look: dict[str, Any] = {"hue": "Pretraining", "palette": colours, "s": 38}
    # Rows may name no ratio.
    style = shape if (points[shape] != "").any() else None
    grid = sns.relplot(points, **PANELS, **look, x="x", y="mean", style=style)
    for name, axes in grid.axes_dict.items():
        for row in points[points.panel == name].to_dict("records"):
            if np.isfinite(row["low"]):
                colour = colours[row["Pretraining"]]
                axes.vlines(row["x"], row["low"], row["high"], colour, linewidth=0.9, alpha=0.6)
        axes.axhline(0, color=INK, linewidth=0.8, zorder=0)
        axes.grid(axis="y")
    x = "Share (%)" if several else f"{points.column.iloc[0]} (%)"
    return _finished(grid, x, y, names, unit, "")


def _joined(first: pd.Series, second: pd.Series) -> pd.Series:
    return (first + ", " + second).str.strip(", ")


@mpl.rc_context(STYLE)
def order(points: pd.DataFrame, titles: Mapping[str, str], unit: str) -> Figure:
    """Draw our numbers of rows in the paper's order: a panel per dataset and column.

    Args:
        points: cells with a number, whose `paper` is the paper's number of their row.
        titles: titles of the datasets.
        unit: name of the sampling unit.
    """
    points = points.assign(panel=_panels(points, titles))
    numbers = points.groupby("row").paper.first().sort_values(kind="stable")
    colours = _colours([row.split(" (")[0] for row in numbers.index])
    # A row of panels is a dataset.
    wrap = {"col_wrap": max(points.column.nunique(), 2)}
    grid = sns.FacetGrid(points, **FACETS | wrap, sharex=False, sharey=False)
    for name, axes in grid.axes_dict.items():
        own = points[points.panel == name].set_index("row").reindex(numbers.index)
        for place, (row, cell) in enumerate(own.iterrows()):
            colour = colours[str(row).split(" (")[0]]
            axes.plot(place, cell["mean"], "o", markersize=5, color=colour)
            if np.isfinite(cell["low"]):
                axes.vlines(place, cell["low"], cell["high"], colour, linewidth=1.2)
        texts = [f"{row}: {number:.1f}" for row, number in numbers.items()]
        axes.set_xticks(range(len(texts)), texts, rotation=30, ha="right")
        axes.margins(0.06)
        axes.grid(axis="y")
    grid.set_axis_labels("", "Ours (%)")
    grid.set_titles("{col_name}")
    grid.tight_layout()
    text = f"Marks and bars: mean and 95 % interval over {unit}s. Below: the paper's number (%)."
    return caption(grid.figure, text)


@mpl.rc_context(STYLE)
def dots(
    units: pd.DataFrame, means: pd.DataFrame, axis: str, unit: str, rule: float | None = None
) -> Figure:
    """Draw a panel per `dataset`, and in it a dot per sampling unit of each `name`.

    Args:
        units: `dataset` (its title), `name` (a row, or a difference), `value`.
        means: `dataset`, `name`, and the table's `mean`, `low` and `high`, in the order of rows.
        axis: title of the x axis.
        unit: name of the sampling unit.
        rule: a value to mark, such as 0.
    """
    counts = means.groupby("dataset", sort=False).name.nunique()
    grid = sns.FacetGrid(
        units,
        row="dataset",
        height=HEIGHT,
        aspect=2.6,
        sharey=False,
        gridspec_kws={"height_ratios": counts.tolist()},
    )
    for dataset, axes in grid.axes_dict.items():
        own = means[means.dataset == dataset]
        places = np.arange(len(own))
        for place, name in zip(places, own.name):
            values = units.value[(units.dataset == dataset) & (units.name == name)]
            # Equal values stand above one another.
            heights = place + 0.06 * (np.arange(len(values)) % 5 - 2)
            axes.plot(values, heights, "o", color=QUIET, markersize=3.4, alpha=0.7, mew=0)
        reach = own[["low", "high"]].sub(own["mean"], axis=0).abs().replace(np.inf, np.nan)
        axes.errorbar(own["mean"], places, xerr=reach.T, **MEAN)
        axes.set_yticks(places, [textwrap.fill(name, 46) for name in own.name])
        axes.set_ylim(len(own) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        if rule is not None:
            axes.axvline(rule, color=INK, linewidth=0.8, zorder=0)
    grid.set_axis_labels(axis, "")
    grid.set_titles("{row_name}")
    grid.figure.set_size_inches(8.2, ROW * counts.sum() + 0.6 * len(counts) + 0.4)
    grid.figure.tight_layout()
    text = f"Dots: one per {unit}. Orange: mean and 95 % interval over {unit}s."
    return caption(grid.figure, text)


@mpl.rc_context(STYLE)
def coverage(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """Draw one panel per mask: the share of moving pixels that it hides in each time slot.

    Args:
        arrays: as `mgm.stages.measure.coverage` returns them.
    """
    names = [str(name) for name in arrays["names_N"]]
    order = [name for name in KIND if name in names] + [name for name in names if name not in KIND]
    guided = {name: name in MASKS and MASKS[name].guided for name in names}
    slots = np.arange(1, arrays["share_NS"].shape[1] + 1)
    table = pd.DataFrame(arrays["share_NS"], index=names, columns=slots).rename_axis("mask")
    grid = sns.relplot(
        table.reset_index().melt("mask", var_name="slot", value_name="share"),
        x="slot",
        y="share",
        hue="mask",
        palette={name: ACCENT if guided[name] else INK for name in names},
        col="mask",
        col_order=order,
        col_wrap=min(6, len(order)),
        kind="line",
        marker="o",
        legend=False,
        height=1.9,
        aspect=0.75,
    )
    for name, axes in grid.axes_dict.items():
        row, colour = names.index(name), ACCENT if guided[name] else INK
        axes.vlines(slots, arrays["low_NS"][row], arrays["high_NS"][row], color=colour, linewidth=1)
        axes.axhline(arrays["hidden_N"][row], color=QUIET, linewidth=1, linestyle=":", zorder=0.9)
        axes.set_title(f"{name}: {arrays['overall_N'][row]:.1f}", size=8.5, weight="bold")
        axes.set_xticks([slots[0], slots[-1]])
        axes.grid(axis="y")
    grid.set_axis_labels("Time slot", "Moving pixels hidden (%)")
    clips = " to ".join(map(str, np.unique([arrays["clips_S"].min(), arrays["clips_S"].max()])))
    return caption(grid.figure, f"{COVERAGE_KEY.format(clips=clips)} {note}")
