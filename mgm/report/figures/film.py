"""The masks in motion: one clip under every mask, as one animated picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from mgm.report.figures import clip_grid as grids
from mgm.report.figures.style import STYLE, blank
from mgm.results.atomic import atomic_write

COLUMNS, CELL, HEAD = 5, 1.5, 0.22  # inches
DURATION = 450  # milliseconds per time slot


@mpl.rc_context(STYLE)
def masks_in_motion(arrays: Mapping[str, Any], path: Path) -> Path:
    """Write the arrays of Figure 5 as an animated WebP, a frame per time slot.

    Args:
        arrays: as `mgm.stages.visualise.masks_on_a_clip` returns them.
    """
    names = ["clip", "motion", *map(str, arrays["names_N"])]
    rows = -(-len(names) // COLUMNS)
    figure = blank(COLUMNS * CELL, rows * (CELL + HEAD))
    canvas = FigureCanvasAgg(figure)
    axes_N = figure.subplots(rows, COLUMNS).ravel()
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - HEAD / figure.get_figheight(), 0.05, 0.14)
    for axes in axes_N:
        axes.set_axis_off()
    for axes, name in zip(axes_N, names):
        axes.set_title(name, size=8.5)
    glow_SHW4 = grids.glow(arrays["magnitude_SHW"])
    frames = []
    for slot, frame_HWC in enumerate(arrays["frames_SHWC"]):
        for place, axes in enumerate(axes_N[: len(names)]):
            # Faster than axes.clear(), which also makes new axis lines and titles.
            for drawn in (*axes.images, *axes.lines, *axes.patches, *axes.collections):
                drawn.remove()
            if place == 0:
                grids.show(axes, frame_HWC)
            elif place == 1:
                grids.show(axes, 140 + grids.grey(frame_HWC) * 0.45, **grids.GREY)
                grids.motion(axes, arrays["motion_SHW2"][slot], glow_SHW4[slot])
            else:
                masked_HW = arrays["masked_NSHW"][place - 2, slot]
                grids.masked(axes, frame_HWC, masked_HW, arrays["boxes_NS4"][place - 2, slot])
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    look = {"duration": DURATION, "loop": 0, "quality": 80}
    with atomic_write(path) as file:
        frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], **look)
    return path
