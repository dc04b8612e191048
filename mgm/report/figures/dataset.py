"""The picture of `mgm inspect DIR`:

durations, sizes, codecs and where motion lies. Arrays in, a matplotlib figure out.
"""

from collections.abc import Mapping
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
    """Four panels of what `mgm.stages.inspect.DatasetSummary.arrays` gives."""
    figure = blank(
        7.4, 4.6, layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08, hspace=0.06, wspace=0.06)
    )
    (durations, sizes), (codecs, motion) = figure.subplots(2, 2)
    videos = pd.DataFrame(
        {"duration": arrays["duration_N"], "short": arrays["short_N"], "split": arrays["split_N"]}
    )
    _by_split(durations, videos, "duration", "duration (s)")
    _by_split(sizes, videos, "short", "short side (pixels)")
    _codecs(codecs, arrays["codec_N"], arrays["vectors_N"])
    if len(arrays["concentration_M"]):
        motion.hist(arrays["concentration_M"], np.linspace(0, 1, 21), color=ACCENT)
        motion.axvline(0.1, color=QUIET, linewidth=1, linestyle=(0, (1, 1.6)))
        motion.text(
            0.09,
            1,
            "even",
            transform=motion.get_xaxis_transform(),
            size=7.5,
            color=QUIET,
            ha="right",
            va="top",
        )
    else:
        motion.text(
            0.5,
            0.5,
            "no motion vectors",
            transform=motion.transAxes,
            color=QUIET,
            ha="center",
            style="italic",
        )
    motion.set_xlim(0, 1)
    motion.set_xlabel(
        f"motion in a tenth of the cells, share ({len(arrays['concentration_M']):,} decoded)"
    )
    for axes in (durations, sizes, motion):
        axes.set_ylabel("videos")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    seen = len(arrays["duration_N"]) + arrays["unreadable"]
    opened = "" if seen >= arrays["counted"] else f", {seen:,} of them opened"
    figure.suptitle(
        f"{title}: {arrays['counted']:,} videos{opened}; {arrays['unreadable']:,} unreadable",
        size=9.5,
        x=0.012,
        ha="left",
    )
    return figure


def _by_split(axes: Axes, videos: pd.DataFrame, value: str, label: str) -> None:
    import seaborn as sns

    splits = [split for split in SHADES if (videos.split == split).any()]
    low, high = (videos[value].min(), videos[value].max()) if len(videos) else (0, 1)
    edges = np.linspace(low, high, 25).tolist() if high > low else [low - 0.5, low + 0.5]
    look = {
        "hue_order": splits[::-1],
        "palette": SHADES,
        "multiple": "stack",
        "alpha": 1,
        "linewidth": 0,
        "legend": False,
    }
    if len(videos):
        sns.histplot(videos, x=value, hue="split", bins=edges, ax=axes, **look)
    axes.set_xlabel(label)
    if low == high:
        axes.set_xticks([low])
        axes.set_xlim(low - 2, low + 2)
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


def _codecs(axes: Axes, codec_N: np.ndarray, vectors_N: np.ndarray) -> None:
    import seaborn as sns

    codecs = (
        pd.DataFrame({"codec": codec_N, "vectors": vectors_N})
        .groupby("codec")
        .vectors.agg(["size", "any"])
        .sort_values("size")
    )
    colours = {True: ACCENT, False: HIDDEN}
    sns.barplot(
        codecs,
        x="size",
        y="codec",
        hue="any",
        palette=colours,
        saturation=1,
        width=0.6,
        dodge=False,
        legend=False,
        ax=axes,
    )
    for row, (count, guided) in enumerate(codecs.itertuples(index=False)):
        text = f"{count:,}" + ("" if guided else ", no vectors")
        axes.annotate(text, (count, row), (3, 0), textcoords="offset points", size=8, va="center")
    axes.set_xlim(0, (codecs["size"].max() if len(codecs) else 1) * 1.35)
    axes.set_ylim(-0.6, max(len(codecs), 3) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set(xlabel="videos by codec; orange: with motion vectors", ylabel="")
