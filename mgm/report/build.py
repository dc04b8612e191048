"""`mgm report`: tables, figures, claims and the page from the results that exist.

It never trains. Missing runs are named.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgm.errors import UserError
from mgm.report.blocks import Figure, compared, study_page, suite_page, unit_of
from mgm.report.claims import judge_claims
from mgm.report.findings import Findings, read_findings
from mgm.report.markdown import summary
from mgm.report.page import page
from mgm.report.tables import write_frames, write_table
from mgm.results import atomic
from mgm.study.formula import parse_formula
from mgm.study.schema import SHARES, Against, Order, Over, Picture

FORMATS = ("svg", "pdf", "png")


def build_report(results: Path, reports: Path, only: str = "", formats: Sequence[str] = ()) -> Path:
    """Write tables, figures, claims.csv, index.html and index.md to `reports`.

    Args:
        results: folder of the runs, `results/NAME`.
        reports: folder to write, `reports/NAME`.
        only: a target such as "table4e" or "figure5": write only that.
        formats: also write figures as pdf, png or svg.

    Returns:
        The page's path, or the target's.

    Raises:
        UserError: `only` is not a table or figure, or it needs a run that is not finished.
    """
    if unknown := {*formats} - {*FORMATS}:
        raise UserError(f"{min(unknown)}: no format of figures; choose from {', '.join(FORMATS)}")
    findings = read_findings(results, weights=True)
    writers: dict[str, Callable[[], Any]] = {
        f"table{name}": partial(write_table, found, name, reports / "tables")
        for found in findings.values()
        for name in found.study.parts
    }
    draw = Drawing(reports / "figures", formats)
    drawers = {
        study: figures_of(found, draw, alone=len(findings) == 1)
        for study, found in findings.items()
    }
    figures = {name: draw for of_study in drawers.values() for name, draw in of_study.items()}
    if only:
        return _only(only, writers, figures)
    for write in writers.values():
        write()
    write_frames(findings, reports / "tables")
    verdicts = judge_claims()
    if len(findings) > 1:
        csv = verdicts.to_csv(index=False, lineterminator="\n")
        atomic.write(reports / "claims.csv", csv)
    drawn = {study: [draw() for draw in of.values()] for study, of in drawers.items()}
    if len(findings) == 1:
        ((study, found),) = findings.items()
        blocks = study_page(found, drawn[study], reports)
    else:
        blocks = suite_page(findings, drawn, verdicts, reports)
    atomic.write(reports / "index.md", summary(blocks, results.name))
    return atomic.write(reports / "index.html", page(findings, blocks, reports))


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


@dataclass(frozen=True)
class Drawing:
    """Draws figures into a folder, each once: not again until its numbers or this code change.

    Attributes:
        formats: of the files, besides the page's own.
    """

    folder: Path
    formats: Sequence[str] = ()

    def __call__(
        self, about: Figure, draw: Callable[[], Any], kind: str = "svg", key: Any = None
    ) -> Figure:
        """Draw a figure unless it is there.

        Args:
            kind: the format that the page shows.
            key: what the picture follows from; by default the arguments of `draw`.
        """
        stem, kinds = self.folder / about.name, [*dict.fromkeys((kind, *self.formats))]
        folder = Path(__file__).with_name("figures")
        code = [path.read_bytes() for path in sorted(folder.glob("*.py"))]
        digest = sha256(pickle.dumps((draw if key is None else key, code))).hexdigest()
        stamp = self.folder / ".drawn" / about.name
        files = [stem.with_suffix(f".{name}") for name in kinds]
        known = stamp.is_file() and stamp.read_text() == digest
        if not (known and all(file.exists() for file in files)):
            # Matplotlib takes a second to import, and most reports draw nothing new.
            from mgm.report.figures.style import save

            save(draw(), stem, kinds, fitted=kind == "svg")
            atomic.write(stamp, digest)
        return replace(about, picture=files[0])


def figures_of(
    findings: Findings, drawing: Drawing, alone: bool
) -> dict[str, Callable[[], Figure]]:
    """Return functions that draw a study's figures, by the figures' names.

    Args:
        alone: no other study has figures in this folder.
    """
    study, points = findings.study, findings.points
    drawers: dict[str, Callable[[], Figure]] = {}
    for name, order in study.of_kind(Order).items():
        if len(found := findings.ordered(order.x)):
            draw = partial(_chart, "order", found, study.shown, findings.unit_name)
            drawers[name] = partial(drawing, Figure(name, order.title, order.note), draw)
    for name, over in study.of_kind(Over).items():
        shown = points[points.figure == name]
        text = "A line per kind of pretraining, with 95 % intervals."
        about = Figure(name, over.title or over.axis, over.note or text)
        if shown["mean"].notna().any() or shown.paper.notna().sum() > 1:
            draw = partial(_chart, "over", shown, *_axes(findings, over, shown))
            drawers[name] = partial(drawing, about, draw)
        else:
            about = replace(about, why="None of its runs is finished.")
            drawers[name] = partial(replace, about)
    for name, against in study.of_kind(Against).items():
        gains = findings.gains[findings.gains.figure == name]
        if len(gains):
            y, what = f"Gain over {against.minus} (points)", " or its ".join(against.x)
            text = f"Each mark is a row: its gain in {against.y}, against its {what}."
            draw = partial(_chart, "gains", gains, y, study.shown, findings.unit_name)
            drawers[name] = partial(
                drawing, Figure(name, against.title, against.note or text), draw
            )
    end = "" if alone else f"-{study.study}"
    if len(means := _differences(findings)):
        text = f"Dots: one per {findings.unit_name}. Bars: means with 95 % intervals."
        about = Figure(f"differences{end}", "Paired differences", text)
        look: dict[str, Any] = {"axis": "Difference (points)", "rule": 0.0}
    elif len(means := _rows(findings)):
        about = Figure(f"seeds{end}", "Every run and the mean")
        look = {"axis": unit_of(findings, findings.first_column)}
    if len(means):
        draw = partial(
            _chart, "dots", _units(findings, means), means, unit=findings.unit_name, **look
        )
        drawers[about.name] = partial(drawing, about, draw)
    for name in study.of_kind(Picture):
        drawers[name] = partial(_picture, findings, name, drawing)
    # As the study declares them.
    return {name: drawers[name] for name in {**study.figures, **drawers} if name in drawers}


def _axes(findings: Findings, over: Over, shown: pd.DataFrame) -> tuple[Any, ...]:
    """Return the titles of a figure over a number, and the steps below its epochs."""
    metrics = {findings.study.columns[column].metric for column in shown.column}
    y = "Top-1 accuracy (%)" if metrics == {"top1"} else "Share (%)" if metrics <= SHARES else ""
    steps = findings.schedule if over.x == "epochs" else {}
    x = f"{over.axis}, with our steps below" if steps else over.axis
    below = {epochs: f"{number:,}" for epochs, number in steps.items()}
    return (x, y), findings.study.shown, findings.unit_name, below


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


def _picture(findings: Findings, name: str, drawing: Drawing) -> Figure:
    """Draw a figure of a run's arrays, or say why it cannot be drawn."""
    picture = findings.study.of_kind(Picture)[name]
    cells = findings.plan.cells
    run_id = next(cell.run_id for cell in cells if name in cell.figures and not cell.metric)
    about = Figure(name, picture.title, picture.note, run_ids=[run_id])
    status, path = findings.statuses[run_id], findings.results / run_id / "arrays.npz"
    if not status.result or not path.exists():
        for ending in ("svg", "pdf", "png"):
            (drawing.folder / f"{name}.{ending}").unlink(missing_ok=True)
        why = status.why or "its arrays.npz is missing; delete its result.json and run it again"
        state = "not run" if status.result else status.state
        return replace(about, why=f"{state}: {run_id}: {why}")
    # Measurements have curves, and the other figures show frames of clips.
    kind, note = "svg" if picture.kind == "coverage" else "png", f"Scale {findings.plan.name}."
    draw = partial(_draw, picture.kind, path, note)
    return drawing(about, draw, kind, (picture.kind, note, status.result["files"]))


def _chart(name: str, *args: Any, **options: Any) -> Any:
    """Draw a chart by its function's name."""
    from mgm.report.figures import charts

    return getattr(charts, name)(*args, **options)


def _draw(kind: str, path: Path, note: str) -> Any:
    """Draw the arrays of a run."""
    from mgm.report.figures.draw import DRAW

    with np.load(path, allow_pickle=False) as file:
        return DRAW[kind](dict(file), note)
