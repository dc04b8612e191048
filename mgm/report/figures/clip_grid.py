"""A grid of clips: a column per time slot, a labelled row per kind of picture, and text below.

The functions below the class draw one cell each.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mgm.report.figures import style
from mgm.report.figures.style import ACCENT, HIDDEN, INK, QUIET

CELL, GAP, LABELS, HEAD, LINE = 1.06, 0.05, 1.40, 0.30, 0.14  # inches
# Larger values are brighter, also in grey and for colour-blind readers.
SCALE = mpl.colormaps["cividis"]


class ClipGrid:
    """Figure with one or more clips below one another, each with the same rows.

    Use it within `mpl.rc_context(STYLE)`.
    """

    def __init__(self, index_BS: np.ndarray, rows: int, texts: Sequence[str]):
        """
        Args:
            index_BS: frame numbers above the columns of each clip.
            rows: rows per clip.
            texts: paragraphs below the clips.
        """
        clips, slots = index_BS.shape
        self.width = LABELS + slots * (CELL + GAP) + GAP
        self.part = HEAD + rows * (CELL + GAP)  # height of one clip
        lines = style.wrapped(texts, self.width)
        self.height = clips * self.part + (len(lines) + 1) * LINE
        self.figure = style.blank(self.width, self.height)
        for clip, index_S in enumerate(index_BS):
            for slot, index in enumerate(index_S):
                self._text(
                    LABELS + slot * (CELL + GAP) + CELL / 2,
                    self._top(clip, 0) + 0.07,
                    f"frame {index}",
                    ha="center",
                    size=8,
                )
        self._lines(0.08, (len(lines) + 0.5) * LINE, lines)

    def cell(self, clip: int, row: int, slot: int) -> Axes:
        """Add the axes of one cell."""
        left, bottom = LABELS + slot * (CELL + GAP), self._top(clip, row) - CELL
        axes = self.figure.add_axes(
            (left / self.width, bottom / self.height, CELL / self.width, CELL / self.height)
        )
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=HIDDEN)
        return axes

    def label(self, clip: int, row: int, title: str, *lines: str) -> None:
        """Label a row with a title and lines below it, at half the row's height."""
        quiet = [part for line in lines for part in line.split("\n") if part]
        top = self._top(clip, row) - CELL / 2 + (0.19 + LINE * len(quiet)) / 2
        self._text(0.08, top - 0.13, title, size=10, weight="bold", color=INK)
        self._lines(0.08, top - 0.19, quiet)

    def scale(self, clip: int, row: int, title: str, low: float, high: float, unit: str) -> None:
        """Label a row of maps with a title and a colour bar from `low` to `high`."""
        top, width = self._top(clip, row) - CELL / 2 + 0.32, 1.12
        self._text(0.08, top - 0.13, title, size=10, weight="bold", color=INK)
        axes = self.figure.add_axes(
            (0.08 / self.width, (top - 0.32) / self.height, width / self.width, 0.08 / self.height)
        )
        axes.imshow(np.linspace(0, 1, 256)[None], cmap=SCALE, aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        self._text(0.08, top - 0.46, f"{low:.2g}")
        self._text(0.08 + width, top - 0.46, f"{high:.2g}", ha="right")
        self._text(0.08 + width / 2, top - 0.46, unit, ha="center")

    def _top(self, clip: int, row: int) -> float:
        """Return where a row begins, in inches from below."""
        return self.height - clip * self.part - HEAD - row * (CELL + GAP)

    def _lines(self, x: float, top: float, lines: Sequence[str]) -> None:
        # One text per line, because the line height of a matplotlib text depends on its letters.
        for line, text in enumerate(lines):
            self._text(x, top - line * LINE - 0.1, text)

    def _text(self, x: float, y: float, text: str, **how: Any) -> None:
        self.figure.text(
            x / self.width, y / self.height, text, **{"size": 7.5, "color": QUIET, **how}
        )


def class_name(text: str) -> str:
    """Break a class name into lines that fit the labels' column."""
    return "\n".join(textwrap.wrap(text, 21))


def frame(axes: Axes, frame_HWC: np.ndarray) -> None:
    """Draw the frame."""
    axes.imshow(frame_HWC, extent=(0, 1, 1, 0), interpolation="antialiased")


def pale(axes: Axes, frame_HWC: np.ndarray) -> None:
    """Draw the frame in light grey, as a background."""
    axes.imshow(
        140 + _grey(frame_HWC) * 0.45,
        extent=(0, 1, 1, 0),
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="antialiased",
    )


def tinted(axes: Axes, frame_HWC: np.ndarray, share_HW: np.ndarray) -> None:
    """Draw a map of values in [0, 1] over the frame in grey."""
    axes.imshow(
        _grey(frame_HWC),
        extent=(0, 1, 1, 0),
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="antialiased",
    )
    axes.imshow(
        share_HW,
        extent=(0, 1, 1, 0),
        cmap=SCALE,
        vmin=0,
        vmax=1,
        interpolation="nearest",
        alpha=0.7,
    )


def _grey(frame_HWC: np.ndarray) -> np.ndarray:
    return frame_HWC @ np.array([0.299, 0.587, 0.114])


def outlines(axes: Axes, boxes_K4: np.ndarray) -> None:
    """Draw boxes (top, left, bottom, right) in shares of the frame's sides; NaN for no box."""
    for top, left, bottom, right in boxes_K4[np.isfinite(boxes_K4).all(1)]:
        # A dark line on a white one is visible on any background.
        for colour, line in (("white", 2.2), (INK, 1.0)):
            axes.add_patch(
                Rectangle(
                    (left, top),
                    right - left,
                    bottom - top,
                    fill=False,
                    edgecolor=colour,
                    linewidth=line,
                )
            )
    axes.set(xlim=(0, 1), ylim=(1, 0))


def glow(magnitude_SHW: np.ndarray) -> np.ndarray:
    """Return an RGBA map of a clip's motion, more opaque for larger vectors.

    The scale ends at the 99.5 % quantile, so a few outliers do not hide the rest.
    """
    share_SHW = (magnitude_SHW / max(np.quantile(magnitude_SHW, 0.995), 1e-9)).clip(max=1)
    return _tint(ACCENT, 0.85 * share_SHW**0.7)


def veil(masked_SHW: np.ndarray) -> np.ndarray:
    """Return an RGBA map that covers the hidden patches."""
    return _tint(HIDDEN, 0.9 * masked_SHW) * masked_SHW[..., None]


def _tint(colour: str, opacity_SHW: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [
            np.broadcast_to(mpl.colors.to_rgb(colour), (*opacity_SHW.shape, 3)),
            opacity_SHW[..., None],
        ],
        axis=-1,
    )


def motion(
    axes: Axes,
    frame_HWC: np.ndarray,
    motion_HW2: np.ndarray,
    glow_HW4: np.ndarray,
    has_motion: bool,
) -> None:
    """Draw the pale frame, its `glow`, and the largest vector of each of 7 x 7 fields."""
    pale(axes, frame_HWC)
    if not has_motion:
        axes.text(0.5, 0.5, "no motion\nvectors", size=7, color=INK, ha="center", va="center")
        return
    axes.imshow(glow_HW4, extent=(0, 1, 1, 0), interpolation="nearest")
    fields = min(7, *glow_HW4.shape[:2])
    rows, columns = (np.array_split(np.arange(size), fields) for size in glow_HW4.shape[:2])
    speed_HW = np.hypot(motion_HW2[..., 0], motion_HW2[..., 1])
    arrows = []
    for row in rows:
        for column in columns:
            part = np.ix_(row, column)
            largest = motion_HW2[part].reshape(-1, 2)[speed_HW[part].argmax()]
            if np.hypot(*largest) > 0.15 * speed_HW.max():
                arrows.append(
                    (
                        (column.mean() + 0.5) / speed_HW.shape[1],
                        (row.mean() + 0.5) / speed_HW.shape[0],
                        *largest,
                    )
                )
    if arrows:
        x, y, dx, dy = np.array(arrows).T
        longest = np.hypot(dx, dy).max()
        axes.quiver(
            x,
            y,
            dx / longest,
            dy / longest,
            angles="xy",
            scale_units="xy",
            scale=fields,
            width=0.016,
            headwidth=3.6,
            headlength=4,
            headaxislength=3.6,
            minshaft=1.4,
            color=INK,
            pivot="mid",
        )
    axes.set(xlim=(0, 1), ylim=(1, 0))


def masked(
    axes: Axes, frame_HWC: np.ndarray, masked_HW: np.ndarray, box_4: np.ndarray | None = None
) -> None:
    """Draw the frame with hidden patches pale, and the box of a dense mask.

    Args:
        box_4: centre x, centre y, width and height in patches; NaN for no box.
    """
    rows, columns = masked_HW.shape
    axes.imshow(frame_HWC, extent=(0, columns, rows, 0), interpolation="antialiased")
    axes.imshow(veil(masked_HW), extent=(0, columns, rows, 0), interpolation="nearest")
    if box_4 is not None and np.isfinite(box_4).all():
        x, y, width, height = box_4
        axes.add_patch(
            Rectangle(
                (x - width / 2, y - height / 2),
                width,
                height,
                fill=False,
                edgecolor=ACCENT,
                linewidth=1.4,
            )
        )
        axes.plot(x, y, "o", markersize=3.2, color=ACCENT, markeredgewidth=0)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
