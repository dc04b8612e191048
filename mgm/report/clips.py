"""Figures 5 to 8: clips with masks, motion, attention or reconstructions.

A figure has a column per time slot and a labelled line per kind of picture. It is as wide as a
phone. Each function takes the
arrays that a run of stage `sample` writes (`mgm.stages.samples`). It needs neither videos nor
PyTorch, so every machine can redraw a figure. Pictures and boxes have coordinates from 0 to 1, from
the top left of the frame.
"""

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mgm.report.style import ACCENT, HIDDEN, INK, QUIET, WIDTH, captioned
from mgm.spec import MASKS

GAP, LABEL, HEAD = 0.04, 0.38, 0.2  # inches: of a label of two lines, of frame numbers
LETTERS = 50  # of a label's line
# Larger values are brighter, also in grey and for colour-blind readers.
SCALE = mpl.colormaps["cividis"]
GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255}
MASK_KEY = (
    "Pale patches are hidden. Orange: the box of a dense mask and its centre. If a part of the box "
    "lies outside the frame, the mask hides as many patches more inside."
)
ATTENTION_KEY = (
    "Attention of the outlined patch (centre of the centre frame) to every patch: last block, mean "
    "over heads, no patch hidden. Uniform attention is 1 everywhere. The colour scale leaves out "
    "the largest 0.5 % of a clip's values."
)
RECONSTRUCTION_KEY = (
    "Visible patches are unchanged. The model predicts hidden patches with mean 0 and standard "
    "deviation 1. Their colour and contrast are those of the nearest visible patches."
)
Arrays = Mapping[str, Any]


def masks_on_a_clip(arrays: Arrays, note: str = "") -> Figure:
    """Draw Figure 5: a clip's frames, its motion, and masks on it."""
    names = arrays["names_N"]
    figure, [lines] = _grid(arrays["index_S"][None], 2 + len(names), f"{MASK_KEY}\n{note}")
    _frames(lines[0], arrays["frames_SHWC"], "Frames", "first of each time slot")
    _motion(lines[1], arrays)
    for mask, name in enumerate(map(str, names)):
        _masks(lines[2 + mask], arrays, mask, *_row(name))
    return figure


def attention_on_a_clip(arrays: Arrays, note: str = "") -> Figure:
    """Draw Figure 6: a clip's frames with boxes, a run's mask, the motion, and attention."""
    figure, [lines] = _grid(arrays["index_S"][None], 4, f"{MASK_KEY}\n{ATTENTION_KEY}\n{note}")
    known = arrays["objects_SK4"].shape[1] > 0
    boxes = "with boxes of the objects" if known else "the video has no boxes of objects"
    _frames(lines[0], arrays["frames_SHWC"], "Frames", f"first of each slot, {boxes}")
    for axes, boxes_K4 in zip(lines[0], arrays["objects_SK4"]):
        _outlines(axes, boxes_K4)
    name = str(arrays["names_N"][0])
    _masks(lines[1], arrays, 0, f"{_row(name)[0]} mask")
    _motion(lines[2], arrays)
    _attention(lines[3], arrays["attention_SHW"], arrays["query_3"])
    return figure


def attention_on_clips(arrays: Arrays, note: str = "") -> Figure:
    """Draw Figure 7: the frames of several clips, and attention over the frames."""
    figure, clips = _grid(arrays["index_BS"], 2, f"{ATTENTION_KEY}\n{note}")
    for clip, (lines, frames_SHWC) in enumerate(zip(clips, arrays["frames_BSHWC"])):
        _frames(lines[0], frames_SHWC, f"Clip {clip + 1}", str(arrays["class_B"][clip]))
        for axes, frame_HWC in zip(lines[1], frames_SHWC):
            _picture(axes, _grey(frame_HWC), **GREY)
        _attention(lines[1], arrays["attention_BSHW"][clip], arrays["query_B3"][clip], alpha=0.7)
    return figure


def reconstructions(arrays: Arrays, note: str = "") -> Figure:
    """Draw Figure 8: several clips, and each run's mask and reconstruction of them."""
    names = [str(name) for name in arrays["names_P"]]
    figure, clips = _grid(arrays["index_BS"], 1 + 2 * len(names), f"{RECONSTRUCTION_KEY}\n{note}")
    for clip, (lines, frames_SHWC) in enumerate(zip(clips, arrays["frames_BSHWC"])):
        _frames(lines[0], frames_SHWC, f"Clip {clip + 1}", str(arrays["class_B"][clip]))
        for run, name in enumerate(names):
            method, line = _row(name)[0], lines[1 + 2 * run]
            hidden = f"{100 * arrays['ratio_P'][run]:.0f} % hidden"
            _label(line[0], f"{method} mask", hidden)
            for shown in zip(line, frames_SHWC, arrays["masked_BPSHW"][clip, run]):
                _hidden(*shown)
            drawn_SHWC = arrays["reconstructed_BPSHWC"][clip, run]
            _frames(lines[2 + 2 * run], drawn_SHWC, method, "reconstruction")
    return figure


DRAW: dict[str, Callable[[Arrays, str], Figure]] = {
    "masks": masks_on_a_clip,
    "every-mask": masks_on_a_clip,
    "attention": attention_on_a_clip,
    "overlays": attention_on_clips,
    "reconstructions": reconstructions,
}


def _row(name: str) -> tuple[str, str]:
    """Return a title for a row of a study, or a mask, and the paper of a mask from elsewhere."""
    if name not in MASKS:
        return name, ""
    row, source = MASKS[name].row, MASKS[name].source
    return (row.partition(" (")[0] if source else row or name), source


def _grid(index_BS: np.ndarray, count: int, text: str) -> tuple[Figure, np.ndarray]:
    """Make a figure of clips with `count` lines of pictures each, and axes by clip, line and slot.

    Args:
        index_BS: frame numbers above the columns of each clip.
        text: the caption.
    """
    clips, slots = index_BS.shape
    cell = (WIDTH - GAP) / slots - GAP
    part = HEAD + count * (cell + LABEL)
    figure, grids = captioned(clips * part, text), []
    whole = figure.get_figheight()
    for clip, index_S in enumerate(index_BS):
        # Each line's label stands above it, the frame numbers above the first.
        top, bottom = 1 - (clip * part + HEAD + LABEL) / whole, 1 - (clip + 1) * part / whole
        sides = {"left": GAP / WIDTH, "right": 1 - GAP / WIDTH, "top": top, "bottom": bottom}
        grid = figure.add_gridspec(count, slots, wspace=GAP / cell, hspace=LABEL / cell, **sides)
        grids.append(grid.subplots(squeeze=False))
        for axes in grids[-1].flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=HIDDEN)
        for slot, (axes, index) in enumerate(zip(grids[-1][0], index_S)):
            number: dict[str, Any] = {"xytext": (0, (LABEL + 0.03) * 72), "color": QUIET}
            _above(axes, f"frame {index}" if slot == 0 else str(index), **number)
    return figure, np.array(grids)


def _above(axes: Axes, text: str, **look: Any) -> None:
    """Write a line of text above a cell, from its left."""
    axes.annotate(text, (0, 1), xycoords="axes fraction", textcoords="offset points", **look)


def _label(axes: Axes, title: str, *below: str) -> None:
    """Label the line of its first cell with a title and quiet text below it."""
    quiet = ", ".join(filter(None, below))
    _above(axes, textwrap.shorten(title, LETTERS), xytext=(0, 15), weight="bold")
    _above(axes, textwrap.shorten(quiet, LETTERS), xytext=(0, 3.5), color=QUIET)


def _picture(axes: Axes, picture: np.ndarray, **look: Any) -> None:
    """Draw a picture or a map over the whole cell."""
    axes.imshow(picture, extent=(0, 1, 1, 0), **{"interpolation": "antialiased", **look})


def _grey(frame_HWC: np.ndarray) -> np.ndarray:
    return frame_HWC @ np.array([0.299, 0.587, 0.114])


def _tint(colour: str, opacity_HW: np.ndarray) -> np.ndarray:
    """Return an RGBA map of one colour."""
    rgb = np.broadcast_to(mpl.colors.to_rgb(colour), (*opacity_HW.shape, 3))
    return np.concatenate([rgb, opacity_HW[..., None]], axis=-1)


def _outlines(axes: Axes, boxes_K4: np.ndarray) -> None:
    """Draw boxes (top, left, bottom, right) in shares of the frame's sides. NaN: no box."""
    for top, left, bottom, right in boxes_K4[np.isfinite(boxes_K4).all(-1)]:
        # A dark line on a white one is visible on any background.
        for colour, wide in (("white", 2.2), (INK, 1.0)):
            look: dict[str, Any] = {"fill": False, "edgecolor": colour, "linewidth": wide}
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, **look))
    axes.set(xlim=(0, 1), ylim=(1, 0))


def _frames(axes_S: np.ndarray, frames_SHWC: np.ndarray, title: str, small: str) -> None:
    _label(axes_S[0], title, small)
    for axes, frame_HWC in zip(axes_S, frames_SHWC):
        _picture(axes, frame_HWC)


def _motion(axes_S: np.ndarray, arrays: Arrays) -> None:
    """Draw the motion over the frames in light grey: its size, and vectors.

    The scale ends at the 99.5 % quantile, so a few outliers do not hide the rest.
    """
    _label(axes_S[0], "Motion", "vectors and their magnitude")
    size_SHW = arrays["magnitude_SHW"]
    share_SHW = (size_SHW / max(np.quantile(size_SHW, 0.995), 1e-9)).clip(max=1)
    slots = zip(axes_S, arrays["frames_SHWC"], arrays["motion_SHW2"], share_SHW)
    for slot, (axes, frame_HWC, motion_HW2, share_HW) in enumerate(slots):
        _picture(axes, 140 + _grey(frame_HWC) * 0.45, **GREY)
        if arrays["has_motion_S"][slot]:
            _picture(axes, _tint(ACCENT, 0.85 * share_HW**0.7), interpolation="nearest")
            _arrows(axes, motion_HW2)
        else:
            axes.text(0.5, 0.5, "no motion\nvectors", ha="center", va="center")


def _arrows(axes: Axes, motion_HW2: np.ndarray) -> None:
    """Draw the largest vector of each of 7 x 7 fields."""
    sizes = motion_HW2.shape[:2]
    fields = min(7, *sizes)
    speed_HW = np.hypot(motion_HW2[..., 0], motion_HW2[..., 1])
    arrows = []
    for line in np.array_split(np.arange(sizes[0]), fields):
        for column in np.array_split(np.arange(sizes[1]), fields):
            part = np.ix_(line, column)
            largest = motion_HW2[part].reshape(-1, 2)[speed_HW[part].argmax()]
            if np.hypot(*largest) > 0.15 * speed_HW.max():
                place = (column.mean() + 0.5) / sizes[1], (line.mean() + 0.5) / sizes[0]
                arrows.append((*place, *largest))
    if arrows:
        x, y, dx, dy = np.array(arrows).T
        longest = np.hypot(dx, dy).max()
        # Sizes of the heads are in units of the shaft's width.
        look: dict[str, Any] = {"width": 0.016, "headwidth": 3.6, "headlength": 4}
        look |= {"headaxislength": 3.6, "minshaft": 1.4, "color": INK, "pivot": "mid"}
        units = {"angles": "xy", "scale_units": "xy", "scale": fields}
        axes.quiver(x, y, dx / longest, dy / longest, **units, **look)
    axes.set(xlim=(0, 1), ylim=(1, 0))


def _masks(axes_S: np.ndarray, arrays: Arrays, mask: int, title: str, source: str = "") -> None:
    """Draw mask number `mask` of a clip, with the box of a dense one."""
    hidden = f"{100 * arrays['ratio_N'][mask]:.0f} % hidden"
    _label(axes_S[0], title, hidden, source)
    slots = arrays["frames_SHWC"], arrays["masked_NSHW"][mask], arrays["boxes_NS4"][mask]
    for axes, frame_HWC, masked_HW, box_4 in zip(axes_S, *slots):
        _hidden(axes, frame_HWC, masked_HW)
        # Centre x, centre y, width and height in patches.
        if np.isfinite(box_4).all():
            centre, sides = box_4.reshape(2, 2) / masked_HW.shape[::-1]
            look: dict[str, Any] = {"fill": False, "edgecolor": ACCENT, "linewidth": 1.4}
            axes.add_patch(Rectangle(tuple(centre - sides / 2), *sides, **look))
            axes.plot(*centre, "o", markersize=3.2, color=ACCENT, markeredgewidth=0)
            axes.set(xlim=(0, 1), ylim=(1, 0))


def _hidden(axes: Axes, frame_HWC: np.ndarray, masked_HW: np.ndarray) -> None:
    """Draw a frame with hidden patches pale."""
    _picture(axes, frame_HWC)
    veil = _tint(HIDDEN, 0.9 * masked_HW) * masked_HW[..., None]
    _picture(axes, veil, interpolation="nearest")


def _attention(axes_S: np.ndarray, share_SHW: np.ndarray, query_3: np.ndarray, **look: Any) -> None:
    """Draw attention with one colour scale per clip, and outline the patch that attends."""
    times_SHW = share_SHW * share_SHW.size
    low, high = times_SHW.min(), np.quantile(times_SHW, 0.995)
    _label(axes_S[0], "Attention", f"dark {low:.2f}, bright {high:.2g} times uniform attention")
    bright_SHW = ((times_SHW - low) / max(high - low, 1e-9)).clip(0, 1)
    look = {"cmap": SCALE, "vmin": 0, "vmax": 1, "interpolation": "nearest", **look}
    for slot, (axes, bright_HW) in enumerate(zip(axes_S, bright_SHW)):
        _picture(axes, bright_HW, **look)
        if slot == query_3[0]:
            size = np.array(bright_HW.shape)
            place_2 = query_3[1:] / size
            _outlines(axes, np.concatenate([place_2, place_2 + 1 / size])[None])
