"""The files that stand with a run in MLflow:

spec, result, its loss as a curve, and its mask on the clip of Figure 5.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mgm.report.mlflow.record import RunRecord
from mgm.report.page.svg import Panel, drawing
from mgm.spec import Pretrain

STYLE = "<style>svg{background:#fff;font:7px sans-serif;fill:#6b6b6b}path,polyline{fill:none;stroke:#6b6b6b}polyline{stroke:#d55e00}</style>"


def artifacts(record: RunRecord) -> dict[str, bytes]:
    """File name -> content."""
    files = {name: text.encode() for name, text in record.files.items()}
    loss = [
        (float(step), value)
        for key, value, _, step in record.curve
        if key == "train/loss" and np.isfinite(value)
    ]
    if loss:
        values = [value for _, value in loss]
        panel = Panel([loss], loss[-1][0], min(values), max(values))
        head, rest = drawing("curves", panel, f"training loss of {record.run_id}").split(">", 1)
        files["curves.svg"] = (
            f'{head} xmlns="http://www.w3.org/2000/svg" width="736" height="368">{STYLE}{rest}\n'.encode()
        )
    if record.arrays and isinstance(record.spec, Pretrain):
        mask = record.spec.mask
        if picture := _mask(record.arrays, record.arrays.stat().st_mtime_ns, mask.name, mask.ratio):
            files["masks.png"] = picture
    return files


@cache
def _mask(arrays: Path, written: int, name: str, ratio: float) -> bytes:
    """The picture of a mask of Figure 5, empty where it shows none like it; runs share it."""
    from mgm.report.figures.draw import masks_on_a_clip  # matplotlib takes a second to import
    from mgm.report.figures.style import write

    with np.load(arrays, allow_pickle=False) as file:
        shown = dict(file)
    rows = np.flatnonzero((shown["names_N"] == name) & (shown["ratio_N"] == ratio))[:1]
    if not len(rows):
        return b""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "masks.png"
        write(
            masks_on_a_clip(
                {key: value[rows] if "_N" in key else value for key, value in shown.items()}
            ),
            path,
        )
        return path.read_bytes()
