"""A registry's figures, drawn from its cells or from a run's arrays, and written to files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mgm.report.cells import FilledCell, Key
from mgm.report.figures.curves import arrays_of, curves, missing, points_of
from mgm.report.figures.draw import DRAW
from mgm.report.figures.seeds import seeds, seeds_of
from mgm.report.figures.style import save
from mgm.report.words import comparable
from mgm.results.result import RunStatus
from mgm.study.registry import Registry


@dataclass(frozen=True)
class FigureFile:
    """A figure with its file, or why there is none.

    Attributes:
        picture: the svg, or the png of frames of clips; None if the figure could not be drawn.
        run_ids: the runs of a figure of clips.
        tables: the tables of a figure of cells.
        state, why: why the figure could not be drawn, or which points are missing.
    """

    name: str
    title: str
    caption: str
    picture: Path | None = None
    run_ids: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    state: str = "run"
    why: str = ""


def write_figure(
    registry: Registry,
    name: str,
    results: Path,
    folder: Path,
    statuses: Mapping[str, RunStatus],
    cells: Mapping[Key, FilledCell],
) -> FigureFile:
    """Draw a figure from the finished runs, and write it as svg, pdf, png and npz."""
    stem = folder / f"figure{name}"
    if name in registry.plots:
        return _write_plot(registry, name, stem, cells)
    return _write_clips(registry, name, results, stem, statuses)


def _write_plot(
    registry: Registry, name: str, stem: Path, cells: Mapping[Key, FilledCell]
) -> FigureFile:
    """Draw a figure of table cells. It names the missing ones."""
    plot, scale = registry.plots[name], registry.scale
    points = points_of(plot, cells)
    why = missing(points)
    if plot.reference:
        runs, gaps = seeds_of(plot, cells)
        arrays = {f"{column}_R": values.to_numpy() for column, values in runs.items()}
        save(seeds(plot, runs, gaps, why), stem, arrays)
    else:
        save(curves(points, plot, scale.name, comparable(scale)), stem, arrays_of(points, plot))
    tables = tuple(table for table in points.table.unique() if table in registry.tables)
    picture = stem.with_suffix(".svg")
    return FigureFile(name, plot.title, plot.note, picture, tables=tables, why=why)


def _write_clips(
    registry: Registry, name: str, results: Path, stem: Path, statuses: Mapping[str, RunStatus]
) -> FigureFile:
    """Draw a figure of a run's arrays.

    If the run is not valid, remove the files of an earlier drawing and return the reason.
    """
    figure = registry.figures[name]
    run_id = figure.run.run_id
    arrays = read_arrays(results, run_id, statuses)
    if arrays is not None:
        save(DRAW[name](arrays, f"Scale {registry.scale.name}."), stem, arrays)
        picture = stem.with_suffix(".svg" if figure.vector else ".png")
        return FigureFile(name, figure.title, figure.note, picture, (run_id,))
    for ending in (".svg", ".pdf", ".png", ".npz"):
        stem.with_suffix(ending).unlink(missing_ok=True)
    state, why = statuses[run_id].state, statuses[run_id].why
    if state == "run":
        state = "not run"
        why = "its arrays.npz is missing; delete its result.json and run it again"
    return FigureFile(name, figure.title, figure.note, None, (run_id,), state=state, why=why)


def read_arrays(
    results: Path, run_id: str, statuses: Mapping[str, RunStatus]
) -> dict[str, Any] | None:
    """Read a finished run's arrays; None if there are none."""
    path = results / run_id / "arrays.npz"
    if statuses[run_id].state != "run" or not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
