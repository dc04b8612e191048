"""Figures of a run's arrays: clips with masks, attention, reconstructions.

Each function takes the arrays and `note`, a line below the figure. It needs neither videos nor
torch, so every machine can redraw a figure.
"""

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mgm.report.figures import clip_grid as grids
from mgm.report.figures.clip_grid import clip_grid
from mgm.report.figures.style import ACCENT, INK, KIND, QUIET, caption
from mgm.spec import MASKS

# The method that a mask comes from.
METHOD = {"mgm": "MGM", "tube": "VideoMAE", "agnostic": "ST-MAE"}

COVERAGE_KEY = (
    "Marks: share of moving pixels under the mask, with 95 % intervals over {clips} clips. "
    "Numbers: mean over time slots. Dotted: share of all pixels under the mask. A mask that "
    "ignores motion hides this share of the moving pixels, too. Orange: masks guided by motion."
)
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


def masks_on_a_clip(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """Draw Figure 5: a clip's frames, its motion, and every mask on it.

    Args:
        arrays: as `mgm.stages.visualise.masks_on_a_clip` returns them.
    """
    names = arrays["names_N"]
    figure, [rows] = clip_grid(arrays["index_S"][None], 2 + len(names), (MASK_KEY, note))
    _frames(rows[0], arrays["frames_SHWC"], "frames", "first of each\ntime slot")
    _motion(rows[1], arrays)
    for mask, name in enumerate(names):
        _mask(rows[2 + mask], arrays, mask, str(name))
    return figure


def attention_on_a_clip(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """Draw Figure 6: a clip's frames with boxes, a run's mask, the motion, and attention."""
    texts = (MASK_KEY, ATTENTION_KEY, note)
    figure, [rows] = clip_grid(arrays["index_S"][None], 4, texts)
    known = arrays["objects_SK4"].shape[1] > 0
    boxes = (
        "first of each time\nslot, with boxes\nof the objects"
        if known
        else "first of each time\nslot; the video has\nno boxes of objects"
    )
    _frames(rows[0], arrays["frames_SHWC"], "frames", boxes)
    for axes, boxes_K4 in zip(rows[0], arrays["objects_SK4"]):
        grids.outlines(axes, boxes_K4)
    name = str(arrays["names_N"][0])
    _mask(rows[1], arrays, 0, f"{METHOD.get(name, name)} mask")
    _motion(rows[2], arrays)
    _attention(rows[3], arrays["attention_SHW"], arrays["query_3"])
    return figure


def attention_on_clips(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """Draw Figure 7: the frames of several clips, and attention over the frames."""
    figure, clips = clip_grid(arrays["index_BS"], 2, (ATTENTION_KEY, note))
    for clip, (rows, frames_SHWC) in enumerate(zip(clips, arrays["frames_BSHWC"])):
        _frames(rows[0], frames_SHWC, f"clip {clip + 1}", _class_name(arrays, clip))
        for axes, frame_HWC in zip(rows[1], frames_SHWC):
            grids.show(axes, grids.grey(frame_HWC), **grids.GREY)
        _attention(rows[1], arrays["attention_BSHW"][clip], arrays["query_B3"][clip], alpha=0.7)
    return figure


def reconstructions(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """Draw Figure 8: several clips, and each run's mask and reconstruction of them."""
    names = [str(name) for name in arrays["names_P"]]
    figure, clips = clip_grid(arrays["index_BS"], 1 + 2 * len(names), (RECONSTRUCTION_KEY, note))
    for clip, (rows, frames_SHWC) in enumerate(zip(clips, arrays["frames_BSHWC"])):
        _frames(rows[0], frames_SHWC, f"clip {clip + 1}", _class_name(arrays, clip))
        for run, name in enumerate(names):
            method, row = METHOD.get(name, name), rows[1 + 2 * run]
            hidden = f"{100 * arrays['ratio_P'][run]:.0f} % hidden"
            grids.label(row[0], f"{method} mask", KIND.get(name, ""), hidden)
            for axes, frame_HWC, masked_HW in zip(
                row, frames_SHWC, arrays["masked_BPSHW"][clip, run]
            ):
                grids.masked(axes, frame_HWC, masked_HW)
            drawn_SHWC = arrays["reconstructed_BPSHWC"][clip, run]
            _frames(rows[2 + 2 * run], drawn_SHWC, method, "reconstruction")
    return figure


def _class_name(arrays: Mapping[str, Any], clip: int) -> str:
    """Break a clip's class name into lines that fit the labels' column."""
    return textwrap.fill(str(arrays["class_B"][clip]), 21)


def _frames(axes_S: np.ndarray, frames_SHWC: np.ndarray, title: str, small: str) -> None:
    grids.label(axes_S[0], title, small)
    for axes, frame_HWC in zip(axes_S, frames_SHWC):
        grids.show(axes, frame_HWC)


def _motion(axes_S: np.ndarray, arrays: Mapping[str, Any]) -> None:
    """Draw the motion over the frames in light grey."""
    grids.label(axes_S[0], "motion", "vectors and their\nmagnitude")
    glow_SHW4 = grids.glow(arrays["magnitude_SHW"])
    for slot, (axes, frame_HWC) in enumerate(zip(axes_S, arrays["frames_SHWC"])):
        grids.show(axes, 140 + grids.grey(frame_HWC) * 0.45, **grids.GREY)
        if arrays["has_motion_S"][slot]:
            grids.motion(axes, arrays["motion_SHW2"][slot], glow_SHW4[slot])
        else:
            axes.text(0.5, 0.5, "no motion\nvectors", size=7, ha="center", va="center")


def _mask(axes_S: np.ndarray, arrays: Mapping[str, Any], mask: int, title: str) -> None:
    hidden = f"{100 * arrays['ratio_N'][mask]:.0f} % hidden"
    grids.label(axes_S[0], title, KIND.get(str(arrays["names_N"][mask]), ""), hidden)
    slots = (arrays["frames_SHWC"], arrays["masked_NSHW"][mask], arrays["boxes_NS4"][mask])
    for axes, *shown in zip(axes_S, *slots):
        grids.masked(axes, *shown)


def _attention(
    axes_S: np.ndarray, attention_SHW: np.ndarray, query_3: np.ndarray, **look: Any
) -> None:
    """Draw attention with one colour scale per clip."""
    times_SHW = attention_SHW * attention_SHW.size
    low, high = times_SHW.min(), np.quantile(times_SHW, 0.995)
    grids.scale(axes_S[0], "attention", low, high, "\N{MULTIPLICATION SIGN} uniform")
    share_SHW = ((times_SHW - low) / max(high - low, 1e-9)).clip(0, 1)
    look = {"cmap": grids.SCALE, "vmin": 0, "vmax": 1, "interpolation": "nearest", **look}
    for slot, (axes, share_HW) in enumerate(zip(axes_S, share_SHW)):
        grids.show(axes, share_HW, **look)
        if slot == query_3[0]:
            size = np.array(share_HW.shape)
            place = query_3[1:] / size
            grids.outlines(axes, np.concatenate([place, place + 1 / size])[None])


def coverage(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """Draw one panel per mask: the share of moving pixels that it hides in each time slot.

    Args:
        arrays: as `mgm.stages.measure.coverage` returns them.
    """
    names = [str(name) for name in arrays["names_N"]]
    order = [name for name in KIND if name in names] + [name for name in names if name not in KIND]
    guided = {name: name in MASKS and MASKS[name].guided for name in names}
    slots = np.arange(1, arrays["share_NS"].shape[1] + 1)
    table = pd.DataFrame(arrays["share_NS"], index=names, columns=slots).rename_axis("mask")
    grid = sns.relplot(
        table.reset_index().melt("mask", var_name="slot", value_name="share"),
        x="slot",
        y="share",
        hue="mask",
        palette={name: ACCENT if guided[name] else INK for name in names},
        col="mask",
        col_order=order,
        col_wrap=min(3, len(order)),
        kind="line",
        marker="o",
        legend=False,
        height=1.9,
        aspect=0.75,
    )
    for name, axes in grid.axes_dict.items():
        row, colour = names.index(name), ACCENT if guided[name] else INK
        axes.vlines(slots, arrays["low_NS"][row], arrays["high_NS"][row], color=colour, linewidth=1)
        axes.axhline(arrays["hidden_N"][row], color=QUIET, linewidth=1, linestyle=":", zorder=0.9)
        axes.set_title(f"{name}: {arrays['overall_N'][row]:.1f}", size=8.5, weight="bold")
        axes.set_xticks([slots[0], slots[-1]])
        axes.grid(axis="y")
    grid.set_axis_labels("Time slot", "Moving pixels hidden (%)")
    clips = " to ".join(map(str, np.unique([arrays["clips_S"].min(), arrays["clips_S"].max()])))
    return caption(grid.figure, f"{COVERAGE_KEY.format(clips=clips)} {note}")


DRAW: dict[str, Callable[[Mapping[str, Any], str], Figure]] = {
    "masks": masks_on_a_clip,
    "coverage": coverage,
    "attention": attention_on_a_clip,
    "overlays": attention_on_clips,
    "reconstructions": reconstructions,
}
