"""The files that stand with a run in MLflow: spec, result, its loss as a curve, and its mask on the clip of Figure 5."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mgm.report.mlflow.record import Record
from mgm.report.page.svg import Panel, drawing

STYLE = (
    "<style>svg{background:#fff;font:7px sans-serif;fill:#6b6b6b}path,polyline{fill:none;stroke:#6b6b6b}polyline{stroke:#d55e00}</style>"
)


def artifacts(record: Record) -> dict[str, Callable[[], bytes]]:
    """File name -> function that makes its content."""
    files: dict[str, Callable[[], bytes]] = {name: partial(text.encode) for name, text in record.files.items()}
    loss = [(float(step), value) for key, value, _, step in record.curve if key == "train/loss" and np.isfinite(value)]
    if loss:
        files["curves.svg"] = partial(_draw_curve, record.run_id, loss)
    if record.mask:
        name, ratio, digest = record.mask
        shown = _masks_of(record.arrays, digest)
        if (name, ratio) in shown:
            files["masks.png"] = partial(_draw_mask, record.arrays, digest, shown.index((name, ratio)))
    return files


def _draw_curve(run_id: str, loss: list[tuple[float, float]]) -> bytes:
    values = [value for _, value in loss]
    panel = Panel([loss], loss[-1][0], min(values), max(values))
    head, rest = drawing("curves", panel, f"training loss of {run_id}").split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" width="736" height="368">{STYLE}{rest}\n'.encode()


@cache
def _masks_of(arrays: Path, digest: str) -> list[tuple[str, float]]:
    """(name, ratio) of the masks in Figure 5, whose arrays have this digest."""
    with np.load(arrays, allow_pickle=False) as file:
        return list(zip(file["names_N"].tolist(), file["ratio_N"].tolist()))


@cache
def _draw_mask(arrays: Path, digest: str, row: int) -> bytes:
    """The picture of one mask; runs share it."""
    from mgm.report.figures.draw import mask_on_a_clip  # matplotlib takes a second to import
    from mgm.report.figures.style import write

    with np.load(arrays, allow_pickle=False) as file, TemporaryDirectory() as folder:
        path = Path(folder) / "masks.png"
        write(mask_on_a_clip(dict(file), row), path)
        return path.read_bytes()
