"""Pictures of the page, as data URIs: figures, and the player of the masks."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread, imsave

from mgm.report.figures.clip_grid import glow, veil
from mgm.report.figures.style import DPI, KIND


def embedded(picture: Path) -> dict[str, Any]:
    """Return a figure's `source` for the page, and its `width` in CSS pixels (0: the natural one).

    As a data URI, an SVG's ids cannot clash with the page's. A PNG becomes a smaller WebP.
    """
    if picture.suffix == ".svg":
        return {"source": _data_uri(picture.read_bytes(), "svg+xml"), "width": 0}
    picture_HWC = imread(picture)
    return {"source": _uri(picture_HWC, "webp"), "width": picture_HWC.shape[1] * 96 // DPI}


def mask_player(arrays: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Build the player of the masks from the arrays of Figure 5's run.

    Returns:
        `clip`: the clip's frames side by side, one per time slot, as a data URI. The page shows one
        frame of every strip at a time. `strips`: per mask its `name`, `about`, `strip` (its
        pictures to lay over the clip; empty for the clip alone) and `boxes` (per time slot, a dense
        mask's box as left, top, width, height in patches). `slots`, `rows` and `columns` of
        patches, and `run_id`.
    """
    masks = arrays["masked_NSHW"]
    strips: list[dict[str, Any]] = [
        {"name": "clip", "about": f"frames {', '.join(map(str, arrays['index_S']))}"},
        {
            "name": "motion",
            "about": "magnitude of the motion vectors",
            "strip": _uri(_strip(glow(arrays["magnitude_SHW"])), "png"),
        },
    ]
    for name, ratio, masked_SHW, boxes_S4 in zip(
        map(str, arrays["names_N"]), arrays["ratio_N"], masks, arrays["boxes_NS4"]
    ):
        caption = ", ".join(
            filter(
                None, (KIND.get(name, "").replace("\n", " "), f"{ratio * 100:.0f}\u00a0% hidden")
            )
        )
        corner_S4 = (
            np.hstack([boxes_S4[:, :2] - boxes_S4[:, 2:] / 2, boxes_S4[:, 2:]])
            .astype(float)
            .round(2)
        )
        boxes = corner_S4.tolist() if np.isfinite(boxes_S4).all() else ()
        strip = _uri(_strip(veil(masked_SHW)), "png")
        strips.append({"name": name, "about": caption, "strip": strip, "boxes": boxes})
    slots, rows, columns = masks.shape[1:]
    clip = _uri(_strip(arrays["frames_SHWC"]), "webp")
    sizes = {"slots": slots, "rows": rows, "columns": columns}
    return {"clip": clip, "strips": strips, "run_id": run_id} | sizes


def _strip(pictures_SHWC: np.ndarray) -> np.ndarray:
    return np.concatenate(list(pictures_SHWC), axis=1)


def _uri(picture_HWC: np.ndarray, kind: str) -> str:
    file = io.BytesIO()
    options = {"quality": 78} if kind == "webp" else {"optimize": True}
    imsave(file, np.ascontiguousarray(picture_HWC), format=kind, pil_kwargs=options)
    return _data_uri(file.getvalue(), kind)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
