"""The pictures that stand with a run in MLflow: its loss, and its mask on the clip of Figure 5."""

from pathlib import Path

import numpy as np

from mgm.report.mlflow.record import Mirror
from mgm.report.page.svg import curves

LOOK = "<style>svg{background:#fff;font:7px sans-serif;fill:#6b6b6b}path,polyline{fill:none;stroke:#6b6b6b}polyline{stroke:#d55e00}</style>"


def names(mirror: Mirror) -> set[str]:
    """Of the files that `write` makes."""
    loss, row = _loss(mirror), _row(mirror)
    return {*mirror.files, *(["curves.svg"] if loss else []), *([] if row is None else ["masks.png"])}


def write(mirror: Mirror, folder: Path) -> None:
    """The small artefacts of a run, as files of `folder`."""
    for name, text in mirror.files.items():
        (folder / name).write_text(text)
    if loss := _loss(mirror):
        (folder / "curves.svg").write_text(_curves(mirror.run_id, loss))
    if (row := _row(mirror)) is not None:
        _write_mask(mirror, row, folder / "masks.png")


def _loss(mirror: Mirror) -> list[tuple[float, float]]:
    return [(step, value) for key, value, _, step in mirror.curve if key == "train/loss" and np.isfinite(value)]


def _curves(run_id: str, loss: list[tuple[float, float]]) -> str:
    values = [value for _, value in loss]
    drawing = curves([loss], loss[-1][0], min(values), max(values), f"training loss of {run_id}")
    head, rest = drawing.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" width="736" height="368">{LOOK}{rest}\n'


def _row(mirror: Mirror) -> int | None:
    """Where Figure 5 shows the run's mask at its ratio."""
    if mirror.mask is None:
        return None
    with np.load(mirror.arrays, allow_pickle=False) as arrays:
        shown = list(zip(arrays["names_N"].tolist(), arrays["ratio_N"].tolist()))
    return shown.index(mirror.mask[:2]) if mirror.mask[:2] in shown else None


_drawn: dict[tuple[str, float, str], bytes] = {}  # runs that share a mask share its picture


def _write_mask(mirror: Mirror, row: int, path: Path) -> None:
    assert mirror.mask is not None
    if mirror.mask not in _drawn:
        from mgm.report.figures.draw import mask_on_a_clip, write_png  # matplotlib takes a second to import

        with np.load(mirror.arrays, allow_pickle=False) as file:
            write_png(mask_on_a_clip(dict(file), row), path)
        _drawn[mirror.mask] = path.read_bytes()
    path.write_bytes(_drawn[mirror.mask])
