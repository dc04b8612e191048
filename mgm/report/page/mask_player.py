"""The mask player: the clip of Figure 5 with each mask moving over it, as pictures small enough to
stand in the page.

A strip has all frames beside one another. The page shows one frame of every strip at a time.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread, imsave

from mgm.report.figures.clip_grid import glow, veil
from mgm.report.figures.style import DPI, KIND


@dataclass(frozen=True)
class MaskStrip:
    """A picture to lay over the clip's own: a data URI, empty for the clip by itself. `boxes` has a
    dense mask's box slot by slot: left, top, width, height in patches."""

    name: str
    about: str
    strip: str = ""
    boxes: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class MaskPlayer:
    """`clip` is the frames' strip of `slots` frames;

    a slot's grid has `rows` x `columns` patches.
    """

    clip: str
    slots: int
    rows: int
    columns: int
    strips: tuple[MaskStrip, ...]
    run_id: str


def mask_player(arrays: Mapping[str, Any], run_id: str) -> MaskPlayer:
    """Build the player from the arrays that the visualise job keeps."""
    masks = arrays["masked_NSHW"]
    strips = [
        MaskStrip("the clip", f"frames {', '.join(map(str, arrays['index_S']))}"),
        MaskStrip(
            "motion", "magnitude of the vectors", _uri(_strip(glow(arrays["magnitude_SHW"])), "png")
        ),
    ]
    for name, ratio, masked_SHW, boxes_S4 in zip(
        map(str, arrays["names_N"]), arrays["ratio_N"], masks, arrays["boxes_NS4"]
    ):
        about = ", ".join(
            filter(None, (KIND.get(name, "").replace("\n", " "), f"{ratio:.0%} hidden"))
        )
        corner_S4 = (
            np.hstack([boxes_S4[:, :2] - boxes_S4[:, 2:] / 2, boxes_S4[:, 2:]])
            .astype(float)
            .round(2)
        )
        boxes = corner_S4.tolist() if np.isfinite(boxes_S4).all() else ()
        strips.append(MaskStrip(name, about, _uri(_strip(veil(masked_SHW)), "png"), boxes))
    slots, rows, columns = masks.shape[1:]
    return MaskPlayer(
        _uri(_strip(arrays["frames_SHWC"]), "webp"), slots, rows, columns, tuple(strips), run_id
    )


def webp_uri(png: Path) -> tuple[str, int]:
    """A figure as a smaller file to stand in the page, a data URI, and its width in CSS pixels."""
    picture_HWC = imread(png)
    return _uri(picture_HWC, "webp"), picture_HWC.shape[1] * 96 // DPI


def _strip(pictures_SHWC: np.ndarray) -> np.ndarray:
    return np.concatenate(list(pictures_SHWC), axis=1)


def _uri(picture_HWC: np.ndarray, kind: str) -> str:
    file = io.BytesIO()
    options = {"quality": 78} if kind == "webp" else {"optimize": True}
    imsave(file, np.ascontiguousarray(picture_HWC), format=kind, pil_kwargs=options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
