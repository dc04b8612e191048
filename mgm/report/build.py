"""`mgm report`: show everything that the existing results allow.

It never trains, whatever is missing.
"""

from pathlib import Path

import numpy as np

from mgm.errors import UserError
from mgm.paper.registry import Registry
from mgm.report.cells import rows
from mgm.report.claims.judge import judge, write_claims
from mgm.report.page.html import Content, FigureEntry, page, svg_uri
from mgm.report.page.sections import MaskPlayer, mask_player, webp_uri
from mgm.report.table_files import comparable, write_tables
from mgm.results import atomic
from mgm.results.frame import examine_all
from mgm.results.result import RunStatus

GROUPS = ("tables", "figures")


def build_report(registry: Registry, results: Path, reports: Path, only: str | None = None) -> Path:
    """Write `reports`/tables, `reports`/figures, `reports`/claims.csv and `reports`/index.html;
    return the page.

    Args:
        results: the folder of this name's runs, `results/<name>`; it need not exist.
        reports: where to write, `reports/<name>`; its last part is the name on the page.
        only: "table4e" or "figure5": write just that and return its csv or svg; "tables",
            "figures": all of them, and return their folder.

    Raises:
        UserError: `only` is no table or figure of the registry, or a figure whose run is not done.
    """
    figures = registry.figure_names
    targets = [
        *(f"table{name}" for name in registry.tables),
        *(f"figure{name}" for name in figures),
    ]
    if only and only not in (*targets, *GROUPS):
        raise UserError(
            f"{only}: no such table or figure; choose one of {', '.join((*targets, *GROUPS))}"
        )
    found = examine_all(results, registry.specs, weights=True)
    collected = rows(registry, found)
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
    return atomic.write(
        reports / "index.html",
        page(Content(registry, results, reports, found, collected, entries, verdicts, player)),
    )


def _plot(
    registry: Registry, name: str, results: Path, folder: Path, found: dict[str, RunStatus]
) -> FigureEntry:
    """Draw the finished cells of a figure of table cells, and name the others below it."""
    # seaborn takes seconds to import
    from mgm.report.figures.curves import arrays_of, curves, missing, points_of
    from mgm.report.figures.seeds import runs_of, seeds
    from mgm.report.figures.style import save

    plot, scale, stem = registry.plots[name], registry.scale, folder / f"figure{name}"
    points = points_of(plot, found)
    if plot.beside:
        runs = runs_of(plot, found)
        save(
            seeds(plot, runs, missing(points)),
            stem,
            {f"{name}_R": values.to_numpy() for name, values in runs.items()},
        )
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
    """Draw a figure of a run's arrays.

    Where the run cannot be believed, remove the files of an earlier one and say why.
    """
    from mgm.report.figures.draw import DRAW  # matplotlib takes a second to import
    from mgm.report.figures.style import save

    figure, stem = registry.figures[name], folder / f"figure{name}"
    run_id = figure.run.run_id
    run, arrays_path = found[run_id], results / run_id / "arrays.npz"
    if run.state == "run" and not arrays_path.exists():
        run = RunStatus(
            "not run", "its arrays.npz is gone; delete its result.json and run it again"
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
) -> MaskPlayer | None:
    """Build the player of the clip with every mask, where that run is there."""
    run = registry.mask_clip
    if (
        run is None
        or found[run.run_id].state != "run"
        or not (path := results / run.run_id / "arrays.npz").exists()
    ):
        return None
    with np.load(path, allow_pickle=False) as file:
        return mask_player(dict(file), run.run_id)
