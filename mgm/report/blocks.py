"""What a page shows, as one list of blocks. `page` and `markdown` are its two templates.

A block that is folded is on the HTML page alone, so that the Markdown of a study stays short.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from mgm.report.findings import FITS, Findings, estimate_of
from mgm.results.result import LEAST_EXPLAINED
from mgm.results.statistics import FEWEST, Estimate
from mgm.study.schema import SHARES

VERDICTS = {"holds": "held", "refuted": "refuted", "open": "open", "not run": "not run"}


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2
    key: str = ""


@dataclass(frozen=True)
class Text:
    text: str
    kind: Literal["", "lead", "finding", "caveat", "note", "warning"] = ""


@dataclass(frozen=True)
class Lines:
    items: Sequence[str]


@dataclass(frozen=True)
class Links:
    """Files, by their titles, with a text before them."""

    text: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Figure:
    """A drawn figure, or why there is none.

    Attributes:
        picture: the svg, or the png of frames of clips; None if it could not be drawn.
        why: why it could not be drawn.
    """

    name: str
    title: str
    caption: str = ""
    picture: Path | None = None
    why: str = ""
    run_ids: Sequence[str] = ()


class Cell(NamedTuple):
    """A number, its interval or why it has none, and what stands small beside it."""

    text: str = ""
    interval: str = ""
    small: tuple[str, ...] = ()
    n: int = 0
    strong: bool = False
    run_ids: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The cell on one line, without its runs."""
        text = f"**{self.text} {self.interval}**" if self.strong else f"{self.text} {self.interval}"
        return " ".join(
            filter(None, (text.strip(), f"({'; '.join(self.small)})" * bool(self.small)))
        )


class Line(NamedTuple):
    """A row of a table. `part` is the title of the rows below it; empty: as the row before."""

    name: str
    cells: Sequence[Cell]
    note: str = ""
    part: str = ""


@dataclass(frozen=True)
class Table:
    """Columns may have groups, such as a dataset; a group stands once above its columns."""

    head: str
    columns: Sequence[str]
    lines: Sequence[Line]
    groups: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """Parts that stand next to one another where there is room."""

    parts: Sequence[Sequence["Block"]]


@dataclass(frozen=True)
class Fold:
    """Blocks that a reader of the page opens."""

    title: str
    blocks: Sequence["Block"]
    key: str = ""


Block = Heading | Text | Lines | Links | Figure | Table | Row | Fold


def study_page(findings: Findings, figures: Sequence[Figure], reports: Path) -> list[Block]:
    """Return the page of a study: its answer, a figure, the first column, and what was refuted.

    All else is folded, and written as csv.
    """
    study, first, parts = findings.study, findings.first_column, [*findings.study.of_kind("table")]
    named = any(name in study.views for name in parts)
    shown = parts[1:] if named else parts
    folded = [table for name in shown for table in table_blocks(findings, name)]
    families = compared(findings)[["family", "column"]].drop_duplicates().to_numpy(str).tolist()
    differences: list[list[Block]] = [
        [
            Heading(", ".join(filter(None, ("Paired differences", family, column))), 3),
            difference_table(findings, family, column),
        ]
        for family, column in families
    ]
    refuted = prediction_table(findings, ["refuted"])
    failed: list[Block] = [Heading("Refuted predictions"), refuted] if refuted.lines else []
    told = prediction_table(findings, ["holds", "open", "not run"])
    others = [block for family in differences[1:] for block in family]
    asked = [*study.sceptic.items(), ("When the runs stop", study.stop)]
    notes = [
        Text(f"**{title}.** {said}") for title, text in asked if (said := findings.filled(text))
    ]
    note = (
        f"Row minus row in points, paired by {findings.unit_name}. Bold: it differs from 0 by "
        "Holm's method, which keeps the chance of a false difference in a family at 5 %."
    )
    return [
        Heading(study.question, 1),
        *(Text(text, "finding") for text in map(findings.filled, study.answer) if text),
        *caveat_of(findings),
        Text(tally(findings.predictions.verdict), "note"),
        *figures[:1],
        *(table_blocks(findings, parts[0]) if named else column_blocks(findings, first)),
        *([Text(note, "note"), *differences[0]] if differences else []),
        *failed,
        Links("All numbers:", csv_files(reports)),
        *fold("All tables", folded),
        *fold("Other figures", figures[1:]),
        *fold("Other differences", others),
        *fold("Other predictions", [told] if told.lines else []),
        *fold("Notes", notes),
    ]


def suite_page(
    found: Mapping[str, Findings],
    figures: Mapping[str, Sequence[Figure]],
    verdicts: pd.DataFrame,
    reports: Path,
) -> list[Block]:
    """Return the page of the paper's suite. Studies with an answer come first."""
    first = next(iter(found.values()))
    order = sorted(found.values(), key=lambda findings: not findings.study.answer)
    lead = "The experiments of Fan et al. (ICCV 2023) and their baselines, at scale"
    blocks: list[Block] = [
        Heading("Motion-Guided Masking, rerun", 1),
        Text(f"{lead} {first.results.name}.", "lead"),
        *(Text(t, "finding") for one in order for t in map(one.filled, one.study.answer) if t),
        *caveat_of(first),
    ]
    for findings in order:
        own = figures.get(findings.study.study, ())
        tables = [table_blocks(findings, name) for name in findings.study.of_kind("table")]
        # Figures of seeds show the numbers of the tables once more.
        declared = [figure for figure in own if figure.name in findings.study.views]
        charts: list[list[Block]] = [[figure] for figure in declared if is_chart(figure)]
        parts = [part for part in (*tables[:1], *charts, *tables[1:]) if part]
        blocks += [Heading(findings.study.question), Row(parts)] if parts else []
        blocks += fold("Pictures", [figure for figure in declared if not is_chart(figure)])
    blocks.append(Links("All numbers:", csv_files(reports)))
    return [*blocks, *claim_blocks(verdicts)]


def is_chart(figure: Figure) -> bool:
    """Return whether a figure has lines and marks, and no frames of clips."""
    return figure.picture is None or figure.picture.suffix == ".svg"


def caveat_of(findings: Findings) -> list[Block]:
    """Return what the numbers of a study, or of its scale, do not show."""
    text = findings.study.caveat or findings.plan.caveat
    return [Text(text.strip(), "caveat")] if text else []


def fold(title: str, blocks: Sequence[Block]) -> list[Block]:
    return [Fold(title, blocks)] if blocks else []


def tally(verdicts: Iterable[str]) -> str:
    """Return "Predictions: 3 held, 1 refuted."; empty without any."""
    counts = Counter(verdicts)
    parts = [f"{counts[name]} {words}" for name, words in VERDICTS.items() if counts[name]]
    return f"Predictions: {', '.join(parts)}." if parts else ""


def csv_files(reports: Path) -> dict[str, str]:
    """Return the csv files of a report, as seen from its page."""
    names = ("cells", "differences", "predictions", "values")
    files = {f"{name}.csv": f"tables/{name}.csv" for name in names}
    return {name: path for name, path in files.items() if (reports / path).exists()}


def seen(findings: Findings, name: str) -> pd.DataFrame:
    """Return the cells of a table that readers see.

    A control that is the same for all videos, such as their duration, is not measured. Numbers that
    are quoted alone stand beside runs that repeat the paper's.
    """
    cells = findings.shown_by(findings.study.shown_views[name])
    cells = cells[~cells.control | (cells.n > 0)]
    if not findings.repeats_the_paper:
        cells = cells[cells.status != "quoted"]
    return cells


def compared(findings: Findings) -> pd.DataFrame:
    """Return the differences that readers see: a difference of single runs shows nothing."""
    return findings.differences[findings.differences.n > 1]


def table_blocks(
    findings: Findings, name: str, columns: Sequence[str] | None = None
) -> list[Block]:
    """Return a table of a study with its title, its notes and its files.

    Args:
        columns: show these columns alone.
    """
    part, cells = findings.study.shown_views[name], seen(findings, name)
    if columns is not None:
        cells = cells[cells.column.isin(columns)]
    title = ". ".join(filter(None, (part.label, part.title or name.removeprefix("table"))))
    heading = Heading(title, 3, f"table-{name.removeprefix('table')}")
    files = {ending: f"tables/{name}.{ending}" for ending in ("csv", "md", "tex")}
    blocks = with_notes(findings, cells, heading, part.note)
    return [*blocks, Links("This table as", files)] if blocks else []


def column_blocks(findings: Findings, column: str) -> list[Block]:
    """Return a column of a study as one table, with a column per dataset."""
    cells = pd.concat([seen(findings, name) for name in findings.study.of_kind("table")])
    cells = cells[cells.column == column].drop_duplicates(["dataset", "row"])
    return with_notes(findings, cells, Heading(unit_of(findings, column)))


def with_notes(
    findings: Findings, cells: pd.DataFrame, heading: Heading, note: str = ""
) -> list[Block]:
    """Return cells as a table with a heading, its data and warnings; nothing without cells."""
    if not len(cells):
        return []
    notes, data, warnings = [note], {}, list[str]()
    better = dict[str, dict[str, None]]()
    tests = cells[cells.column.isin(findings.study.tests)]
    for place, block in tests.groupby(["dataset", "column"], sort=False):
        dataset, column = map(str, place)  # type: ignore[call-overload]
        chance, videos = chance_of(findings, dataset)
        data[findings.study.shown.get(dataset, dataset)] = videos
        models = block[~block.control & (block.n > 0)]
        accuracy = findings.study.columns[column].metric == "top1"
        if accuracy and len(models) and models["mean"].max() <= chance:
            warnings.append(f"No row is above chance: {column}.")
        controls = block[block.control & (block.n > 0)]
        if len(models) and len(controls) and controls["mean"].max() > models["mean"].max():
            best = controls.sort_values("mean").row.iloc[-1]
            better.setdefault(column, {})[best] = None
        if idle := [row for row in models.row if (dataset, row) in findings.untaught]:
            warnings.append(
                f"Pretraining explains less than {LEAST_EXPLAINED} % of its loss, so it learnt "
                f"next to nothing: {'; '.join(idle)}."
            )
        if behind := [row for row in models.row if (dataset, row) in findings.behind]:
            warnings.append(
                "The mean of the visible patches around a hidden one explains more than the model: "
                f"{'; '.join(behind)}."
            )
        fits = {row: findings.fitted.get((dataset, column, row), 100) for row in models.row}
        if poor := [row for row, value in fits.items() if value < FITS]:
            warnings.append(
                f"{column}: below {FITS:.0f} % on the training clips at the end: {'; '.join(poor)}."
                " Such accuracies may compare how fast rows train."
            )
    warnings += [
        f"{column}: a control without a model is above every row: {'; '.join(names)}."
        for column, names in better.items()
    ]
    titles_of = dict[str, list[str]]()
    for title, text in data.items():
        titles_of.setdefault(text, []).append(title)
    alike = len(titles_of) == 1
    notes += [
        text if alike else f"{'; '.join(titles)}: {text}"
        for text, titles in titles_of.items()
        if text
    ]
    if len(steps := {*steps_of(findings, cells).values()}) == 1:
        notes.append(f"Pretraining: {steps.pop()}.")
    return [
        heading,
        *(Text(note, "note") for note in dict.fromkeys(filter(None, notes))),
        *(Text(warning, "warning") for warning in dict.fromkeys(warnings)),
        table_of(findings, cells),
    ]


def table_of(findings: Findings, cells: pd.DataFrame) -> Table:
    """Return cells as a table: a line per row, a column per dataset and column of the study."""
    places = list(cells[["dataset", "column"]].drop_duplicates().itertuples(index=False, name=None))
    one_dataset, one_column = (cells[name].nunique() == 1 for name in ("dataset", "column"))
    known = {(cell["dataset"], cell["column"], cell["row"]): cell for cell in records(cells)}
    rows = cells[["row", "control"]].drop_duplicates("row").sort_values("control", kind="stable")
    models = cells[~cells.control & (cells.n > 0) & cells.column.isin(list(findings.study.columns))]
    counts = {place: {*n} for place, n in models.groupby(["dataset", "column"]).n}
    steps = steps_of(findings, cells)
    titles, groups = [], []
    for dataset, column in places:
        title = findings.study.shown.get(dataset, dataset)
        groups.append("" if one_dataset or one_column else title)
        titles.append(title if one_column and not one_dataset else unit_of(findings, column))
        if len(n := counts.get((dataset, column), ())) == 1:
            titles[-1] += f", n = {min(n)}"
    lines = []
    for row, control in rows.itertuples(index=False, name=None):
        of_row = [known.get((*place, row)) for place in places]
        texts = [
            cell_of(findings, cell, {cell["n"]} != counts.get(place)) if cell else Cell()
            for place, cell in zip(places, of_row)
        ]
        notes = dict.fromkeys(cell["note"] for cell in of_row if cell and cell["note"])
        told = len({*steps.values()}) > 1 and steps.get(row, row) not in row
        name = f"{row}: {steps[row]}" if told else row
        note = "; ".join(map(str, notes)) if findings.repeats_the_paper else ""
        lines.append(Line(name, texts, note, "Controls: no model" if control else ""))
    return Table("Pretraining", titles, lines, groups if any(groups) else ())


def steps_of(findings: Findings, cells: pd.DataFrame) -> dict[str, str]:
    """Map the rows of a table to the steps of their pretraining in words."""
    return {row: findings.trained[row] for row in cells.row if row in findings.trained}


def unit_of(findings: Findings, column: str) -> str:
    """Return a column's title, with its unit if it has shares."""
    evaluation = findings.study.columns.get(column)
    return f"{column} (%)" if evaluation and evaluation.metric in SHARES else column


def cell_of(findings: Findings, line: Mapping[str, Any], count: bool) -> Cell:
    """Return a cell of a table.

    Args:
        count: say of how many units it is.
    """
    place = line["dataset"], line["column"], line["row"]
    evaluated = line["column"] in findings.study.columns
    share = evaluated and findings.study.columns[line["column"]].metric in SHARES
    paper = f"{line['paper']:.1f}" if share else _rounded(line["paper"])
    small = [f"paper {paper}"] if line["paper"] > -1e9 else []
    if not evaluated and line["n"]:
        return Cell(_rounded(line["mean"]), small=tuple(small))
    small += [f"n = {line['n']}"] if count and line["n"] else []
    small += [f"{line['n']} of {line['wanted']} runs"] if line["status"] == "partial" else []
    if (fits := findings.fitted.get(place, 100)) < FITS:
        small.append(f"{fits:.1f} in training")
    if line["estimate"] is None:
        status = "" if line["status"] == "quoted" else line["status"]
        return Cell(status, small=tuple(small))
    cell = estimated(line["estimate"])
    if not share and not line["estimate"].has_interval:
        cell = cell._replace(text=_rounded(line["mean"]))
    # The head of the column says of how many units it is.
    few = not count and line["n"] < FEWEST
    interval = "" if few else cell.interval
    return cell._replace(
        interval=interval, small=tuple(small), run_ids=tuple(line["run_ids"].split())
    )


def _rounded(value: float) -> str:
    """Return a number that is no share, such as GFLOPs, a ratio or a count of videos."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def estimated(estimate: Estimate | None, strong: bool = False) -> Cell:
    """Return an estimate as a cell."""
    if estimate is None:
        return Cell("not run")
    # z: "0.0", never "-0.0".
    interval = f"[{estimate.low:z.1f}, {estimate.high:z.1f}]"
    unknown = f"({estimate.unknown})" if estimate.unknown else ""
    shown = interval if estimate.has_interval else unknown
    return Cell(f"{estimate.mean:z.1f}", shown, n=estimate.n, strong=strong)


def difference_table(
    findings: Findings, family: str, column: str, datasets: Sequence[str] = ()
) -> Table:
    """Return a family's differences: a column per dataset. Bold differs from 0."""
    table = compared(findings)
    table = table[(table.family == family) & (table.column == column)]
    if datasets:
        table = table[table.dataset.isin(datasets)]
    places = list(table.dataset.drop_duplicates())
    shown, known = findings.study.shown, {(d["says"], d["dataset"]): d for d in records(table)}
    counts = {place: {d["n"] for (_, at), d in known.items() if at == place} for place in places}
    ends = {at: f", n = {min(n)}" if len(n) == 1 else "" for at, n in counts.items()}
    titles = [f"{shown.get(at, at) if len(places) > 1 else column}{ends[at]}" for at in places]
    lines = []
    for says in table.says.drop_duplicates():
        of_row = [known.get((says, at)) for at in places]
        cells = [estimated(d["estimate"], d["holm"]) if d else Cell() for d in of_row]
        cells = [
            cell._replace(small=(f"n = {cell.n}",)) if cell.n and not ends[at] else cell
            for at, cell in zip(places, cells)
        ]
        lines.append(Line(says, cells))
    return Table("Difference (points)", titles, lines)


def prediction_table(findings: Findings, verdicts: Sequence[str]) -> Table:
    """Return what predictions with these verdicts came to, with the commits that wrote them."""
    first, shown, lines = findings.first_column, findings.study.shown, []
    for line in records(findings.predictions):
        if line["verdict"] not in verdicts:
            continue
        where = shown.get(line["dataset"], line["dataset"])
        where += f", {line['column']}" if line["column"] != first else ""
        for what in ("draws", "seeds"):
            where += f", {what} {line[what][0]} to {line[what][-1]}" if line[what] else ""
        found = estimated(line["estimate"])
        found = found._replace(small=(f"n = {found.n}",)) if found.n else found
        verdict = Cell(line["verdict"], small=(line["why"],) if line["why"] else ())
        commit = Cell(line["since"][:7] or "not committed")
        lines.append(Line(line["says"], [Cell(where), commit, found, verdict]))
    return Table("Predicted", ("Where", "Commit", "Found", "Verdict"), lines)


def claim_blocks(verdicts: pd.DataFrame) -> list[Block]:
    """Return the paper's claims, a line each, by verdict."""
    counts = verdicts.verdict.value_counts()
    words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    text = "Each claim of the paper's text, against the paper's own tables: "
    blocks: list[Block] = [
        Heading("Claims", key="claims"),
        Links(f"{text}{words}.", {"claims.csv": "claims.csv"}),
    ]
    for verdict, claims in verdicts.groupby("verdict", sort=False):
        lines = [f"{one['claim']} (tables: {one['quoted']})" for one in claims.to_dict("records")]
        blocks.append(Fold(f"{verdict}: {len(lines)}", [Lines(lines)]))
    return blocks


def chance_of(findings: Findings, dataset: str) -> tuple[float, str]:
    """Return the chance accuracy of a dataset (%), and its videos in words."""
    of_tests = findings.runs.column.isin(findings.study.tests)
    runs = findings.runs[findings.runs.value.notna() & of_tests]
    runs = runs[runs.dataset == dataset]
    results = [findings.statuses[run_id].result or {} for run_id in runs.run_id.unique()]
    data = {tuple(one["data"][key] for key in ("classes", "train", "test")) for one in results}
    if not data:
        return 0.0, ""
    classes, train, test = (sorted(set(values)) for values in zip(*data))
    chance = [one["metrics"]["chance"] for one in results if "chance" in one["metrics"]]
    value = float(np.mean(chance)) if chance else 100 / max(classes)
    text = f"{_span(classes)} classes, {_span(train)} training and {_span(test)} test videos"
    return value, f"{text}; chance {value:.1f} %."


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame of estimates, each with its `estimate`; None without a number."""
    rows: list[Any] = table.to_dict("records")
    return [row | {"estimate": estimate_of(row) if row["n"] else None} for row in rows]
