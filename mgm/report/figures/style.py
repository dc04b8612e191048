"""Style and output files of all figures."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mgm.results.atomic import atomic_write

INK, QUIET, HIDDEN = "#1a1a1a", "#6b6b6b", "#dde2ea"
# Metadata fields that would make two files of the same figure differ.
CLOCKS = {"png": "Software", "svg": "Date", "pdf": "CreationDate"}
DPI = 200  # of PNG files
LINE = 0.15  # inches per line of the text below a figure
# Vermilion of Okabe and Ito's palette, which colour-blind readers can distinguish.
ACCENT = "#d55e00"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
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
    "savefig.bbox": None,
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


def save(figure: Figure, stem: Path, arrays: Mapping[str, Any]) -> None:
    """Write `stem`.svg, .pdf, .png, and the drawn arrays as `stem`.npz.

    The same arrays give the same bytes.
    """
    for kind in CLOCKS:
        write(figure, stem.with_suffix(f".{kind}"), kind)
    np.savez_compressed(stem.with_suffix(".npz"), **arrays)


@mpl.rc_context(STYLE)
def write(figure: Figure, path: Path, kind: str = "png") -> None:
    """Write a figure as png, svg or pdf. The same figure gives the same bytes."""
    dpi = DPI if kind == "png" else "figure"
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=kind, metadata={CLOCKS[kind]: None})


def with_text(
    width: float, height: float, gap: float, texts: Sequence[str]
) -> tuple[Figure, float]:
    """Make a figure with paragraphs of text below a space of `height`. All sizes are in inches.

    Returns:
        The figure, and the share of its height that the text and the `gap` above it take.
    """
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
    return figure, below / (height + below)


def panels(
    shape: tuple[int, int],
    size: tuple[float, float],
    edges: tuple[float, float, float, float],
    texts: Sequence[str],
    **options: Any,
) -> tuple[Figure, np.ndarray]:
    """Make a figure of panels, with paragraphs of text below them.

    Args:
        shape: rows and columns.
        size: width and height in inches, without the bottom edge and the text.
        edges: left, right, top and bottom, in inches between the panels and the figure or the text.

    Returns:
        The figure, and its axes as an array of `shape`.
    """
    width, (left, right, top, bottom) = size[0], edges
    figure, below = with_text(*size, bottom, texts)
    axes = figure.subplots(*shape, squeeze=False, **options)
    figure.subplots_adjust(left / width, below, 1 - right / width, 1 - top / figure.get_figheight())
    return figure, axes
