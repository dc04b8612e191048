"""Style, layout and output files of all figures."""

import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from mgm.files import replacing

# For seaborn, SciPy is optional: densities and trees, which no chart has. It takes a second.
UNUSED = {"scipy.stats", "scipy.cluster"} - sys.modules.keys()
sys.modules.update(dict.fromkeys(UNUSED))  # type: ignore[arg-type]
import seaborn as sns  # noqa: E402, F401

for name in UNUSED:
    del sys.modules[name]

INK, QUIET, HIDDEN = "#1a1a1a", "#5f5f5f", "#dde2ea"
# Vermilion of Okabe and Ito's palette, which colour-blind readers can distinguish.
ACCENT = "#d55e00"
# Colours of methods, dark enough for text. The first is MGM's in all figures.
COLOURS = (ACCENT, "#0072b2", "#117a5b", "#7d4a86", "#8a6d00", "#a0265a", "#3b8bbd", "#4d4d4d")
# Marks of methods, so that they also differ in grey.
MARKS = "osD^vP<X"
DPI = 300  # of PNG files
# Inches. A phone shows a figure of this width at its full size, so panels stand below one another.
WIDTH, LINE = 3.7, 0.15  # of a figure, a line of text
LETTERS = 56  # of a line of text
TITLE, TICKS, MARGIN = 0.1, 0.25, 0.05  # above a panel, for the numbers below it, around all
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
    with replacing(path) as temporary:
        clock = {"Date" if path.suffix == ".svg" else "Software": None}
        draw().savefig(temporary, dpi=DPI, metadata=clock)


def wide(texts: Iterable[str]) -> float:
    """Return the width of the widest line of texts, in inches."""
    font = FontProperties(size=8.5)
    lines = [line for text in texts for line in text.split("\n")]
    measured = [text_to_path.get_text_width_height_descent(line, font, False) for line in lines]
    return max(width for width, _, _ in measured) / 72


def captioned(height: float, text: str) -> Figure:
    """Return a figure that is as high as its content and a caption below it.

    Places are known in inches, so no layout is searched: that takes longer than to draw.
    """
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, LETTERS)]
    foot = LINE * len(lines) + 2 * MARGIN
    figure = Figure((WIDTH, height + foot))
    look: dict[str, Any] = {"size": 8.5, "color": QUIET, "linespacing": 1.2, "va": "top"}
    top = (foot - MARGIN) / (height + foot)
    figure.text(MARGIN / WIDTH, top, "\n".join(lines), **look)
    return figure


def panels(
    heights: Sequence[float],
    titles: Sequence[str],
    labels: Sequence[str],
    text: str,
    *,
    left: float = 0.62,
    right: float = 0.1,
    above: float = 0.0,
    shared: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a captioned figure with panels below one another. Sizes are in inches.

    Args:
        heights: of the panels, without their titles and numbers.
        labels: of the horizontal axes.
        text: the caption.
        left: room for the labels of the vertical axes, and `right` of what stands there.
        above: room for a legend.
        shared: whether all panels have one horizontal axis.
    """
    titles = [textwrap.fill(title, LETTERS - 6) for title in titles]
    labels = [textwrap.fill(label, LETTERS - 16) for label in labels]
    heads = [TITLE + LINE * len(title.splitlines()) for title in titles]
    feet = [TICKS + LINE * len(label.splitlines()) for label in labels]
    figure = captioned(above + sum(heads) + sum(heights) + sum(feet), text)
    whole = figure.get_figheight()
    top, made = whole - above, list[Axes]()
    for head, height, foot, title, label in zip(heads, heights, feet, titles, labels):
        top -= head + height
        box = left / WIDTH, top / whole, (WIDTH - left - right) / WIDTH, height / whole
        axes = figure.add_axes(box, sharex=made[0] if made and shared else None, xlabel=label)
        # From the figure's left, above all names.
        figure.text(MARGIN / WIDTH, (top + height + 0.06) / whole, title, weight="bold")
        made.append(axes)
        top -= foot
    return figure, made
