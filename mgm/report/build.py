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
from mgm.study.schema import Against, Over, Picture


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
        name: partial(_picture, found, name, reports / "figures")
        for found in findings.values()
        for name in found.study.of_kind(Picture)
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
    film = _film(findings, reports / "figures")
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
    for name, over in study.of_kind(Over).items():
        shown = points[points.figure == name]
        about = (over.title or f"Accuracy over {over.axis.lower()}", over.note)
        if shown["mean"].notna().any() or shown.paper.notna().sum() > 1:
            draw = partial(charts.over, shown, over.axis, study.shown, findings.unit_name)
            drawers[name] = partial(_cells, draw, folder / name, *about)
        else:
            drawers[name] = partial(Figure, name, *about, why="None of its runs is finished.")
    for name, against in study.of_kind(Against).items():
        gains = findings.gains[findings.gains.figure == name]
        if len(gains):
            axes = (f"{against.x} (%)", f"Minus {against.minus} (points)")
            draw = partial(charts.gains, gains, *axes, study.shown, findings.unit_name)
            about = against.title, against.note
            drawers[name] = partial(_cells, draw, folder / name, *about)
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
    picture, stem = findings.study.of_kind(Picture)[name], folder / name
    run_id = _run_of(findings, name)
    figure = Figure(stem.name, picture.title, picture.note, run_ids=[run_id])
    arrays = read_arrays(findings, run_id)
    if arrays is None:
        for ending in ("svg", "pdf", "png"):
            stem.with_suffix(f".{ending}").unlink(missing_ok=True)
        status = findings.statuses[run_id]
        why = status.why or "its arrays.npz is missing; delete its result.json and run it again"
        figure.why = f"{'not run' if status.state == 'finished' else status.state}: {run_id}: {why}"
        return figure
    drawn = DRAW[picture.kind](arrays, f"Scale {findings.plan.name}.")
    # Measurements have curves, and the other figures show frames of clips.
    kind = "svg" if picture.kind == "coverage" else "png"
    save(drawn, stem, ("pdf", kind), fitted=kind == "svg")
    figure.picture = stem.with_suffix(f".{kind}")
    return figure


def _run_of(findings: Findings, picture: str) -> str:
    return next(c.run_id for c in findings.plan.cells if picture in c.figures and not c.metric)


def _film(findings: Mapping[str, Findings], folder: Path) -> Path | None:
    """Write the masks in motion from the run of a figure of masks; None without it."""
    for found in findings.values():
        for name, picture in found.study.of_kind(Picture).items():
            if picture.kind == "masks" and (arrays := read_arrays(found, _run_of(found, name))):
                return masks_in_motion(arrays, folder / "masks.webp")
    return None


def read_arrays(findings: Findings, run_id: str) -> dict[str, Any] | None:
    """Read a finished run's arrays; None if there are none."""
    path = findings.results / run_id / "arrays.npz"
    if findings.statuses[run_id].state != "finished" or not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
