"""`mgm report`: tables, figures, claims and the page from the results that exist.

It never trains. Missing runs are named. Each step reads only the steps before it: states of runs,
cells with numbers, tables and figures, claims, page.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.report.cells import fill_all
from mgm.report.claims.judge import judge, write_claims
from mgm.report.figures.files import FigureFile, write_figure
from mgm.report.findings import Findings
from mgm.report.page.html import page
from mgm.report.page.study import study_of
from mgm.report.study_files import write_study_figures, write_study_tables
from mgm.report.tables import views_of, write_tables
from mgm.results import atomic
from mgm.results.frame import examine_all
from mgm.study.registry import Registry

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
    statuses = examine_all(results, registry.specs, weights=True)
    findings = Findings(registry, statuses, results)
    cells = fill_all(findings)
    # A study's page has tables of its own (`study_of`); its overview and runs read these cells.
    views = views_of(registry, cells)
    writers: dict[str, Callable[[], Any]]
    if registry.scale.study:
        writers = {
            "tables": partial(write_study_tables, findings, reports / "tables"),
            "figures": partial(write_study_figures, findings, reports / "figures"),
        }
    else:
        writers = {
            f"table{name}": partial(write_tables, reports / "tables", view)
            for name, view in views.items()
        }
        for name in registry.figure_names:
            folder = reports / "figures"
            write = partial(write_figure, registry, name, results, folder, statuses, cells)
            writers[f"figure{name}"] = write
    if only:
        return _write_some(writers, reports, only)
    written = {target: write() for target, write in writers.items()}
    if registry.scale.study:
        text = page(
            registry,
            results,
            reports,
            statuses,
            views,
            study=study_of(findings, written["figures"]),
        )
    else:
        verdicts = [] if registry.scale.own_videos else judge(registry, cells)
        if verdicts:
            write_claims(reports, verdicts)
        drawn = [figure for figure in written.values() if isinstance(figure, FigureFile)]
        text = page(registry, results, reports, statuses, views, drawn, verdicts)
    return atomic.write(reports / "index.html", text)


def _write_some(writers: Mapping[str, Callable[[], Any]], reports: Path, only: str) -> Path:
    """Write one target or one group of targets, and return its file or folder."""
    if only not in (*writers, *GROUPS):
        targets = ", ".join(dict.fromkeys((*writers, *GROUPS)))
        raise UserError(f"{only}: no such table or figure; choose one of {targets}")
    for target, write in writers.items():
        group = "tables" if target.startswith("table") else "figures"
        if only not in (target, group):
            continue
        written = write()
        if only in GROUPS:
            continue
        if isinstance(written, FigureFile) and not written.picture:
            why = f"{written.state}; run {' '.join(written.run_ids)} first"
            raise UserError(f"figure {written.name}: {why}")
        return reports / group / f"{only}{'.csv' if group == 'tables' else '.svg'}"
    return reports / only
