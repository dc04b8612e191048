"""The figures that show clips: arrays of a `visualise` run of that figure in, a matplotlib figure
out; `note` is a line below, such as the scale's caveat. No data and no torch: they can be redrawn
on any laptop."""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mgm.report.figures import clip_grid
from mgm.report.figures.clip_grid import ClipGrid, wrapped
from mgm.report.figures.coverage import coverage
from mgm.report.figures.style import KIND, STYLE

METHOD = {
    "mgm": "MGM",
    "tube": "VideoMAE",
    "agnostic": "ST-MAE",
}  # whose mask it is, where it is someone's

MASK_KEY = (
    "Pale patches are hidden. Orange: the box that a dense mask follows, and its centre; where the box hangs over the frame's edge, "
    "the mask hides as many patches inside."
)
ATTENTION_KEY = (
    "Attention of the outlined patch, the centre of the centre frame, to every patch: last block, mean over its heads, no patch hidden. "
    "Uniform attention would be 1 everywhere; the scale spans a clip's values but for the largest 0.5%."
)
RECONSTRUCTION_KEY = (
    "Visible patches are shown as they are. Of hidden patches the model predicts the structure alone, with mean 0 and deviation 1; "
    "their colour and contrast are taken from the nearest visible patches, never from the hidden ones."
)


@mpl.rc_context(STYLE)
def masks_on_a_clip(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """Figure 5:

    a clip's frames, its motion, and masks on it; `arrays` as `mgm.stages.visualise.masks_on_a_clip`
    returns them.
    """
    grid = ClipGrid(arrays["index_S"][None], 2 + len(arrays["names_N"]), (MASK_KEY, note))
    _frames(grid, arrays, 0, "first of each slot")
    _motion(grid, arrays, 1)
    for row in range(len(arrays["names_N"])):
        _mask(grid, arrays, 2 + row, row)
    return grid.figure


@mpl.rc_context(STYLE)
def attention_on_a_clip(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """Figure 6:

    a clip's frames with boxes, a run's mask, the motion, and what the centre patch of the centre
    frame attends to.
    """
    known = arrays["objects_SK4"].shape[1] > 0
    boxes = (
        "first of each slot,\nwith the objects'\nboxes"
        if known
        else "first of each slot;\nthis video has no\nboxes of objects"
    )
    grid = ClipGrid(arrays["index_S"][None], 4, (MASK_KEY, ATTENTION_KEY, note))
    for slot, axes in enumerate(_frames(grid, arrays, 0, boxes)):
        clip_grid.outlines(axes, arrays["objects_SK4"][slot])
    _mask(grid, arrays, 1, 0, "{} mask")
    _motion(grid, arrays, 2)
    _attention(grid, arrays["attention_SHW"], arrays["query_3"], None, 0, 3)
    return grid.figure


@mpl.rc_context(STYLE)
def attention_on_clips(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """Figure 7:

    the frames of several clips, and over them what the centre patch of the centre frame attends to.
    """
    grid = ClipGrid(arrays["index_BS"], 2, (ATTENTION_KEY, note))
    for clip, frames_SHWC in enumerate(arrays["frames_BSHWC"]):
        grid.label(clip, 0, f"clip {clip + 1}", wrapped(str(arrays["class_B"][clip])))
        for slot, frame_HWC in enumerate(frames_SHWC):
            clip_grid.frame(grid.cell(clip, 0, slot), frame_HWC)
        _attention(
            grid, arrays["attention_BSHW"][clip], arrays["query_B3"][clip], frames_SHWC, clip, 1
        )
    return grid.figure


@mpl.rc_context(STYLE)
def reconstructions(arrays: Mapping[str, Any], note: str = "") -> Figure:
    """Figure 8:

    clips, and for each run its mask and what its model makes of the patches that are left.
    """
    names = [str(name) for name in arrays["names_P"]]
    grid = ClipGrid(arrays["index_BS"], 1 + 2 * len(names), (RECONSTRUCTION_KEY, note))
    for clip, frames_SHWC in enumerate(arrays["frames_BSHWC"]):
        grid.label(clip, 0, f"clip {clip + 1}", wrapped(str(arrays["class_B"][clip])))
        for run, name in enumerate(names):
            method = METHOD.get(name, name)
            grid.label(
                clip,
                1 + 2 * run,
                f"{method} mask",
                KIND.get(name, ""),
                f"{arrays['ratio_P'][run]:.0%} hidden",
            )
            grid.label(clip, 2 + 2 * run, method, "reconstruction")
        for slot, frame_HWC in enumerate(frames_SHWC):
            clip_grid.frame(grid.cell(clip, 0, slot), frame_HWC)
            for run in range(len(names)):
                clip_grid.masked(
                    grid.cell(clip, 1 + 2 * run, slot),
                    frame_HWC,
                    arrays["masked_BPSHW"][clip, run, slot],
                )
                clip_grid.frame(
                    grid.cell(clip, 2 + 2 * run, slot),
                    arrays["reconstructed_BPSHWC"][clip, run, slot],
                )
    return grid.figure


def _frames(grid: ClipGrid, arrays: Mapping[str, Any], row: int, about: str) -> list:
    grid.label(0, row, "frames", about)
    cells = [grid.cell(0, row, slot) for slot in range(len(arrays["index_S"]))]
    for axes, frame_HWC in zip(cells, arrays["frames_SHWC"]):
        clip_grid.frame(axes, frame_HWC)
    return cells


def _motion(grid: ClipGrid, arrays: Mapping[str, Any], row: int) -> None:
    grid.label(0, row, "motion", "vectors and their\nmagnitude")
    glow_SHW4 = clip_grid.glow(arrays["magnitude_SHW"])
    for slot, frame_HWC in enumerate(arrays["frames_SHWC"]):
        has_motion = bool(arrays["has_motion_S"][slot])
        clip_grid.motion(
            grid.cell(0, row, slot),
            frame_HWC,
            arrays["motion_SHW2"][slot],
            glow_SHW4[slot],
            has_motion,
        )


def _mask(grid: ClipGrid, arrays: Mapping[str, Any], row: int, mask: int, title: str = "") -> None:
    name = str(arrays["names_N"][mask])
    grid.label(
        0,
        row,
        title.format(METHOD.get(name, name)) or name,
        KIND.get(name, ""),
        f"{arrays['ratio_N'][mask]:.0%} hidden",
    )
    for slot, frame_HWC in enumerate(arrays["frames_SHWC"]):
        clip_grid.masked(
            grid.cell(0, row, slot),
            frame_HWC,
            arrays["masked_NSHW"][mask, slot],
            arrays["boxes_NS4"][mask, slot],
        )


def _attention(
    grid: ClipGrid,
    attention_SHW: np.ndarray,
    query_3: np.ndarray,
    frames_SHWC: np.ndarray | None,
    clip: int,
    row: int,
) -> None:
    """Attention over pale frames, or by itself;

    one scale for the clip, from its least to all but its few largest values.
    """
    times_SHW = attention_SHW * attention_SHW.size
    low, high = times_SHW.min(), np.quantile(times_SHW, 0.995)
    grid.scale(clip, row, "attention", low, high, "\N{MULTIPLICATION SIGN} uniform")
    share_SHW = ((times_SHW - low) / max(high - low, 1e-9)).clip(0, 1)
    for slot, share_HW in enumerate(share_SHW):
        axes = grid.cell(clip, row, slot)
        if frames_SHWC is None:
            axes.imshow(
                share_HW,
                extent=(0, 1, 1, 0),
                cmap=clip_grid.SCALE,
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
        else:
            clip_grid.tinted(axes, frames_SHWC[slot], share_HW)
        if slot == query_3[0]:
            size = np.array(share_HW.shape)
            place = query_3[1:] / size
            clip_grid.outlines(axes, np.concatenate([place, place + 1 / size])[None])


DRAW: dict[str, Callable[[Mapping[str, Any], str], Figure]] = {
    "5": masks_on_a_clip,
    "5_coverage": coverage,
    "6": attention_on_a_clip,
    "7": attention_on_clips,
    "8": reconstructions,
}
