"""Figure of `mgm inspect DIR`: durations, sizes, codecs, and how local the motion is."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from mgm.report.figures.style import ACCENT, HIDDEN, INK, QUIET, STYLE, blank

SHADES = {"train": INK, "test": "#9aa3b2", "": INK}


@mpl.rc_context(STYLE)
def draw(arrays: Mapping[str, Any], title: str) -> Figure:
    """Draw what differs between a dataset's videos. The title has what is the same for all.

    Args:
        arrays: as `mgm.stages.inspect.DatasetSummary.arrays` returns them.
    """
    videos = pd.DataFrame(
        {"duration": arrays["duration_N"], "short": arrays["short_N"], "split": arrays["split_N"]}
    )
    panels: list[Callable[[Axes], None]] = []
    same = []
    for name, label, unit in (
        ("duration", "Duration (s)", "s long"),
        ("short", "Short side (pixels)", "pixels on the short side"),
    ):
        if videos[name].nunique() == 1:
            same.append(f"{videos[name].iloc[0]:.4g} {unit}")
        elif len(videos):
            panels.append(partial(_by_split, videos=videos, value=name, label=label))
    codecs = pd.DataFrame({"codec": arrays["codec_N"], "vectors": arrays["vectors_N"]})
    if codecs.codec.nunique() == 1:
        count, total = int(codecs.vectors.sum()), len(codecs)
        with_vectors = {0: "no motion vectors", total: "with motion vectors"}
        had = with_vectors.get(count, f"{count:,} of {total:,} with motion vectors")
        same.append(f"{codecs.codec.iloc[0]}, {had}")
    elif len(codecs):
        panels.append(partial(_codecs, codecs=codecs))
    panels.append(partial(_motion, concentration_M=arrays["concentration_M"]))
    rows = 1 if len(panels) < 3 else 2
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08, hspace=0.06, wspace=0.06)
    figure = blank(7.4, 0.6 + 2 * rows, layout=layout)
    grid = figure.add_gridspec(rows, 2)
    for place, panel in enumerate(panels):
        last = place == len(panels) - 1 and len(panels) % 2 == 1
        row, column = divmod(place, 2)
        panel(figure.add_subplot(grid[row, :] if last else grid[row, column]))
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
        even: dict[str, Any] = {"size": 7.5, "color": QUIET, "ha": "right", "va": "top"}
        axes.text(0.09, 1, "even", transform=place, **even)
    else:
        centred: dict[str, Any] = {"color": QUIET, "ha": "center", "style": "italic"}
        axes.text(0.5, 0.5, "no motion vectors", transform=axes.transAxes, **centred)
    axes.set_xlim(0, 1)
    axes.set_xlabel(
        f"Share of motion in a tenth of the cells\n({len(concentration_M):,} videos decoded)"
    )
    _count_videos(axes)


def _count_videos(axes: Axes) -> None:
    axes.set_ylabel("Videos")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _by_split(axes: Axes, videos: pd.DataFrame, value: str, label: str) -> None:
    splits = [split for split in SHADES if (videos.split == split).any()]
    edges = np.linspace(videos[value].min(), videos[value].max(), 25).tolist()
    several = [videos[value][videos.split == split] for split in splits]
    colours = [SHADES[split] for split in splits]
    axes.hist(several, edges, stacked=True, color=colours)
    axes.set_xlabel(label)
    _count_videos(axes)
    for place, split in enumerate(reversed([split for split in splits if split])):
        axes.text(
            1 - 0.1 * place,
            1.02,
            split,
            transform=axes.transAxes,
            color=SHADES[split],
            size=8,
            weight="bold",
            ha="right",
        )


def _codecs(axes: Axes, codecs: pd.DataFrame) -> None:
    codecs = codecs.groupby("codec").vectors.agg(["size", "any"]).sort_values("size")
    colours = codecs["any"].map({True: ACCENT, False: HIDDEN})
    axes.barh(codecs.index, codecs["size"], 0.6, color=colours)
    for row, (count, guided) in enumerate(codecs.itertuples(index=False)):
        text = f"{count:,}" + ("" if guided else ", no vectors")
        axes.annotate(text, (count, row), (3, 0), textcoords="offset points", size=8, va="center")
    axes.set_xlim(0, (codecs["size"].max() if len(codecs) else 1) * 1.35)
    axes.set_ylim(-0.6, max(len(codecs), 3) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set(xlabel="Videos by codec (orange: with motion vectors)", ylabel="")
