"""Figures, in one style: arrays in, a matplotlib figure out. No data and no torch: they can be redrawn on any laptop."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

INK, QUIET, HIDDEN = "#1a1a1a", "#6b6b6b", "#dde2ea"
ACCENT = "#d55e00"  # vermilion of Okabe and Ito's palette, safe for the colour-blind
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": None,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "path",  # looks the same without our fonts
    "svg.hashsalt": "mgm",  # the same figure gives the same file
}
KIND = {  # what a mask is, for its row
    "agnostic": "random in space\nand time",
    "tube": "static, sparse",
    "block": "static, dense",
    "smm-sparse": "simulated motion,\nsparse",
    "smm": "simulated motion,\ndense",
    "mgm-sparse": "motion-guided,\nsparse",
    "mgm": "motion-guided,\ndense",
}

CELL, GAP, LABELS, HEAD, LINE = 1.06, 0.05, 1.32, 0.30, 0.15  # inches
KEY = (
    "Pale patches are hidden. Orange: the box that a dense mask follows, and its centre; where the box hangs over the frame's edge, "
    "the mask grows on the other side."
)


def masks_on_a_clip(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """Figure 5: a clip's frames, its motion, and masks on it; a column is a slot of the token grid.

    Args:
        arrays: as `mgm.jobs.visualise.masks_on_a_clip` returns them.
        note: a line below, such as the scale's promise.
    """
    slots, names = len(arrays["frames_SHWC"]), [str(name) for name in arrays["names_N"]]
    rows = 2 + len(names)
    width = LABELS + slots * (CELL + GAP) + GAP
    lines = [line for text in (KEY, note) for line in textwrap.wrap(text, int((width - 0.2) * 20))]
    height = HEAD + rows * (CELL + GAP) + (len(lines) + 1) * LINE
    with mpl.rc_context(STYLE):
        figure = Figure((width, height))
        FigureCanvasAgg(figure)

        def cell(row: int, slot: int) -> Axes:
            left, bottom = LABELS + slot * (CELL + GAP), height - HEAD - (row + 1) * (CELL + GAP) + GAP
            axes = figure.add_axes((left / width, bottom / height, CELL / width, CELL / height))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=HIDDEN)
            return axes

        def label(row: int, title: str, *lines: str) -> None:
            middle = height - HEAD - row * (CELL + GAP) - CELL / 2
            block = 0.17 + 0.14 * sum(line.count("\n") + 1 for line in lines)
            figure.text(0.08 / width, (middle + block / 2) / height, title, size=10, weight="bold", va="top")
            figure.text(
                0.08 / width, (middle + block / 2 - 0.19) / height, "\n".join(lines), size=7.5, color=QUIET, va="top", linespacing=1.25
            )

        for slot, index in enumerate(arrays["index_S"]):
            left = LABELS + slot * (CELL + GAP) + CELL / 2
            figure.text(left / width, (height - HEAD + 0.07) / height, f"frame {index}", size=8, color=QUIET, ha="center")
        label(0, "frames", "first of each slot")
        label(1, "motion", "vectors and their\nmagnitude")
        fastest = np.quantile(arrays["magnitude_SHW"], 0.995)  # a few wild vectors would pale the rest
        for slot, frame_HWC in enumerate(arrays["frames_SHWC"]):
            _frame(cell(0, slot), frame_HWC)
            motion_HW2, magnitude_HW = arrays["motion_SHW2"][slot], arrays["magnitude_SHW"][slot]
            _motion(cell(1, slot), frame_HWC, motion_HW2, magnitude_HW, arrays["has_motion_S"][slot], fastest)
        for row, name in enumerate(names):
            masked_SHW = arrays["masked_NSHW"][row]
            label(2 + row, name, KIND.get(name, ""), f"{arrays['ratio_N'][row]:.0%} hidden")
            for slot, frame_HWC in enumerate(arrays["frames_SHWC"]):
                _masked(cell(2 + row, slot), frame_HWC, masked_SHW[slot], arrays["boxes_NS4"][row, slot])
        figure.text(0.08 / width, (len(lines) + 0.5) * LINE / height, "\n".join(lines), size=7.5, color=QUIET, va="top", linespacing=1.25)
    return figure


def _frame(axes: Axes, frame_HWC: np.ndarray) -> None:
    axes.imshow(frame_HWC, extent=(0, 1, 1, 0), interpolation="antialiased")


def _motion(axes: Axes, frame_HWC: np.ndarray, motion_HW2: np.ndarray, magnitude_HW: np.ndarray, has_motion: bool, fastest: float) -> None:
    """The frame, pale; over it the magnitude, and in each of 7 x 7 fields the largest vector as an arrow."""
    grey_HW = frame_HWC @ np.array([0.299, 0.587, 0.114])
    axes.imshow(140 + grey_HW * 0.45, extent=(0, 1, 1, 0), cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    if not has_motion:
        axes.text(0.5, 0.5, "no motion\ninformation", size=7, color=INK, ha="center", va="center")
        return
    share_HW = (magnitude_HW / max(fastest, 1e-9)).clip(max=1) ** 0.7
    overlay_HW4 = np.empty((*share_HW.shape, 4))
    overlay_HW4[..., :3], overlay_HW4[..., 3] = mpl.colors.to_rgb(ACCENT), 0.85 * share_HW
    axes.imshow(overlay_HW4, extent=(0, 1, 1, 0), interpolation="nearest")
    fields = min(7, *magnitude_HW.shape)
    rows, columns = (np.array_split(np.arange(size), fields) for size in magnitude_HW.shape)
    speed_HW = np.hypot(motion_HW2[..., 0], motion_HW2[..., 1])
    arrows = []
    for row in rows:
        for column in columns:
            part = speed_HW[np.ix_(row, column)]
            i, j = np.unravel_index(part.argmax(), part.shape)
            y, x = row[i], column[j]
            if speed_HW[y, x] > 0.15 * speed_HW.max():
                arrows.append(((x + 0.5) / speed_HW.shape[1], (y + 0.5) / speed_HW.shape[0], *motion_HW2[y, x]))
    if arrows:
        x, y, dx, dy = np.array(arrows).T
        longest = np.hypot(dx, dy).max()
        axes.quiver(x, y, dx / longest, dy / longest, angles="xy", scale_units="xy", scale=fields, width=0.016, headwidth=3.6,
                    headlength=4, headaxislength=3.6, minshaft=1.4, color=INK, pivot="mid")  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(1, 0))


def _masked(axes: Axes, frame_HWC: np.ndarray, masked_HW: np.ndarray, box_4: np.ndarray) -> None:
    rows, columns = masked_HW.shape
    axes.imshow(frame_HWC, extent=(0, columns, rows, 0), interpolation="antialiased")
    overlay_HW4 = np.zeros((rows, columns, 4))
    overlay_HW4[masked_HW] = (*mpl.colors.to_rgb(HIDDEN), 0.9)
    axes.imshow(overlay_HW4, extent=(0, columns, rows, 0), interpolation="nearest")
    if np.isfinite(box_4).all():
        x, y, width, height = box_4
        axes.add_patch(Rectangle((x - width / 2, y - height / 2), width, height, fill=False, edgecolor=ACCENT, linewidth=1.4))
        axes.plot(x, y, "o", markersize=3.2, color=ACCENT, markeredgewidth=0)
    axes.set(xlim=(0, columns), ylim=(rows, 0))


def save(figure: Figure, stem: Path, arrays: Mapping[str, Any]) -> None:
    """`stem`.svg, .pdf and .png, and the arrays that were drawn as `stem`.npz beside them; the same arrays give the same bytes."""
    write_png(figure, stem.with_suffix(".png"))
    with mpl.rc_context(STYLE):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})
    np.savez_compressed(stem.with_suffix(".npz"), **arrays)


def write_png(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure.savefig(path, dpi=200, format="png", metadata={"Software": None})
