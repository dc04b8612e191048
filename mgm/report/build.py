"""`mgm report`: tables, figures, claims and the page from the results that exist.

It never trains. Missing runs are named.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mgm.errors import UserError
from mgm.paper.registry import Registry
from mgm.report.cells import FilledCell, rows
from mgm.report.claims.judge import judge, write_claims
from mgm.report.page.html import FigureEntry, page, svg_uri
from mgm.report.page.sections import mask_player, webp_uri
from mgm.report.table_files import comparable, write_tables
from mgm.results import atomic
from mgm.results.frame import examine_all
from mgm.results.result import RunStatus

GROUPS = ("tables", "figures")


def build_report(registry: Registry, results: Path, reports: Path, only: str | None = None) -> Path:
    """Write tables, figures, claims.csv and index.html to `reports`, and return the page's path.

    Args:
        results: folder of the runs, `results/<name>`. It need not exist.
        reports: folder to write, `reports/<name>`.
        only: a target such as "table4e" or "figure5": write only that, and return its csv or svg.
            "tables" or "figures": write only those, and return their folder.

    Raises:
        UserError: `only` is not a table or figure of the registry, or its run is not finished.
    """
    figures = registry.figure_names
    targets = [] if registry.scale.study else [f"table{name}" for name in registry.tables]
    targets += [f"figure{name}" for name in figures]
    if only and only not in (*targets, *GROUPS):
        raise UserError(
            f"{only}: no such table or figure; choose one of {', '.join((*targets, *GROUPS))}"
        )
    found = examine_all(results, registry.specs, weights=True)
    collected = rows(registry, found)
    if registry.scale.study:
        return _study(registry, results, reports, found, collected, only)
    for name, table in registry.tables.items():
        if only in (None, "tables", f"table{name}"):
            path = write_tables(reports / "tables", table, collected[name], registry.scale)
            if only == f"table{name}":
                return path
    entries = []
    for name in figures:
        if only in (None, "figures", f"figure{name}"):
            draw = _plot if name in registry.plots else _clips
            entry = draw(registry, name, results, reports / "figures", found)
            if only == f"figure{name}" and not entry.source:
                raise UserError(
                    f"figure {name}: {entry.state}; run {' '.join(entry.run_ids)} first"
                )
            if only == f"figure{name}":
                return reports / "figures" / f"figure{name}.svg"
            entries.append(entry)
    if only:
        return reports / only
    verdicts = [] if registry.scale.own_videos else judge(registry, collected, found)
    if verdicts:
        write_claims(reports, verdicts)
    player = _mask_player(registry, results, found)
    shown = page(registry, results, reports, found, collected, entries, verdicts, player)
    return atomic.write(reports / "index.html", shown)


def _study(
    registry: Registry,
    results: Path,
    reports: Path,
    found: dict[str, RunStatus],
    collected: dict[str, list[FilledCell]],
    only: str | None,
) -> Path:
    """Write the tables, the figure and the page of a study."""
    # Imported here because matplotlib takes a second to import.
    from mgm.report.findings import Findings
    from mgm.report.study_page import study_of, write_study_figures, write_study_tables

    findings = Findings(registry, found)
    if only != "figures":
        write_study_tables(findings, reports / "tables")
    drawn = write_study_figures(findings, reports / "figures") if only != "tables" else {}
    if only:
        return reports / only
    study = study_of(findings) | {"figures": {name: svg_uri(path) for name, path in drawn.items()}}
    shown = page(registry, results, reports, found, collected, study=study)
    return atomic.write(reports / "index.html", shown)


def _plot(
    registry: Registry, name: str, results: Path, folder: Path, found: dict[str, RunStatus]
) -> FigureEntry:
    """Draw a figure of table cells from the finished runs. Its caption names the others."""
    # Imported here because matplotlib takes a second to import.
    from mgm.report.figures.curves import arrays_of, curves, missing, points_of
    from mgm.report.figures.seeds import differences, runs_of, seeds
    from mgm.report.figures.style import save

    plot, scale, stem = registry.plots[name], registry.scale, folder / f"figure{name}"
    points = points_of(plot, found)
    if plot.reference:
        runs = runs_of(plot, found)
        figure = seeds(plot, runs, differences(plot, found), missing(points))
        save(figure, stem, {f"{name}_R": values.to_numpy() for name, values in runs.items()})
    else:
        save(curves(points, plot, scale.name, comparable(scale)), stem, arrays_of(points, plot))
    tables = tuple(table for table in points.table.unique() if table in registry.tables)
    return FigureEntry(
        name,
        plot.title,
        plot.note,
        why=missing(points),
        source=svg_uri(stem.with_suffix(".svg")),
        tables=tables,
    )


def _clips(
    registry: Registry, name: str, results: Path, folder: Path, found: dict[str, RunStatus]
) -> FigureEntry:
    """Draw a figure from a run's arrays.

    If the run is not valid, remove the files of an earlier drawing and return the reason.
    """
    # Imported here because matplotlib takes a second to import.
    from mgm.report.figures.draw import DRAW
    from mgm.report.figures.style import save

    figure, stem = registry.figures[name], folder / f"figure{name}"
    run_id = figure.run.run_id
    run, arrays_path = found[run_id], results / run_id / "arrays.npz"
    if run.state == "run" and not arrays_path.exists():
        run = RunStatus(
            "not run", "its arrays.npz is missing; delete its result.json and run it again"
        )
    if run.state != "run":
        for ending in (".svg", ".pdf", ".png", ".npz"):
            stem.with_suffix(ending).unlink(missing_ok=True)
        return FigureEntry(name, figure.title, figure.note, (run_id,), run.state, run.why)
    with np.load(arrays_path, allow_pickle=False) as file:
        arrays = dict(file)
    save(DRAW[name](arrays, f"Scale {registry.scale.name}."), stem, arrays)
    if figure.vector:
        source, width = svg_uri(stem.with_suffix(".svg")), 0
    else:
        source, width = webp_uri(stem.with_suffix(".png"))
    return FigureEntry(
        name, figure.title, figure.note, (run_id,), "run", source=source, width=width
    )


def _mask_player(
    registry: Registry, results: Path, found: dict[str, RunStatus]
) -> dict[str, Any] | None:
    """Build the player that shows every mask on one clip; None if its run is not finished."""
    run = registry.mask_clip
    if (
        run is None
        or found[run.run_id].state != "run"
        or not (path := results / run.run_id / "arrays.npz").exists()
    ):
        return None
    with np.load(path, allow_pickle=False) as file:
        return mask_player(dict(file), run.run_id)
