"""The figure of mask coverage: how much of what moves each mask hides, slot by slot. Arrays in, a matplotlib figure out."""

import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mgm.report.figures.style import ACCENT, INK, KIND, QUIET, STYLE

WIDTH, HEIGHT, LEFT, GAP, HEAD, AXIS, LINE = 7.4, 1.9, 0.62, 0.1, 0.62, 0.48, 0.15  # inches; HEIGHT is a panel's
KEY = (
    "Marks: the share of moving pixels that lies under the mask, bars its 95 % interval over {clips} clips, numbers the mean over slots. "
    "Dotted: the share of the whole frame under the mask, which a mask that is blind to motion hides of the motion, too. "
    "Orange: masks guided by motion."
)


def coverage(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """A panel a mask; in it, its share over the slots of a clip, beside the share of the frame that it hides.

    Args:
        arrays: as `mgm.jobs.measure.coverage` returns them.
        note: a line below, such as the scale's promise.
    """
    order = [name for name in KIND if name in arrays["names_N"]] + [str(name) for name in arrays["names_N"] if str(name) not in KIND]
    at = {str(name): position for position, name in enumerate(arrays["names_N"])}
    key = KEY.format(clips=_range(arrays["clips_S"]))
    text = [line for part in (key, note) for line in textwrap.wrap(part, int((WIDTH - 0.2) * 20))]
    foot = AXIS + (len(text) + 0.8) * LINE
    height, width = HEAD + HEIGHT + foot, (WIDTH - LEFT - 0.08) / len(order)
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, height))
        FigureCanvasAgg(figure)
        first: Axes | None = None
        for column, name in enumerate(order):
            left = LEFT + column * width
            place = (left / WIDTH, foot / height, (width - GAP) / WIDTH, HEIGHT / height)
            axes = figure.add_axes(place, sharey=first)
            first = first or axes
            _panel(axes, arrays, at[name], guided=name.startswith("mgm"))
            axes.tick_params(labelleft=axes is first, left=axes is first)
            axes.spines["left"].set_visible(axes is first)
            figure.text(left / WIDTH, (foot + HEIGHT + 0.42) / height, name, size=8.5, weight="bold", va="baseline")
            figure.text(left / WIDTH, (foot + HEIGHT + 0.37) / height, KIND.get(name, ""), size=6.5, color=QUIET, va="top", linespacing=1.2)
        assert first is not None
        low, high = np.nanmin([arrays["low_NS"], arrays["share_NS"]]), 100.0
        low = min(float(low), float(arrays["hidden_N"].min()))
        first.set_ylim(max(low - 0.22 * (high - low), 0), high)
        first.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        first.set_ylabel("moving pixels hidden (%)", size=8.5)
        figure.text((LEFT + (WIDTH - LEFT) / 2) / WIDTH, (foot - 0.38) / height, "slot of the clip", size=8.5, ha="center")
        figure.text(0.08 / WIDTH, (len(text) + 0.4) * LINE / height, "\n".join(text), size=7.5, color=QUIET, va="top", linespacing=1.25)
    return figure


def _panel(axes: Axes, arrays: Mapping[str, Any], row: int, guided: bool) -> None:
    share_S, low_S, high_S = (arrays[name][row] for name in ("share_NS", "low_NS", "high_NS"))
    slot_S = np.arange(1, len(share_S) + 1)
    colour = ACCENT if guided else INK
    axes.axhline(arrays["hidden_N"][row], color=QUIET, linewidth=1.1, linestyle=(0, (1, 1.6)))
    axes.vlines(slot_S, low_S, high_S, color=colour, linewidth=1.1)
    axes.plot(
        slot_S, share_S, "o-", color=colour, markersize=3.6, linewidth=1.1, markerfacecolor=colour if guided else "white", clip_on=False
    )
    mean = f"{arrays['overall_N'][row]:.1f}"
    plain = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # no grid line through a number
    axes.text(0.5, 0.05, mean, transform=axes.transAxes, size=9, weight="bold", color=colour, ha="center", bbox=plain)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(0.4, len(share_S) + 0.6)
    axes.set_xticks(slot_S if len(slot_S) < 6 else slot_S[[0, -1]])
    axes.tick_params(color=QUIET, width=0.6, labelsize=7.5)


def _range(clips_S: np.ndarray) -> str:
    low, high = int(clips_S.min()), int(clips_S.max())
    return str(low) if low == high else f"{low} to {high}"
