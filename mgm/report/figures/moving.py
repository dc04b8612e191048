"""A moving picture of a clip: its motion, and what masks hide of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mgm.report.figures import clip_grid as grids
from mgm.report.figures.style import QUIET, blank, drawn, write
from mgm.results.atomic import atomic_write

FPS = 10  # slow enough to follow a box
COLOURS = 256
WIDE = {1: 5.6, 2: 4.0, 3: 3.2, 4: 2.6}  # inches of a panel, by columns
MARGIN, GAP, HEAD, FOOT = 0.2, 0.2, 0.28, 0.3  # inches


def write_moving(arrays: Mapping[str, Any], out: Path) -> None:
    """Draw the arrays of `mgm.stages.show` to a .gif, or their middle frame to a .png."""
    frames = len(arrays["frames_THWC"])
    if out.suffix == ".png":
        write(drawn(lambda: panels(arrays, frames // 2)), out, fitted=False)
        return
    pictures = []
    for at in range(frames):
        figure = drawn(lambda at=at: panels(arrays, at))  # type: ignore[misc]
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    # With one palette for all frames, pixels that do not change take no space.
    every = Image.fromarray(np.concatenate([np.asarray(own)[::3, ::3] for own in pictures]))
    palette = every.quantize(COLOURS)
    first, *others = (own.quantize(palette=palette, dither=Image.Dither.NONE) for own in pictures)
    with atomic_write(out) as temporary:
        how: dict[str, Any] = {"save_all": True, "append_images": others, "loop": 0}
        first.save(temporary, format="gif", duration=1000 // FPS, **how)


def panels(arrays: Mapping[str, Any], at: int) -> Figure:
    """Draw frame number `at`: its motion, and a panel per mask."""
    frame_HWC, masked_NSHW = arrays["frames_THWC"][at], arrays["masked_NSHW"]
    tall, wide, _ = frame_HWC.shape
    slot = at * len(arrays["motion_SHW2"]) // len(arrays["frames_THWC"])
    count = 1 + len(masked_NSHW)
    # Two of four wide frames stand side by side, and all of others.
    columns = 2 if count == 4 and wide > 1.1 * tall else min(count, 4)
    width, rows = WIDE[columns], -(-count // columns)
    height = width * tall / wide
    size = (
        2 * MARGIN + columns * (width + GAP) - GAP,
        MARGIN + rows * (HEAD + height + FOOT),
    )
    figure = blank(*size)
    for number in range(count):
        left = MARGIN + number % columns * (width + GAP)
        top = MARGIN / 2 + number // columns * (HEAD + height + FOOT) + HEAD
        place = left / size[0], 1 - (top + height) / size[1], width / size[0], height / size[1]
        axes = figure.add_axes(place)
        axes.set_axis_off()
        axes.set_title(arrays["title_P"][number], size=11, pad=6)
        note = arrays["note_P"][number]
        axes.text(
            0, -0.08 / height, note, size=8.5, color=QUIET, va="top", transform=axes.transAxes
        )
        if number:
            grids.masked(axes, frame_HWC, masked_NSHW[number - 1][slot])
        elif arrays["has_motion_S"].any():
            grids.show(axes, 140 + grids.grey(frame_HWC) * 0.45, **grids.GREY)
            if arrays["has_motion_S"][slot]:
                glow_SHW4 = grids.glow(np.hypot(*np.moveaxis(arrays["motion_SHW2"], -1, 0)))
                grids.motion(axes, arrays["motion_SHW2"][slot], glow_SHW4[slot])
        else:
            grids.show(axes, frame_HWC)
        axes.set_aspect("auto")
    return figure
