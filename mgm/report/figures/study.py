"""Figures of a study: its differences, and its columns over a number such as training steps."""

import textwrap
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mgm.report.figures.curves import LOOKS
from mgm.report.figures.seeds import intervals, reach_2N
from mgm.report.figures.style import INK, QUIET, STYLE, panels
from mgm.study.schema import Study

ROW, BETWEEN = 0.3, 0.62  # inches


@mpl.rc_context(STYLE)
def differences(
    study: Study, table: pd.DataFrame, units: Mapping[tuple[str, str], np.ndarray], unit: str
) -> Figure:
    """Draw a panel per dataset: a mean with its interval, and a dot per sampling unit below.

    Args:
        table: `Findings.differences` of one column.
        units: the numbers of each dataset and difference.
        unit: name of the sampling unit.
    """
    datasets = list(dict.fromkeys(table.dataset))
    counts = [int((table.dataset == dataset).sum()) for dataset in datasets]
    key = (
        "Each line is a difference of two rows. Large dots and bars: mean and 95 % interval. "
        f"Small dots: one per {unit}. Orange line: no difference."
    )
    figure, axes_D1 = panels(
        (len(datasets), 1),
        (9.2, sum(ROW * count + BETWEEN for count in counts)),
        (3.7, 0.15, 0.4, 0.6),
        [key],
        sharex=True,
        height_ratios=counts,
        gridspec_kw={"hspace": BETWEEN / (sum(counts) * ROW / len(counts))},
    )
    for axes, dataset in zip(axes_D1.flat, datasets, strict=True):
        rows = table[table.dataset == dataset].reset_index(drop=True)
        intervals(axes, rows, rows.index - 0.12)
        for place, says in enumerate(rows.says):
            values = units[dataset, says]
            axes.plot(values, np.full(len(values), place + 0.2), ".", color=QUIET, markersize=4)
        axes.set_title(study.shown[dataset])
        axes.set_yticks(rows.index, [textwrap.fill(says, 50) for says in rows.says])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Difference (points)")
    return figure


@mpl.rc_context(STYLE)
def over_a_number(study: Study, points: pd.DataFrame, unit: str) -> Figure:
    """Draw a row of panels per dataset and a panel per column: accuracy over a number.

    Args:
        points: `Findings.points`.
        unit: name of the sampling unit.
    """
    datasets, columns = list(points.dataset.unique()), list(points.column.unique())
    ((over,),) = study.over.values()
    key = f"Marks and bars: mean and 95 % interval over {unit}s. Dotted: rows without pretraining."
    figure, axes_DC = panels(
        (len(datasets), len(columns)),
        (3.7 * len(columns), 2.9 * len(datasets)),
        (0.6, 0.15, 0.6, 0.5),
        [key],
        gridspec_kw={"wspace": 0.2, "hspace": 0.45},
    )
    names = list(dict.fromkeys(points[points.x.notna()].line))
    for row, dataset in zip(axes_DC, datasets, strict=True):
        for axes, column in zip(row, columns, strict=True):
            panel = points[(points.dataset == dataset) & (points.column == column)]
            for place, name in enumerate(names):
                line = panel[panel.line == name].sort_values("x")
                # Bars of several lines would hide one another.
                x = line.x * 1.04 ** (place - (len(names) - 1) / 2)
                colour, mark = LOOKS[place % len(LOOKS)]
                axes.errorbar(
                    x,
                    line["mean"],
                    reach_2N(line),
                    color=colour,
                    marker=mark,
                    markersize=4.5,
                    linewidth=1.4,
                    elinewidth=0.9,
                    label=name,
                )
            for _, level in panel[panel.x.isna()].iterrows():
                axes.axhline(level["mean"], color=INK, linewidth=1, linestyle=":", label=level.line)
            ticks = sorted(panel.x.dropna().unique())
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
            axes.minorticks_off()
            axes.set_title(f"{study.shown[dataset]}: {column}", size=9)
            axes.set_xlabel(over.axis)
            axes.grid(axis="y")
        row[0].set_ylabel("Top-1 accuracy (%)")
    figure.legend(
        *axes_DC[0, 0].get_legend_handles_labels(),
        loc="upper left",
        ncols=1 + len(names),
        labelcolor="linecolor",
    )
    return figure
