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

import pandas as pd

from mgm.errors import UserError
from mgm.report.blocks import Figure, compared, study_page, suite_page, unit_of
from mgm.report.claims import judge_claims
from mgm.report.findings import Findings, read_findings
from mgm.report.markdown import summary
from mgm.report.page import page
from mgm.report.tables import write_frames, write_table
from mgm.report.views import check_views, module_of, options_of
from mgm.results import atomic
from mgm.study.formula import parse_formula
from mgm.study.schema import View

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
    for found in findings.values():
        check_views(found.study)
    writers: dict[str, Callable[[], Any]] = {
        name: partial(write_table, found, name, reports / "tables")
        for found in findings.values()
        for name in found.study.of_kind("table")
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
        folders = (Path(__file__).with_name(name) for name in ("figures", "views"))
        files_of_code = sorted(path for folder in folders for path in folder.glob("*.py"))
        code = [path.read_bytes() for path in files_of_code]
        digest = sha256(pickle.dumps((draw if key is None else key, code))).hexdigest()
        stamp = self.folder / ".drawn" / about.name
        files = [stem.with_suffix(f".{name}") for name in kinds]
        known = stamp.is_file() and stamp.read_text() == digest
        if not (known and all(file.exists() for file in files)):
            # Matplotlib takes a second to import, and most reports draw nothing new.
            from mgm.report.figures.style import drawn, save

            save(drawn(draw), stem, kinds, fitted=kind == "svg")
            atomic.write(stamp, digest)
        return replace(about, picture=files[0])


def figures_of(
    findings: Findings, drawing: Drawing, alone: bool
) -> dict[str, Callable[[], Figure]]:
    """Return functions that draw a study's views, by the views' names. Tables are not drawn.

    Args:
        alone: no other study has figures in this folder.
    """
    views = {name: v for name, v in findings.study.shown_views.items() if v.kind != "table"}
    drawers: dict[str, Callable[[], Figure]] = {
        name: partial(_clips, findings, name, drawing)
        if view.kind == "clips"
        else partial(_view, name, view, findings.shown_by(view), drawing)
        for name, view in views.items()
    }
    end = "" if alone else f"-{findings.study.study}"
    if len(frame := _differences(findings)):
        text = f"Dots: one per {findings.unit_name}. Bars: means with 95 % intervals."
        options = {"axis": "Difference (points)", "rule": 0.0}
        view = View(kind="dots", title="Paired differences", note=text, options=options)
        name = f"differences{end}"
    else:
        frame, name = findings.shown_by(View(columns=(findings.first_column,))), f"seeds{end}"
        options = {"axis": unit_of(findings, findings.first_column)}
        view = View(kind="dots", title="Every run and the mean", options=options)
    if len(module_of(view).data(frame, view)):
        drawers[name] = partial(_view, name, view, frame, drawing)
    return drawers


def _view(name: str, view: View, frame: pd.DataFrame, drawing: Drawing) -> Figure:
    """Draw a view, or say that it has nothing to show."""
    module = module_of(view)
    data = module.data(frame, view)
    text = view.note or (module.__doc__ or "").partition("\n")[0]
    about = Figure(name, view.title or view.label or name, text)
    if not len(data):
        return replace(about, why="None of its runs is finished.")
    return drawing(about, partial(module.draw, data, view))


def _differences(findings: Findings) -> pd.DataFrame:
    """Return the differences of the first column as the cells of a view."""
    table = compared(findings)
    # A dot is a unit, and a unit is no person.
    drawn = table.family.isin(findings.study.compare) & (table.column == findings.first_column)
    table = table[drawn]
    values = [
        findings.per_unit(line["dataset"], parse_formula(line["says"]), line["column"])
        for line in table.to_dict("records")
    ]
    return table.assign(
        title=table.dataset.map(findings.study.shown),
        row=table.says,
        values=pd.Series(values, table.index, dtype="object"),
        # They are per unit already.
        by="runs",
        unit=findings.unit_name,
        control=False,
    )


def _clips(findings: Findings, name: str, drawing: Drawing) -> Figure:
    """Draw a figure of a run's arrays, or say why it cannot be drawn."""
    view = findings.study.views[name]
    cells = findings.plan.cells
    run_id = next(cell.run_id for cell in cells if name in cell.views and not cell.metric)
    about = Figure(name, view.title, view.note, run_ids=[run_id])
    status, path = findings.statuses[run_id], findings.results / run_id / "arrays.npz"
    if not status.result or not path.exists():
        for ending in FORMATS:
            (drawing.folder / f"{name}.{ending}").unlink(missing_ok=True)
        why = status.why or "its arrays.npz is missing; delete its result.json and run it again"
        state = "not run" if status.result else status.state
        return replace(about, why=f"{state}: {run_id}: {why}")
    module, show = module_of(view), options_of(view).show
    # Measurements have curves, and the other figures show frames of clips.
    kind, note = "svg" if show == "coverage" else "png", f"Scale {findings.plan.name}."
    draw = partial(module.draw_file, path, show, note)
    return drawing(about, draw, kind, (show, note, status.result["files"]))
