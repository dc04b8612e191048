"""The figure of mask coverage:

how much of what moves each mask hides, slot by slot. Arrays in, a matplotlib figure out.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mgm.masking import MASKS
from mgm.report.figures.style import (
    ACCENT,
    INK,
    KIND,
    LINE,
    QUIET,
    STYLE,
    blank,
    wrapped,
    write_below,
)

WIDTH, HEIGHT, LEFT, GAP, HEAD, AXIS = (
    7.4,
    1.9,
    0.62,
    0.1,
    0.62,
    0.48,
)  # inches; HEIGHT is a panel's
IN_A_ROW = 8  # panels at most
KEY = (
    "Marks: the share of moving pixels that lies under the mask, bars its 95 % interval over {clips} clips, numbers the mean over slots. "
    "Dotted: the share of the whole frame under the mask, which a mask that is blind to motion hides of the motion, too. "
    "Orange: masks guided by motion."
)


@mpl.rc_context(STYLE)
def coverage(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """A panel a mask; in it, its share over the slots of a clip, beside the share of the frame that
    it hides.

    `arrays` are as `mgm.stages.measure.coverage` returns them; `note` is a line below.
    """
    import seaborn.objects as so  # takes a second
    from seaborn import axes_style

    names = [str(name) for name in arrays["names_N"]]
    order = [name for name in KIND if name in names] + [name for name in names if name not in KIND]
    slots = arrays["share_NS"].shape[1]
    table = pd.DataFrame(
        {key: arrays[f"{key}_NS"].ravel() for key in ("share", "low", "high")}
    ).assign(mask=np.repeat(names, slots), slot=np.tile(np.arange(1, slots + 1), len(names)))
    guided = {name: name in MASKS and MASKS[name].guided for name in names}
    table["guided"] = table["mask"].map(guided)
    clips = " to ".join(map(str, np.unique([arrays["clips_S"].min(), arrays["clips_S"].max()])))
    text = wrapped((KEY.format(clips=clips), note), WIDTH)
    foot = AXIS + (len(text) + 0.8) * LINE
    rows = -(-len(order) // IN_A_ROW)
    columns = -(-len(order) // rows)
    height, panel, between = (
        rows * (HEAD + HEIGHT) + (rows - 1) * AXIS / 2 + foot,
        (WIDTH - LEFT - 0.08) / columns,
        HEAD + AXIS / 2,
    )
    figure = blank(WIDTH, height)
    plot = so.Plot(
        table, x="slot", y="share", ymin="low", ymax="high", color="guided", fillcolor="guided"
    )
    plot = plot.facet("mask", order=order, wrap=columns)
    plot = plot.add(so.Range(linewidth=1.1), legend=False).add(
        so.Path(marker="o", linewidth=1.1, pointsize=3.6, artist_kws={"clip_on": False}),
        legend=False,
    )
    scales = {"color": {True: ACCENT, False: INK}, "fillcolor": {True: ACCENT, False: "white"}}
    plot.scale(**scales).theme({**axes_style("ticks"), **STYLE}).on(figure).plot()
    edges = {
        "left": LEFT / WIDTH,
        "right": 1 - (0.08 + GAP) / WIDTH,
        "bottom": foot / height,
        "top": 1 - HEAD / height,
    }
    figure.subplots_adjust(**edges, wspace=GAP / (panel - GAP), hspace=between / HEIGHT)
    for place, (name, axes) in enumerate(zip(order, figure.axes, strict=True)):
        row, first_of_row = names.index(name), place % columns == 0
        axes.axhline(
            arrays["hidden_N"][row], color=QUIET, linewidth=1.1, linestyle=(0, (1, 1.6)), zorder=0.9
        )
        plain = {
            "facecolor": "white",
            "edgecolor": "none",
            "pad": 1.5,
        }  # no grid line through a number
        style: dict[str, Any] = {
            "size": 9,
            "weight": "bold",
            "ha": "center",
            "bbox": plain,
            "transform": axes.transAxes,
        }
        axes.text(
            0.5,
            0.05,
            f"{arrays['overall_N'][row]:.1f}",
            color=ACCENT if guided[name] else INK,
            **style,
        )
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set(
            title="",
            xlabel="",
            ylabel="",
            xlim=(0.4, slots + 0.6),
            xticks=range(1, slots + 1) if slots < 6 else (1, slots),
        )
        axes.tick_params(
            color=QUIET, width=0.6, length=3.5, pad=3.5, labelsize=7.5, left=first_of_row
        )
        axes.spines["left"].set_visible(first_of_row)
        left, top = axes.get_position().x0, axes.get_position().y1
        figure.text(left, top + 0.42 / height, name, size=8.5, weight="bold", va="baseline")
        figure.text(
            left,
            top + 0.37 / height,
            KIND.get(name, ""),
            size=6.5,
            color=QUIET,
            va="top",
            linespacing=1.2,
        )
    first = figure.axes[0]
    low, high = (
        min(
            float(np.nanmin([arrays["low_NS"], arrays["share_NS"]])),
            float(arrays["hidden_N"].min()),
        ),
        100.0,
    )
    first.set_ylim(max(low - 0.22 * (high - low), 0), high)
    first.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for axes in figure.axes[::columns]:
        axes.set_ylabel("moving pixels hidden (%)", size=8.5)
    figure.text(
        (LEFT + (WIDTH - LEFT) / 2) / WIDTH,
        (foot - 0.38) / height,
        "slot of the clip",
        size=8.5,
        ha="center",
    )
    write_below(figure, text)
    return figure
