"""The picture of `mgm inspect DIR`: durations, sizes, codecs and where motion lies. Arrays in, a matplotlib figure out."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from mgm.report.figures.style import ACCENT, HIDDEN, INK, QUIET, STYLE

SHADES = {"train": INK, "test": "#9aa3b2", "": INK}


def draw(arrays: Mapping[str, Any], title: str) -> Figure:
    """Four panels.

    Args:
        arrays: as `mgm.jobs.inspect.Dataset.arrays` gives them.
        title: what was looked at.
    """
    with mpl.rc_context(STYLE):
        figure = Figure((7.4, 4.6), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08, hspace=0.06, wspace=0.06))
        FigureCanvasAgg(figure)
        (durations, sizes), (codecs, motion) = figure.subplots(2, 2)
        _by_split(durations, arrays["duration_N"], arrays["split_N"], "duration (s)")
        _by_split(sizes, arrays["short_N"], arrays["split_N"], "short side (pixels)")
        _codecs(codecs, arrays["codec_N"], arrays["vectors_N"])
        if len(arrays["concentration_M"]):
            motion.hist(arrays["concentration_M"], [k / 20 for k in range(21)], color=ACCENT)
            motion.axvline(0.1, color=QUIET, linewidth=1, linestyle=(0, (1, 1.6)))
            motion.text(0.09, 1, "even", transform=motion.get_xaxis_transform(), size=7.5, color=QUIET, ha="right", va="top")
        else:
            motion.text(0.5, 0.5, "no motion vectors", transform=motion.transAxes, color=QUIET, ha="center", style="italic")
        motion.set_xlim(0, 1)
        motion.set_xlabel(f"motion in a tenth of the cells, share ({len(arrays['concentration_M']):,} decoded)")
        for axes in (durations, sizes, motion):
            axes.set_ylabel("videos")
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        seen = len(arrays["duration_N"]) + arrays["unreadable"]
        opened = "" if seen >= arrays["counted"] else f", {seen:,} of them opened"
        figure.suptitle(f"{title}: {arrays['counted']:,} videos{opened}; {arrays['unreadable']:,} unreadable", size=9.5, x=0.012, ha="left")
    return figure


def _by_split(axes: Axes, value_N: np.ndarray, split_N: np.ndarray, label: str) -> None:
    splits = [split for split in SHADES if (split_N == split).any()]
    low, high = (value_N.min(), value_N.max()) if len(value_N) else (0, 1)
    edges = np.linspace(low, high, 25).tolist() if high > low else [low - 0.5, low + 0.5]
    axes.hist([value_N[split_N == split] for split in splits], edges, stacked=True, color=[SHADES[split] for split in splits])
    axes.set_xlabel(label)
    if low == high:
        axes.set_xticks([low])
        axes.set_xlim(low - 2, low + 2)
    for place, split in enumerate(reversed([split for split in splits if split])):
        axes.text(1 - 0.1 * place, 1.02, split, transform=axes.transAxes, color=SHADES[split], size=8, weight="bold", ha="right")


def _codecs(axes: Axes, codec_N: np.ndarray, vectors_N: np.ndarray) -> None:
    names, counts = np.unique(codec_N, return_counts=True)
    order = np.argsort(counts)
    guided = [bool(vectors_N[codec_N == names[i]].any()) for i in order]
    axes.barh(range(len(order)), counts[order], 0.6, color=[ACCENT if with_vectors else HIDDEN for with_vectors in guided])
    for row, i in enumerate(order):
        text = f"{counts[i]:,}" + ("" if guided[row] else ", no vectors")
        axes.annotate(text, (counts[i], row), (3, 0), textcoords="offset points", size=8, va="center")
    axes.set_yticks(range(len(order)), names[order])
    axes.set_xlim(0, counts.max(initial=1) * 1.35)
    axes.set_ylim(-0.6, max(len(order), 3) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel("videos by codec; orange: with motion vectors")
