"""Grids of clips, with a column per time slot and a labelled row per kind of picture.

Pictures and boxes have coordinates from 0 to 1, from the top left of the frame.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mgm.report.figures.style import ACCENT, HIDDEN, INK, QUIET, with_text

CELL, GAP, LABELS, HEAD, LINE = 1.06, 0.05, 1.40, 0.30, 0.14  # inches
LEFT = (0.08 - LABELS) * 72  # of the labels, in points from the first column
# Larger values are brighter, also in grey and for colour-blind readers.
SCALE = mpl.colormaps["cividis"]
GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255}


def clip_grid(index_BS: np.ndarray, rows: int, texts: Sequence[str]) -> tuple[Figure, np.ndarray]:
    """Make a figure of clips below one another, each with the same rows.

    Args:
        index_BS: frame numbers above the columns of each clip.
        rows: rows per clip.
        texts: paragraphs below the clips.

    Returns:
        The figure, and its axes as an array of clips, rows and slots.
    """
    clips, slots = index_BS.shape
    width, part = LABELS + slots * (CELL + GAP), HEAD + rows * (CELL + GAP)
    figure = with_text(width, clips * part, 0.5 * LINE, texts)
    height, grids = figure.get_figheight(), []
    for clip, index_S in enumerate(index_BS):
        top = height - clip * part - HEAD
        grid = figure.add_gridspec(
            rows,
            slots,
            left=LABELS / width,
            right=1 - GAP / width,
            top=top / height,
            bottom=(top - part + HEAD + GAP) / height,
            wspace=GAP / CELL,
            hspace=GAP / CELL,
        )
        grids.append(grid.subplots(squeeze=False))
        for axes in grids[-1].flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=HIDDEN)
        for axes, index in zip(grids[-1][0], index_S):
            axes.set_title(f"frame {index}", loc="center", size=8, color=QUIET, pad=4)
    return figure, np.array(grids)


def label(axes: Axes, title: str, *lines: str) -> None:
    """Label the row of its first cell with a title and lines below it, at half its height."""
    quiet = "\n".join(filter(None, lines))
    up = (0.19 + LINE * len(quiet.splitlines())) / 2 * 72
    bold: dict[str, Any] = {"size": 10, "weight": "bold", "va": "baseline"}
    small: dict[str, Any] = {"size": 7.5, "color": QUIET, "va": "top", "linespacing": 1.35}
    for text, down, look in ((title, 0.13, bold), (quiet, 0.19, small)):
        place = (LEFT, up - down * 72)
        axes.annotate(text, (0, 0.5), place, "axes fraction", "offset points", **look)


def scale(axes: Axes, title: str, low: float, high: float, unit: str) -> None:
    """Label a row of maps with a title and a colour bar from `low` to `high`."""
    label(axes, title, " ", " ")
    bar = axes.inset_axes((LEFT / 72 / CELL, 0.42, 1.12 / CELL, 0.08 / CELL))
    bar.imshow(np.linspace(0, 1, 256)[None], cmap=SCALE, aspect="auto")
    bar.set(xticks=[], yticks=[])
    bar.spines[:].set_visible(False)
    for x, text, side in (
        (0, f"{low:.2g}", "left"),
        (0.5, unit, "center"),
        (1, f"{high:.2g}", "right"),
    ):
        place = bar.transAxes
        bar.text(x, -0.5, text, size=7.5, color=QUIET, ha=side, va="top", transform=place)


def show(axes: Axes, picture: np.ndarray, **look: Any) -> None:
    """Draw a picture or a map over the whole cell."""
    axes.imshow(picture, extent=(0, 1, 1, 0), **{"interpolation": "antialiased", **look})


def grey(frame_HWC: np.ndarray) -> np.ndarray:
    return frame_HWC @ np.array([0.299, 0.587, 0.114])


def outline(axes: Axes, left_top: Any, width_height: Any, **look: Any) -> None:
    """Draw a box, unless it is NaN."""
    if np.isfinite([*left_top, *width_height]).all():
        axes.add_patch(Rectangle(tuple(left_top), *width_height, fill=False, **look))
        axes.set(xlim=(0, 1), ylim=(1, 0))


def outlines(axes: Axes, boxes_K4: np.ndarray) -> None:
    """Draw boxes (top, left, bottom, right) in shares of the frame's sides; NaN for no box."""
    for top, left, bottom, right in boxes_K4:
        # A dark line on a white one is visible on any background.
        for colour, line in (("white", 2.2), (INK, 1.0)):
            sides = (right - left, bottom - top)
            outline(axes, (left, top), sides, edgecolor=colour, linewidth=line)


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
    rgb = np.broadcast_to(mpl.colors.to_rgb(colour), (*opacity_SHW.shape, 3))
    return np.concatenate([rgb, opacity_SHW[..., None]], axis=-1)


def motion(axes: Axes, motion_HW2: np.ndarray, glow_HW4: np.ndarray) -> None:
    """Draw `glow`, and the largest vector of each of 7 x 7 fields."""
    show(axes, glow_HW4, interpolation="nearest")
    sizes = glow_HW4.shape[:2]
    fields = min(7, *sizes)
    speed_HW = np.hypot(motion_HW2[..., 0], motion_HW2[..., 1])
    arrows = []
    for row in np.array_split(np.arange(sizes[0]), fields):
        for column in np.array_split(np.arange(sizes[1]), fields):
            part = np.ix_(row, column)
            largest = motion_HW2[part].reshape(-1, 2)[speed_HW[part].argmax()]
            if np.hypot(*largest) > 0.15 * speed_HW.max():
                place = (column.mean() + 0.5) / sizes[1], (row.mean() + 0.5) / sizes[0]
                arrows.append((*place, *largest))
    if arrows:
        x, y, dx, dy = np.array(arrows).T
        longest = np.hypot(dx, dy).max()
        # Sizes of the heads are in units of the shaft's width.
        look: dict[str, Any] = {
            "width": 0.016,
            "headwidth": 3.6,
            "headlength": 4,
            "headaxislength": 3.6,
        }
        units = {"angles": "xy", "scale_units": "xy", "scale": fields, "pivot": "mid"}
        axes.quiver(x, y, dx / longest, dy / longest, color=INK, minshaft=1.4, **units, **look)
    axes.set(xlim=(0, 1), ylim=(1, 0))


def masked(
    axes: Axes, frame_HWC: np.ndarray, masked_HW: np.ndarray, box_4: np.ndarray | None = None
) -> None:
    """Draw the frame with hidden patches pale, and the box of a dense mask.

    Args:
        box_4: centre x, centre y, width and height in patches; NaN for no box.
    """
    show(axes, frame_HWC)
    show(axes, veil(masked_HW), interpolation="nearest")
    if box_4 is not None:
        centre, sides = box_4.reshape(2, 2) / masked_HW.shape[::-1]
        outline(axes, centre - sides / 2, sides, edgecolor=ACCENT, linewidth=1.4)
        axes.plot(*centre, "o", markersize=3.2, color=ACCENT, markeredgewidth=0)
        axes.set(xlim=(0, 1), ylim=(1, 0))
