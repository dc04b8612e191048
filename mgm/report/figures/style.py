"""Style and output files of all figures."""

import logging
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts, fontManager, get_font_names

from mgm.results.atomic import atomic_write

INK, QUIET, HIDDEN = "#1a1a1a", "#6b6b6b", "#dde2ea"
# Metadata fields that would make two files of the same figure differ.
CLOCKS = {"png": "Software", "svg": "Date", "pdf": "CreationDate"}
DPI = 200  # of PNG files
LINE = 0.15  # inches per line of the text below a figure
# Vermilion of Okabe and Ito's palette, which colour-blind readers can distinguish.
ACCENT = "#d55e00"
# Colours of lines, dark enough for text.
LOOKS = (ACCENT, "#0072b2", "#117a5b", "#7d4a86", "#767676", "#8a6d00")
# Fonts of Chinese, Japanese and Korean, of which a machine has some.
CJK = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Zen Hei", "PingFang SC")
FONTS = ("Helvetica", "Arial", "Liberation Sans", "DejaVu Sans", *CJK)
# Some have no normal weight, which is no news for a user.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
# Matplotlib lists the fonts of a machine once, perhaps before these were installed.
if not {*CJK} & {*get_font_names()}:
    for path in {*findSystemFonts()} - {font.fname for font in fontManager.ttflist}:
        with suppress(OSError, RuntimeError):
            fontManager.addfont(path)
# Matplotlib's own values come first, so that a user's matplotlibrc changes no figure.
STYLE: dict[Any, Any] = {
    name: value for name, value in mpl.rcParamsDefault.items() if "backend" not in name
} | {
    # A glyph that a family lacks is the next one's. A generic name, "sans-serif", is one family.
    "font.family": [name for name in FONTS if name in get_font_names()],
    # A $ in a name is a $.
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.pad_inches": 0.08,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "path",  # looks the same without our fonts
    "svg.hashsalt": "mgm",  # the same figure has the same ids
}
# A mask's kind, for the label of its row.
KIND = {
    "agnostic": "random in space\nand time",
    "tube": "static, sparse",
    "block": "static, dense",
    "smm-sparse": "simulated motion,\nsparse",
    "smm": "simulated motion,\ndense",
    "mgm-sparse": "motion-guided,\nsparse",
    "mgm": "motion-guided,\ndense",
    "warped": "MGMAE: carried\nby motion",
    "motion-bins": "TrackMAE: half moving,\nhalf still",
    "multi-block": "V-JEPA: static,\nlarge blocks",
    "green-noise": "Green3D: band-passed\nnoise",
    "codec-keep": "what moves\nis shown",
}


def blank(width: float, height: float, **options: Any) -> Figure:
    """Make an empty figure, with its size in inches."""
    figure = Figure((width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, stem: Path, kinds: Sequence[str], fitted: bool = True) -> None:
    """Write `stem`.svg and others, as `write` does."""
    for kind in kinds:
        write(figure, stem.with_suffix(f".{kind}"), kind, fitted)


@mpl.rc_context(STYLE)
def write(figure: Figure, path: Path, kind: str = "png", fitted: bool = True) -> None:
    """Write a figure as png, svg or pdf. The same figure gives the same bytes.

    Args:
        fitted: fit the page to what is drawn. It takes as long as drawing, and a figure of
            `with_text` has its final size.
    """
    dpi = DPI if kind == "png" else "figure"
    with atomic_write(path) as temporary:
        # An svg has the ground of the page that shows it.
        clear = kind == "svg"
        metadata = {CLOCKS[kind]: None}
        figure.savefig(
            temporary,
            dpi=dpi,
            format=kind,
            metadata=metadata,
            transparent=clear,
            bbox_inches="tight" if fitted else None,
        )


def drawn(draw: Callable[[], Figure]) -> Figure:
    """Draw a figure in the style of all figures. Files alone are drawn, also with a screen."""
    mpl.use("agg")
    with mpl.rc_context(STYLE):
        return draw()


def caption(figure: Figure, text: str) -> Figure:
    """Write a paragraph below a figure."""
    lines = textwrap.wrap(text, int((figure.get_figwidth() - 0.2) * 17.2))
    look: dict[str, Any] = {"size": 7.5, "color": QUIET, "va": "top", "linespacing": 1.25}
    # Turned labels of an axis reach below the figure.
    lowest = min(0.0, figure.get_tightbbox().y0 / figure.get_figheight())
    figure.text(0.01, lowest - 0.01, "\n".join(lines), **look)
    # It stays drawable. seaborn has made it with pyplot, which would keep it for ever.
    plt.close(figure)
    return figure


def with_text(width: float, height: float, gap: float, texts: Sequence[str]) -> Figure:
    """Make a figure with paragraphs of text below a space of `height`. All sizes are in inches."""
    lines = [line for text in texts for line in textwrap.wrap(text, int((width - 0.2) * 17.2))]
    below = gap + (len(lines) + 0.8) * LINE
    figure = blank(width, height + below)
    figure.text(
        0.08 / width,
        (len(lines) + 0.4) * LINE / (height + below),
        "\n".join(lines),
        size=7.5,
        color=QUIET,
        va="top",
        linespacing=1.25,
    )
    return figure
