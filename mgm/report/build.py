"""`mgm report`: tables, figures, claims and the page from the results that exist.

It never trains. Missing runs are named.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from mgm.errors import UserError
from mgm.report.claims import judge_claims
from mgm.report.figures import charts
from mgm.report.figures.draw import DRAW
from mgm.report.figures.film import masks_in_motion
from mgm.report.figures.style import save
from mgm.report.findings import Findings, read_findings
from mgm.report.markdown import summary
from mgm.report.page import Figure, page
from mgm.report.tables import compared, write_frames, write_table
from mgm.results import atomic
from mgm.study.formula import parse_formula


def build_report(results: Path, reports: Path, only: str = "") -> Path:
    """Write tables, figures, claims.csv, index.html and index.md to `reports`.

    Args:
        results: folder of the runs, `results/NAME`.
        reports: folder to write, `reports/NAME`.
        only: a target such as "table4e" or "figure5": write only that.

    Returns:
        The page's path, or the target's.

    Raises:
        UserError: `only` is not a table or figure, or it needs a run that is not finished.
    """
    findings = read_findings(results, weights=True)
    writers: dict[str, Callable[[], Any]] = {
        f"table{name}": partial(write_table, found, name, reports / "tables")
        for found in findings.values()
        for name in found.study.parts
    }
    drawers = {
        study: figures_of(found, reports / "figures", alone=len(findings) == 1)
        for study, found in findings.items()
    }
    pictures = {
        f"figure{name}": partial(_picture, found, name, reports / "figures")
        for found in findings.values()
        for name in found.study.pictures
    }
    figures = {name: draw for of_study in drawers.values() for name, draw in of_study.items()}
    if only:
        return _only(only, writers, {**figures, **pictures})
    for write in writers.values():
        write()
    write_frames(findings, reports / "tables")
    verdicts = judge_claims(findings) if len(findings) > 1 else pd.DataFrame()
    if len(verdicts):
        csv = verdicts.to_csv(index=False, lineterminator="\n")
        atomic.write(reports / "claims.csv", csv)
    drawn = {study: [draw() for draw in of.values()] for study, of in drawers.items()}
    shown = [draw() for draw in pictures.values()]
    film = _film(next(iter(findings.values())), reports / "figures")
    text = page(findings, drawn, shown, verdicts, reports, film)
    atomic.write(reports / "index.md", summary(findings, drawn))
    return atomic.write(reports / "index.html", text)


def _only(
    target: str, tables: Mapping[str, Callable[[], Any]], figures: Mapping[str, Callable[[], Any]]
) -> Path:
    if target in tables:
        return Path(tables[target]())
    if target not in figures:
        known = ", ".join([*tables, *figures])
        raise UserError(f"{target}: no such table or figure; choose one of {known}")
    figure: Figure = figures[target]()
    if not figure.picture:
        raise UserError(f"{target}: {figure.why}")
    return figure.picture


def figures_of(findings: Findings, folder: Path, alone: bool) -> dict[str, Callable[[], Figure]]:
    """Return functions that draw a study's figures of cells, by the figures' names.

    Args:
        alone: no other study has figures in this folder.
    """
    study, points = findings.study, findings.points
    drawers: dict[str, Callable[[], Figure]] = {}
    for over in (over for overs in study.over.values() for over in overs):
        shown = points[points.figure == over.figure]
        name = over.figure if over.figure == "over" else f"figure{over.figure}"
        about = (over.title or f"Accuracy over {over.axis.lower()}", over.note)
        if shown["mean"].notna().any() or shown.paper.notna().sum() > 1:
            draw = partial(charts.over, shown, over.axis, study.shown, findings.unit_name)
            drawers[name] = partial(_cells, draw, folder / name, *about)
        else:
            drawers[name] = partial(Figure, name, *about, why="None of its runs is finished.")
    if study.against and len(findings.gains):
        axes = (f"{study.against.x} (%)", f"Minus {study.against.minus} (points)")
        draw = partial(charts.gains, findings.gains, *axes, study.shown, findings.unit_name)
        about = study.against.title, study.against.note
        drawers["against"] = partial(_cells, draw, folder / "against", *about)
    end = "" if alone else f"-{study.study}"
    if len(means := _differences(findings)):
        name, about = f"differences{end}", ("Paired differences", "")
        draw = partial(charts.dots, axis="Difference (points)", unit=findings.unit_name, rule=0.0)
    elif len(means := _rows(findings)):
        name, about = f"seeds{end}", ("Every run and the mean", "")
        draw = partial(charts.dots, axis="Top-1 accuracy (%)", unit=findings.unit_name)
    if len(means):
        draw = partial(draw, _units(findings, means), means)
        drawers[name] = partial(_cells, draw, folder / name, *about)
    return drawers


def _cells(draw: Callable[[], Drawing], stem: Path, title: str, note: str) -> Figure:
    save(draw(), stem, ("svg", "pdf"))
    return Figure(stem.name, title, note, stem.with_suffix(".svg"))


def _differences(findings: Findings) -> pd.DataFrame:
    """Return the differences of the first column that are drawn."""
    table = compared(findings)
    # A dot is a unit, and a unit is no person.
    drawn = table.family.isin(findings.study.compare) & (table.column == findings.first_column)
    return _named(findings, table[drawn], "says")


def _rows(findings: Findings) -> pd.DataFrame:
    """Return the rows of the first column that are drawn; none if all have one unit."""
    table = findings.cells
    table = table[~table.control & (table.column == findings.first_column) & (table.n > 0)]
    return _named(findings, table[[table.n.max() > 1] * len(table)], "row") if len(table) else table


def _named(findings: Findings, table: pd.DataFrame, name: str) -> pd.DataFrame:
    shown = table.dataset.map(findings.study.shown)
    return table.assign(name=table[name], key=table.dataset, dataset=shown)


def _units(findings: Findings, means: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers per sampling unit of rows and differences."""
    frames = [
        pd.DataFrame(
            {"value": findings.per_unit(line["key"], parse_formula(line["name"]), line["column"])}
        ).assign(dataset=line["dataset"], name=line["name"])
        for line in means.to_dict("records")
    ]
    return pd.concat(frames, ignore_index=True)


def _picture(findings: Findings, name: str, folder: Path) -> Figure:
    """Draw a figure of a run's arrays, or say why it cannot be drawn."""
    picture, stem = findings.study.pictures[name], folder / f"figure{name}"
    run_id = findings.suite.pictures[name].run_id
    figure = Figure(stem.name, picture.title, picture.note, run_ids=[run_id])
    arrays = read_arrays(findings, run_id)
    if arrays is None:
        for ending in ("svg", "pdf", "png"):
            stem.with_suffix(f".{ending}").unlink(missing_ok=True)
        status = findings.statuses[run_id]
        why = status.why or "its arrays.npz is missing; delete its result.json and run it again"
        figure.why = f"{'not run' if status.state == 'finished' else status.state}: {run_id}: {why}"
        return figure
    drawn = DRAW[name](arrays, f"Scale {findings.suite.scale.name}.")
    # Measurements have curves, and the other figures show frames of clips.
    kind = "svg" if picture.measure else "png"
    save(drawn, stem, ("pdf", kind), fitted=kind == "svg")
    figure.picture = stem.with_suffix(f".{kind}")
    return figure


def _film(findings: Findings, folder: Path) -> Path | None:
    """Write the masks in motion from the run of Figure 5; None without it."""
    run = findings.suite.pictures.get("5")
    arrays = read_arrays(findings, run.run_id) if run else None
    return masks_in_motion(arrays, folder / "masks.webp") if arrays else None


def read_arrays(findings: Findings, run_id: str) -> dict[str, Any] | None:
    """Read a finished run's arrays; None if there are none."""
    path = findings.results / run_id / "arrays.npz"
    if findings.statuses[run_id].state != "finished" or not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
