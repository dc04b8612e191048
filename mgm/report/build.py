"""`mgm report`: tables, figures, claims and the page from the results that exist.

It never trains. Missing runs are named.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path

import pandas as pd

from mgm.errors import UserError
from mgm.report import html, markdown
from mgm.report.claims import judge_claims
from mgm.report.estimates import (
    StudyResults,
    is_share,
    pictures_of,
    read_results,
    selected,
    selected_differences,
    unit_of,
)
from mgm.report.page import Shown, shown_table, study_page, suite_page
from mgm.report.tables import write_frames, write_table
from mgm.report.views import check_views, is_table, module_of
from mgm.results import atomic
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
    found = read_results(results, weights=True)
    for one in found.values():
        check_views(one.study)
    drawing = Drawing(reports / "figures", formats)
    if only:
        return _write_target(found, only, reports, drawing)
    tables, pictures = dict[str, dict[str, Shown]](), dict[str, list[Shown]]()
    for study, one in found.items():
        tables[study], pictures[study] = {}, []
        for name, view in one.study.shown_views.items():
            shown = show_view(one, name, view, drawing)
            if is_table(view):
                tables[study][name] = shown
                write_table(one, shown, reports / "tables")
            else:
                pictures[study].append(shown)
        pictures[study] += show_every_run(one, drawing)
    write_frames(found, reports / "tables")
    claims = judge_claims()
    if len(found) == 1:
        ((study, one),) = found.items()
        page = study_page(one, tables[study], pictures[study])
    else:
        csv = claims.to_csv(index=False, lineterminator="\n")
        atomic.write(reports / "claims.csv", csv)
        page = suite_page(found, tables, pictures, claims)
    atomic.write(reports / "index.md", markdown.page(page, results.name))
    return atomic.write(reports / "index.html", html.page(page, found, reports))


def _write_target(
    found: Mapping[str, StudyResults], target: str, reports: Path, drawing: "Drawing"
) -> Path:
    """Write one table or figure, and return its path."""
    targets = {
        name: (one, view) for one in found.values() for name, view in one.study.shown_views.items()
    }
    if target in targets:
        one, view = targets[target]
        shown = show_view(one, target, view, drawing)
        if is_table(view):
            return write_table(one, shown, reports / "tables")
    else:
        of_runs = (shown for one in found.values() for shown in show_every_run(one, drawing))
        every = {shown.name: shown for shown in of_runs}
        if target not in every:
            known = ", ".join([*targets, *every])
            raise UserError(f"{target}: no such table or figure; choose one of {known}")
        shown = every[target]
    if not shown.picture:
        raise UserError(f"{target}: {shown.why}")
    return shown.picture


def show_view(found: StudyResults, name: str, view: View, drawing: "Drawing") -> Shown:
    """Return a view of a study as the page shows it."""
    if is_table(view):
        title = ". ".join(filter(None, (view.label, view.title or name.removeprefix("table"))))
        return shown_table(found, name, view, title)
    frame = pictures_of(found, name) if view.show else selected(found, view)
    return _drawn(name, view, frame, drawing)


def _drawn(name: str, view: View, frame: pd.DataFrame, drawing: "Drawing") -> Shown:
    """Draw a view, or say that it has nothing to show."""
    module = module_of(view)
    data = module.data(frame, view)
    text = view.note or (module.__doc__ or "").partition("\n")[0]
    about = Shown(view.title or view.label or name, name, notes=[text])
    if not len(data):
        for ending in FORMATS:
            (drawing.folder / f"{name}.{ending}").unlink(missing_ok=True)
        one = f"{frame.status.iloc[0]}: {frame.why.iloc[0]}" if len(frame) == 1 else ""
        return replace(about, why=one or "None of its runs is finished.")
    kind = getattr(module, "format_of", lambda view: "svg")(view)
    picture = drawing(name, data, view, kind)
    runs = data.run_ids.tolist() if view.show else ()
    return replace(about, picture=picture, alt=alt_of(data), run_ids=runs)


def alt_of(data: pd.DataFrame) -> str:
    """Return the numbers of a figure, for who does not see it."""
    if "mean" not in data:
        return ""
    points = data.drop_duplicates(["row", "mean"]).dropna(subset="mean")
    return "; ".join(f"{row}: {mean:.1f}" for row, mean in zip(points.row, points["mean"]))


def show_every_run(found: StudyResults, drawing: "Drawing") -> list[Shown]:
    """Return a figure of every run: of the first column's differences, or of its rows."""
    study, unit = found.study, unit_of(found.study)
    end, column = "" if found.alone else f"-{study.study}", study.first_column
    frames = [selected_differences(found, family, column) for family in study.compare]
    frame = pd.concat(frames) if frames else pd.DataFrame()
    if len(frame):
        # In the study's order: by dataset, then by family.
        frame = frame.sort_index()
        text = f"Dots: one per {unit}. Bars: means with 95 % intervals."
        options = {"axis": "Difference (points)", "rule": 0.0}
        view = View(kind="dots", title="Paired differences", note=text, options=options)
        name = f"differences{end}"
    else:
        frame, name = selected(found, View(columns=(column,))), f"seeds{end}"
        unit_text = " (%)" * is_share(study, "", column)
        options = {"axis": f"{column}{unit_text}"}
        view = View(kind="dots", title="Every run and the mean", options=options)
    shown = _drawn(name, view, frame, drawing)
    return [shown] if shown.picture else []


@dataclass(frozen=True)
class Drawing:
    """Draws figures into a folder, each once: not again until its numbers or this code change.

    Attributes:
        formats: of the files, besides the page's own.
    """

    folder: Path
    formats: Sequence[str] = ()

    @cached_property
    def code(self) -> list[bytes]:
        """Return the modules that draw."""
        folders = (Path(__file__).with_name(name) for name in ("figures", "views"))
        files = sorted(path for folder in folders for path in folder.glob("*.py"))
        return [path.read_bytes() for path in files]

    def __call__(self, name: str, data: pd.DataFrame, view: View, kind: str) -> Path:
        """Draw a figure unless it is there, and return its path.

        Args:
            kind: the format that the page shows.
        """
        stem, kinds = self.folder / name, [*dict.fromkeys((kind, *self.formats))]
        # A pickled view has a set, whose order differs between processes.
        digest = sha256(pickle.dumps((data, view.model_dump_json(), self.code))).hexdigest()
        stamp = self.folder / ".drawn" / name
        files = [stem.with_suffix(f".{name}") for name in kinds]
        known = stamp.is_file() and stamp.read_text() == digest
        if not (known and all(file.exists() for file in files)):
            # Matplotlib takes a second to import, and most reports draw nothing new.
            from mgm.report.figures.style import drawn, save

            save(
                drawn(partial(module_of(view).draw, data, view)), stem, kinds, fitted=kind == "svg"
            )
            atomic.write(stamp, digest)
        return files[0]
