"""Figure of `mgm inspect DIR`: durations, sizes, codecs, and how local the motion is."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mgm.report.figures.style import ACCENT, HIDDEN, INK, QUIET, STYLE, blank

SHADES = {"train": INK, "test": "#9aa3b2", "": INK}


@mpl.rc_context(STYLE)
def draw(arrays: Mapping[str, Any], title: str) -> Figure:
    """Draw what differs between a dataset's videos. The title has what is the same for all.

    Args:
        arrays: as `mgm.stages.inspect.DatasetSummary.arrays` returns them.
    """
    panels: list[Callable[[Axes], None]] = []
    same = []
    for name, label, unit in (
        ("duration", "Duration (s)", "s long"),
        ("short", "Short side (pixels)", "pixels on the short side"),
    ):
        values = pd.Series(arrays[f"{name}_N"])
        if values.nunique() == 1:
            same.append(f"{values[0]:.4g} {unit}")
        elif len(values):
            splits = dict(list(values.groupby(arrays["split_N"])))
            panels.append(partial(_by_split, splits=splits, label=label))
    codecs = pd.DataFrame({"codec": arrays["codec_N"], "vectors": arrays["vectors_N"]})
    if codecs.codec.nunique() == 1:
        count, total = int(codecs.vectors.sum()), len(codecs)
        with_vectors = {0: "no motion vectors", total: "with motion vectors"}
        had = with_vectors.get(count, f"{count:,} of {total:,} with motion vectors")
        same.append(f"{codecs.codec[0]}, {had}")
    elif len(codecs):
        panels.append(partial(_codecs, codecs=codecs))
    panels.append(partial(_motion, concentration_M=arrays["concentration_M"]))
    rows = 1 if len(panels) < 3 else 2
    places = [*range(len(panels))]
    if len(panels) % 2:
        # The last panel is as wide as two.
        places.append(places[-1])
    figure = blank(7.4, 0.6 + 2 * rows, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08, hspace=0.06, wspace=0.06)  # type: ignore[union-attr, call-arg]
    drawn = figure.subplot_mosaic([places[row * 2 : row * 2 + 2] for row in range(rows)])  # type: ignore[arg-type]
    for place, panel in enumerate(panels):
        panel(drawn[place])  # type: ignore[index]
    seen = len(arrays["duration_N"]) + arrays["unreadable"]
    opened = "" if seen >= arrays["counted"] else f", {seen:,} of them opened"
    text = f"{title}: {arrays['counted']:,} videos{opened}, {arrays['unreadable']:,} unreadable"
    alike = f"\nSame for all: {'; '.join(same)}" if same else ""
    figure.suptitle(text + alike, size=9.5, x=0.012, ha="left")
    return figure


def _motion(axes: Axes, concentration_M: np.ndarray) -> None:
    """Draw the share of each video's motion in the tenth of cells with most motion."""
    if len(concentration_M):
        axes.hist(concentration_M, np.linspace(0, 1, 21).tolist(), color=ACCENT)
        axes.axvline(0.1, color=QUIET, linewidth=1, linestyle=(0, (1, 1.6)))
        place = axes.get_xaxis_transform()
        axes.text(0.09, 1, "even", transform=place, size=7.5, color=QUIET, ha="right", va="top")
    else:
        look: dict[str, Any] = {"color": QUIET, "ha": "center", "style": "italic"}
        axes.text(0.5, 0.5, "no motion vectors", transform=axes.transAxes, **look)
    decoded = f"({len(concentration_M):,} videos decoded)"
    axes.set(xlim=(0, 1), xlabel=f"Share of motion in a tenth of the cells\n{decoded}")
    _count_videos(axes)


def _count_videos(axes: Axes) -> None:
    axes.set_ylabel("Videos")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _by_split(axes: Axes, splits: Mapping[str, pd.Series], label: str) -> None:
    names = [name for name in SHADES if name in splits]
    axes.hist(
        [splits[name] for name in names],
        np.histogram_bin_edges(pd.concat(splits), 24).tolist(),
        stacked=True,
        color=[SHADES[name] for name in names],
        label=names,
    )
    axes.set_xlabel(label)
    _count_videos(axes)
    if any(names):
        place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
        space: dict[str, Any] = {"handlelength": 0, "handletextpad": 0, "columnspacing": 0.6}
        bold = {"size": 8, "weight": "bold"}
        axes.legend(ncols=len(names), labelcolor="linecolor", prop=bold, **place, **space)


def _codecs(axes: Axes, codecs: pd.DataFrame) -> None:
    codecs = codecs.groupby("codec").vectors.agg(["size", "any"]).sort_values("size")
    colours = codecs["any"].map({True: ACCENT, False: HIDDEN})
    bars = axes.barh(codecs.index, codecs["size"], 0.6, color=colours)
    texts = [
        f"{row.size:,}" if row.any else f"{row.size:,}, no vectors" for row in codecs.itertuples()
    ]
    axes.bar_label(bars, texts, padding=3, size=8)
    axes.set_xlim(0, codecs["size"].max() * 1.35)
    axes.set_ylim(-0.6, max(len(codecs), 3) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set(xlabel="Videos by codec (orange: with motion vectors)", ylabel="")
