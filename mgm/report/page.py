"""What the page of a study, or of the paper's suite, shows: sections of views."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.report.estimates import (
    StudyResults,
    filled,
    interval_of,
    is_share,
    run_ids_of,
    selected,
    selected_differences,
    unit_of,
)
from mgm.report.views import table
from mgm.report.views.table import TableCell
from mgm.report.warnings import notes_of, of_page, warnings_of
from mgm.spec import PUBLISHED, Spec
from mgm.study.formula import parse_statement
from mgm.study.schema import View
from mgm.study.selection import Selection

VERDICTS = {"holds": "held", "refuted": "refuted", "open": "open", "not run": "not run"}


@dataclass(frozen=True)
class Shown:
    """A view as it is shown: a table, a picture, or why there is neither.

    Attributes:
        name: the view's target; empty for what is no target.
        picture: an svg, or a png of frames of clips.
        alt: what a reader who does not see the picture is told.
        why: why it has neither a picture nor a table.
    """

    title: str = ""
    name: str = ""
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    table: pd.DataFrame | None = None
    picture: Path | None = None
    alt: str = ""
    why: str = ""
    files: Sequence[str] = ()
    run_ids: Sequence[str] = ()

    @property
    def is_chart(self) -> bool:
        """Whether its picture has lines and marks, and no frames of clips."""
        return self.picture is not None and self.picture.suffix == ".svg"


@dataclass(frozen=True)
class Section:
    """Views below a title. What is folded is not in Markdown, so that it stays short."""

    shown: Sequence[Shown]
    title: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """The page of results.

    Attributes:
        findings: the answer, as sentences with numbers.
        caveat: what the numbers do not show.
        warnings: what is wrong with the runs.
    """

    title: str
    sections: Sequence[Section]
    lead: str = ""
    findings: Sequence[str] = ()
    caveat: str = ""
    warnings: Sequence[str] = ()
    tally: str = ""


def study_page(found: StudyResults, views: Mapping[str, Shown], pictures: Sequence[Shown]) -> Page:
    """Return the page of a study: a figure, a table, the first differences, what was refuted.

    All else is folded, and written as csv.

    Args:
        views: the tables of the study, by key.
        pictures: its figures, and that of every run.
    """
    study, tables = found.study, list(views.values())
    first, *others = tables
    if not any(name in study.views for name in views) and len(views) > 1:
        # A table per dataset is implied. Its first column stands on the page for all datasets.
        column = study.first_column
        title = column + " (%)" * is_share(study, "", column)
        first, others = shown_table(found, "", View(columns=(column,)), title), tables
    families = found.differences[found.differences.n > 1][["family", "column"]].drop_duplicates()
    differences = [
        shown_differences(found, family, column) for family, column in families.to_numpy(str)
    ]
    refuted = shown_predictions(found, ["refuted"], "Refuted predictions")
    told = shown_predictions(found, ["holds", "open", "not run"], "Predictions")
    asked = [*study.limitations.items(), ("When the runs stop", study.stopping_rule)]
    notes = [f"**{title}.** {said}" for title, text in asked if (said := filled(found, text))]
    return Page(
        study.question,
        [
            Section([*pictures[:1], first, *differences[:1], *refuted]),
            *folded("All tables", others),
            *folded("Other figures", pictures[1:]),
            *folded("Other differences", differences[1:]),
            *folded("Other predictions", told),
            *folded("Notes", [Shown(notes=notes)] if notes else []),
        ],
        findings=answers(found),
        caveat=caveat_of(found),
        warnings=of_page(found),
        tally=tally(found.predictions.verdict),
    )


def suite_page(
    found: Mapping[str, StudyResults],
    tables: Mapping[str, Mapping[str, Shown]],
    pictures: Mapping[str, Sequence[Shown]],
    claims: pd.DataFrame,
) -> Page:
    """Return the page of the paper's suite. Studies with an answer come first."""
    first = next(iter(found.values()))
    order = sorted(found.values(), key=lambda one: not one.study.answer)
    sections = list[Section]()
    for one in order:
        name = one.study.study
        # Figures of seeds show the numbers of the tables once more.
        declared = [shown for shown in pictures[name] if shown.name in one.study.views]
        charts = [shown for shown in declared if not shown.picture or shown.is_chart]
        own = list(tables[name].values())
        if parts := [*own[:1], *charts, *own[1:]]:
            sections.append(Section(parts, one.study.question))
        sections += folded("Pictures", [shown for shown in declared if shown not in charts])
    return Page(
        "Motion-Guided Masking, rerun",
        [*sections, *folded("The paper's claims", shown_claims(claims))],
        lead=f"The experiments of Fan et al. (ICCV 2023) and their baselines, at scale "
        f"{first.folder.name}{stand_ins(first.plan.specs.values())}.",
        findings=[text for one in order for text in answers(one)],
        caveat=caveat_of(first),
        warnings=of_page(first),
    )


def folded(title: str, shown: Sequence[Shown]) -> list[Section]:
    return [Section(shown, title, folded=True)] if shown else []


def answers(found: StudyResults) -> list[str]:
    """Return the sentences of an answer: the first, and others whose numbers have intervals."""
    first, *others = found.study.answer or [""]
    texts = [filled(found, first), *(filled(found, one, intervals=True) for one in others)]
    return [text for text in texts if text]


def caveat_of(found: StudyResults) -> str:
    """Return what the numbers of a study, or of its scale, do not show."""
    return (found.study.caveat or found.plan.caveat).strip()


def stand_ins(specs: Iterable[Spec]) -> str:
    """Return which models and videos stand in for those that the runs are named after."""
    specs = [*specs]
    toys = ["toy models"] * any(spec.model.misnamed for spec in specs)
    # A published set has no digest, and one that is drawn in its place has one.
    drawn = any(spec.data.digest and spec.data.dataset in PUBLISHED for spec in specs)
    words = " on ".join([*toys, *["drawn videos"] * drawn])
    return f" ({words})" * bool(words)


def tally(verdicts: Iterable[str]) -> str:
    """Return "Predictions: 3 held, 1 refuted."; empty without any."""
    counts = Counter(verdicts)
    parts = [f"{counts[name]} {words}" for name, words in VERDICTS.items() if counts[name]]
    return f"Predictions: {', '.join(parts)}." if parts else ""


def shown_table(found: StudyResults, name: str, view: View, title: str) -> Shown:
    """Return a table with what its readers must know."""
    frame = selected(found, view)
    waits = table.not_run(frame)
    frame = frame[~frame.dataset.isin(waits)]
    made = table.data(frame, view)
    cells = frame[frame.row.isin([*made.index, *made.columns]) | (frame.n > 0)]
    notes = [*filter(None, [view.note]), *notes_of(found, cells)]
    if waits:
        notes.append(f"Not run: {'; '.join(found.study.shown.get(name, name) for name in waits)}.")
    return Shown(
        title,
        name,
        notes=notes,
        warnings=warnings_of(found, cells),
        table=made,
        files=[f"tables/{name}.{ending}" for ending in ("csv", "md", "tex")] if name else [],
    )


def shown_differences(found: StudyResults, family: str, column: str) -> Shown:
    """Return a family's differences, also of effects. Bold differs from 0."""
    note = (
        f"Row minus row in points, paired by {unit_of(found.study)}. Bold: it differs from 0 by "
        "Holm's method, which keeps the chance of a false difference in a family at 5 %."
    )
    title = ", ".join(filter(None, ("Paired differences", family, column)))
    frame = selected_differences(found, family, column)
    # So that the table is not wider than it is high.
    turned = frame.dataset.nunique() > frame.row.nunique()
    options = {"head": "Difference (points)", "turned": turned}
    return Shown(title, notes=[note], table=table.data(frame, View(options=options)))


def shown_predictions(found: StudyResults, verdicts: Sequence[str], title: str) -> list[Shown]:
    """Return what predictions with these verdicts came to, with the commits that wrote them."""
    study, names, lines = found.study, list[str](), list[list[TableCell]]()
    told: Any = found.predictions[found.predictions.verdict.isin(verdicts)].itertuples()
    for line in told:
        where = study.compared.get(line.dataset, line.dataset)
        where += f", {line.column}" if line.column != study.first_column else ""
        for what, numbers in (("dataset seeds", line.dataset_seeds), ("seeds", line.seeds)):
            where += f", {what} {numbers[0]} to {numbers[-1]}" if numbers else ""
        number, small = TableCell(status="not run"), (f"n = {line.n}",)
        if line.n:
            formula = parse_statement(line.says).formula
            seeds = Selection(dataset_seeds=line.dataset_seeds, seeds=line.seeds)
            runs = tuple(run_ids_of(found, line.dataset, formula, line.column, seeds).split())
            number = TableCell(f"{line.mean:z.1f}", interval_of(line), small, run_ids=runs)
        verdict = TableCell(status=line.verdict, small=tuple(filter(None, [line.why])))
        names.append(line.says)
        lines.append(
            [TableCell(where), TableCell(line.since[:7] or "not committed"), number, verdict]
        )
    columns = pd.Index(["Where", "Commit", "Found", "Verdict"], name="Predicted")
    made = pd.DataFrame(lines, names, columns)
    return [Shown(title, table=made)] if lines else []


def shown_claims(claims: pd.DataFrame) -> list[Shown]:
    """Return the paper's claims by verdict, each against the paper's own tables."""
    made = []
    for verdict, part in claims.groupby("verdict", sort=False):
        index = pd.Index(part.claim, name=None)
        lines = pd.DataFrame({"The paper's tables": map(TableCell, part.quoted)}, index)
        title = f"{verdict}: {len(part)}".capitalize()
        made.append(Shown(title, table=lines.rename_axis(columns="Claim")))
    return made
