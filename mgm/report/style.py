"""Style and output files of all figures."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from mgm.files import replacing

INK, QUIET, HIDDEN = "#1a1a1a", "#5f5f5f", "#dde2ea"
# Vermilion of Okabe and Ito's palette, which colour-blind readers can distinguish.
ACCENT = "#d55e00"
# Colours of methods, dark enough for text. The first is MGM's in all figures.
COLOURS = (ACCENT, "#0072b2", "#117a5b", "#7d4a86", "#8a6d00", "#a0265a", "#3b8bbd", "#4d4d4d")
# Marks of methods, so that they also differ in grey.
MARKS = "osD^vP<X"
DPI = 300  # of PNG files
STYLE: dict[Any, Any] = {
    # A $ in a name is a $.
    "text.parse_math": False,
    # The smallest text, at the width of a phone.
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.pad_inches": 0.08,
    # Text stays text, which is found, read aloud, and a fifth of the bytes. Verdana is as wide.
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "svg.hashsalt": "mgm",  # the same figure has the same ids
}


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Return a colour per name. MGM has the same in all figures."""
    others = iter(COLOURS[1:] * len(names))
    return {name: ACCENT if name in ("MGM", "MGM (Dense)") else next(others) for name in names}


@mpl.rc_context(STYLE)
def write(draw: Callable[[], Figure], path: Path) -> None:
    """Draw a figure, and write it as svg or png. The same figure gives the same bytes."""
    figure = draw()
    with replacing(path) as temporary:
        clock = {"Date" if path.suffix == ".svg" else "Software": None}
        # A layout has room for the caption. To measure it draws the figure once more.
        box = None if figure.get_layout_engine() else "tight"
        figure.savefig(temporary, dpi=DPI, metadata=clock, bbox_inches=box)


def caption(figure: Figure, text: str) -> Figure:
    """Write paragraphs below a figure."""
    width = int(figure.get_figwidth() * 14.5)
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, width)]
    place = -0.02
    if layout := figure.get_layout_engine():
        room = 0.16 * len(lines) + 0.12
        height = figure.get_figheight() + room
        figure.set_figheight(height)
        place = room / height
        layout.set(rect=(0, place, 1, 1 - place))  # type: ignore[call-arg]
        place -= 0.04 / height
    look: dict[str, Any] = {"size": 8.5, "color": QUIET, "linespacing": 1.25}
    figure.text(0.01, place, "\n".join(lines), va="top", in_layout=False, **look)
    return figure
