"""`mgm report`: tables, figures, claims and the page from the results that exist.

It never trains. Missing runs are named.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mgm.errors import UserError
from mgm.paper.registry import Registry
from mgm.report.cells import rows
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
    study, figures = registry.scale.study, registry.figure_names
    places = {} if study else {f"table{name}": f"table{name}.csv" for name in registry.tables}
    places |= {f"figure{name}": f"figure{name}.svg" for name in figures}
    places |= dict.fromkeys(GROUPS, "")
    if only and only not in places:
        raise UserError(f"{only}: no such table or figure; choose one of {', '.join(places)}")

    def is_wanted(group: str, target: str = "") -> bool:
        return only in (None, group, target)

    found = examine_all(results, registry.specs, weights=True)
    collected = rows(registry, found)
    shown: dict[str, Any] = {}
    entries: list[FigureEntry] = []
    if study:
        # Imported here because matplotlib takes a second to import.
        from mgm.report.findings import Findings
        from mgm.report.study_page import study_of, write_study_figures, write_study_tables

        findings = Findings(registry, found, results)
        if is_wanted("tables"):
            write_study_tables(findings, reports / "tables")
        if is_wanted("figures"):
            drawn = write_study_figures(findings, reports / "figures")
            uris = {name: svg_uri(path) for name, path in drawn.items()}
            shown["study"] = study_of(findings) | {"figures": uris}
    else:
        for name, table in registry.tables.items():
            if is_wanted("tables", f"table{name}"):
                write_tables(reports / "tables", table, collected[name], registry.scale)
        for name in figures:
            if is_wanted("figures", f"figure{name}"):
                draw = _plot if name in registry.plots else _clips
                entries.append(draw(registry, name, results, reports / "figures", found))
    if only:
        if entries and only not in GROUPS and not entries[0].source:
            why = f"{entries[0].state}; run {' '.join(entries[0].run_ids)} first"
            raise UserError(f"figure {entries[0].name}: {why}")
        group = "tables" if only.startswith("table") else "figures"
        return reports / group / places[only]
    if not study:
        verdicts = [] if registry.scale.own_videos else judge(registry, collected, found)
        if verdicts:
            write_claims(reports, verdicts)
        shown |= {"figures": entries, "verdicts": verdicts}
        run = registry.mask_clip
        arrays = _arrays(results, run.run_id, found) if run else None
        shown["player"] = mask_player(arrays, run.run_id) if run and arrays else None
    text = page(registry, results, reports, found, collected, **shown)
    return atomic.write(reports / "index.html", text)


def _plot(
    registry: Registry, name: str, results: Path, folder: Path, found: dict[str, RunStatus]
) -> FigureEntry:
    """Draw a figure of table cells from the finished runs. Its caption names the others."""
    # Imported here because matplotlib takes a second to import.
    from mgm.report.figures.curves import arrays_of, curves, missing, points_of
    from mgm.report.figures.seeds import seeds, seeds_of
    from mgm.report.figures.style import save

    plot, scale, stem = registry.plots[name], registry.scale, folder / f"figure{name}"
    points = points_of(plot, found)
    why = missing(points)
    if plot.reference:
        runs, gaps = seeds_of(plot, found)
        save(
            seeds(plot, runs, gaps, why),
            stem,
            {f"{name}_R": values.to_numpy() for name, values in runs.items()},
        )
    else:
        save(curves(points, plot, scale.name, comparable(scale)), stem, arrays_of(points, plot))
    tables = tuple(table for table in points.table.unique() if table in registry.tables)
    source = svg_uri(stem.with_suffix(".svg"))
    return FigureEntry(name, plot.title, plot.note, why=why, source=source, tables=tables)


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
    entry = FigureEntry(name, figure.title, figure.note, (run_id,))
    arrays = _arrays(results, run_id, found)
    if arrays is None:
        for ending in (".svg", ".pdf", ".png", ".npz"):
            stem.with_suffix(ending).unlink(missing_ok=True)
        run = found[run_id]
        gone = "its arrays.npz is missing; delete its result.json and run it again"
        return (
            replace(entry, state="not run", why=gone)
            if run.state == "run"
            else replace(entry, state=run.state, why=run.why)
        )
    save(DRAW[name](arrays, f"Scale {registry.scale.name}."), stem, arrays)
    if figure.vector:
        return replace(entry, source=svg_uri(stem.with_suffix(".svg")))
    source, width = webp_uri(stem.with_suffix(".png"))
    return replace(entry, source=source, width=width)


def _arrays(results: Path, run_id: str, found: dict[str, RunStatus]) -> dict[str, Any] | None:
    """Read a finished run's arrays; None if there are none."""
    path = results / run_id / "arrays.npz"
    if found[run_id].state != "run" or not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
