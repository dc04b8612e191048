"""Tables of cells: in the paper's layout, or with a line per row of a study.

A table is written as csv for programs, and as md and html for readers.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from mgm.files import write_text
from mgm.report.cells import printed, records

# A column of a paper's table that names our cell of the column before it, as DATASET/ROW/COLUMN.
OURS = ": ours"
# The whole part of a number that begins a text.
NUMBER = re.compile(r"([+\N{MINUS SIGN}]?[\d,]+)(?:\.\d+)?(?= |\N{NO-BREAK SPACE}|$)")
COLUMNS = ["mean", "low", "high", "n", "unit", "status", "run_ids", "commit"]
PLACE = ["dataset", "column", "row"]
NOT_RERUN, GUESSING = "not rerun", "Guessing the largest class"
SHARE, POINTS = "top-1 accuracy in %", "points of top-1 accuracy"


@dataclass(frozen=True)
class Table:
    """What readers see as text, what programs read, and how to read it.

    Attributes:
        controls: of a study's table. Its numbers are in `csv`.
    """

    shown: pd.DataFrame
    csv: pd.DataFrame
    note: str = ""
    controls: "Table | None" = None

    def html(self, title: str = "") -> Markup:
        """Return the table as HTML. All text is escaped."""
        parts = [typeset(head).rpartition(": ") for head in self.shown.columns]
        rows, cell = [], Markup("<{0} scope={1}>{2}</{0}>").format
        if any(group for group, _, _ in parts):
            groups = [(group, len([*own])) for group, own in groupby(part[0] for part in parts)]
            head = Markup('<th colspan={} scope="colgroup">{}</th>').format
            rows.append(
                [head(n, group) if group else Markup("<td></td>") * n for group, n in groups]
            )
        rows.append([cell("th", "col", name) for _, _, name in parts])
        first = self.shown.iloc[:, 0].map(typeset)
        columns = [_aligned(self.shown.iloc[:, n]) for n in range(len(parts))]
        body = [[cell("th", "row", text), *texts] for text, *texts in zip(first, *columns[1:])]
        made = [Markup("<tr>{}</tr>").format(Markup("").join(row)) for row in rows + body]
        return Markup(
            "<table><caption>{}</caption><thead>{}</thead><tbody>{}</tbody></table>"
        ).format(title, Markup("\n").join(made[: len(rows)]), Markup("\n").join(made[len(rows) :]))

    def markdown(self) -> str:
        """Return the note and the table, and the controls below."""
        cells = self.shown.map(_in_markdown)
        heads = [_in_markdown(head) for head in self.shown.columns]
        table = cells.to_markdown(index=False, headers=heads, disable_numparse=True)
        more = f"\n{self.controls.markdown()}" if self.controls else ""
        return f"{_in_markdown(self.note)}\n\n{table}\n{more}"

    def write(self, csv: Path, md: Path, caption: str) -> None:
        """Write the table for programs and for readers."""
        write_csv(self.csv, csv)
        write_text(md, f"{_in_markdown(caption)} {self.markdown()}")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame with four decimals. -inf and inf, which bound nothing, are empty."""
    rounded = frame.replace([-np.inf, np.inf], np.nan).round(4)
    write_text(path, rounded.to_csv(index=False, lineterminator="\n"))


def paper_table(key: str, cells: pd.DataFrame, differences: bool = False) -> Table:
    """Return a table in the paper's layout, with our number after each that is rerun.

    Args:
        key: of the paper's table.
        cells: of the study whose view the table is.
        differences: add ours minus the paper's.
    """
    table = printed(key)
    names = [str(name) for name in table if not str(name).endswith(OURS)]
    numbers = [name for name in names if name + OURS in table]
    found = cells.set_index(cells.dataset + "/" + cells.row + "/" + cells.column)
    ours = {name: found.reindex(table[name + OURS].to_numpy()) for name in numbers}
    every = pd.concat(ours.values())
    shown, parts = dict[str, list[str]](), list[pd.DataFrame]()
    for name in names:
        if name not in ours:
            shown[name] = table[name].tolist()
            continue
        values = pd.to_numeric(table[name], "coerce")
        texts = [
            text if cell else NOT_RERUN * bool(np.isfinite(value))
            for cell, value, text in zip(table[name + OURS], values, texts_of(ours[name]))
        ]
        # A group has one column of numbers. Without groups, each number is one of its own.
        group = name.rpartition(": ")[0] or name * (len(numbers) > 1)
        group += ": " * bool(group)
        shown[f"{group}Paper"] = table[name].tolist()
        shown[f"{group}Ours [95 %]{_counted(ours[name])}"] = texts
        if differences:
            minus = ours[name]["mean"].to_numpy(float) - values
            shown[f"{group}Ours minus paper"] = [signed(x) * bool(np.isfinite(x)) for x in minus]
        rows = ours[name].reindex(columns=COLUMNS).reset_index(drop=True)
        rows = table[names].assign(number=name).join(rows)
        parts.append(rows.fillna({"status": NOT_RERUN})[values.notna()])
    note = note_of(every)
    if len(guesses := every.dropna(subset="chance").drop_duplicates("dataset")):
        note += " Guessing the largest class: " + ", ".join(
            f"{chance:.1f} % ({title})" for title, chance in zip(guesses.title, guesses.chance)
        )
        note += "."
    return Table(pd.DataFrame(shown), pd.concat(parts, ignore_index=True), note)


@cache
def quotes(key: str) -> pd.DataFrame:
    """Return a line per number of a paper's table: its column's name, our cell, method and epochs.

    A method that is not rerun has no row. Its dataset and column are those of the others. Epochs
    of supervised methods are left out, since they are not of pretraining.
    """
    table, parts = printed(key), []
    # A line without numbers is the heading of those below it.
    above = table.iloc[:, 0].where((table.iloc[:, 1:] == "").all(axis=1)).ffill()
    for name in (str(head).removesuffix(OURS) for head in table if str(head).endswith(OURS)):
        cells = table[name + OURS].str.extract(
            r"^(?P<dataset>[^/]*)/(?P<row>.*)/(?P<column>[^/]*)$"
        )
        cells[["dataset", "column"]] = cells[["dataset", "column"]].bfill().ffill()
        epochs = table.get(f"{name.rpartition(': ')[0]}: Epochs", pd.Series("", table.index))
        # As in 800+150.
        parts_of = epochs.where(above != "Supervised", "").str.split("+", expand=True)
        total = parts_of.apply(pd.to_numeric, errors="coerce").sum(axis=1, min_count=1)
        paper = pd.to_numeric(table[name], "coerce")
        cells = cells.assign(name=name, line=table.iloc[:, 0], epochs=total, paper=paper)
        parts.append(cells[paper.notna()])
    return pd.concat(parts, ignore_index=True)


def study_table(
    cells: pd.DataFrame, turned: bool = False, gains: pd.DataFrame | None = None
) -> Table:
    """Return a table with a line per row of the study, or per dataset if it is turned.

    Guessing the largest class is its first row, where the runs know it. Controls have a table of
    their own.

    Args:
        gains: differences of the rows from one of them, which stand after their numbers.
    """
    models, controls = cells[~cells.control], cells[cells.control & (cells.n > 0) & (not turned)]
    if models.empty:
        models, controls = controls, models
    note, numbers = note_of(models), pd.concat([models, controls])[[*PLACE, *COLUMNS]]
    places, heads = _heads(models, percent=not turned)
    texts, known = dict[Any, str](), models[(models.metric == "top1") & models.chance.notna()]
    for *place, chance in known[[*PLACE[:2], "chance"]].to_numpy():
        texts[*place, GUESSING] = f"{chance:.1f}"
    rows, counts = [GUESSING] * bool(texts), [""] * (turned and bool(texts))
    rows += [*models.row.unique()]
    for _, own in models.groupby("row" if turned else PLACE[:2], sort=False):
        texts |= zip(own[PLACE].itertuples(index=False, name=None), _texts(own, gains))
        counts.append(_counted(own))
    columns: Any = [[texts.get((*place, row), "") for place in places] for row in rows]
    corner, lines, names = "Videos", heads, rows
    if not turned:
        corner, lines, names, columns = "Pretraining", rows, heads, zip(*columns)
    shown = pd.DataFrame(dict(enumerate([lines, *columns])), dtype=object)
    shown.columns = [corner, *map(add, names, counts)]
    if gains is not None and len(gains):
        base, quoted = gains["minus"].iloc[0], cells.groupby("row").paper.first().dropna()
        if len(quoted) > 1 and base in quoted and not turned:
            paper = {
                row: f"{value:.1f}" + f" ({signed(value - quoted[base])})" * (row != base)
                for row, value in quoted.items()
            }
            in_paper = [paper.get(row, "") for row in rows]
            shown.insert(1, "Paper", in_paper, allow_duplicates=True)
        ends = gains[[*PLACE, "minus", "mean", "low", "high", "n"]]
        numbers = numbers.merge(ends, "left", PLACE, suffixes=("", "_minus"))
        note += f" In brackets: minus {base}, over what both have."
    below = None
    if len(controls):
        below = study_table(controls.assign(control=False, chance=np.nan))
        below = replace(below, shown=below.shown.rename(columns={"Pretraining": "Control"}))
        below = replace(below, note=below.note.replace("Ours:", "Controls without a model:", 1))
    return Table(shown, numbers, note, below)


def _counted(cells: pd.DataFrame) -> str:
    """Return the count of units that most numbers of a column have, for its head."""
    number, _ = _usual(records(cells))
    return f", n = {number}" if number else ""


def _heads(cells: pd.DataFrame, percent: bool) -> tuple[list[tuple[str, str]], list[str]]:
    """Return each pair of dataset and column, and its name, as far as they differ."""
    several = [cells[name].nunique() > 1 for name in PLACE[:2]]
    places, heads = [], []
    names = ["dataset", "column", "title", "share"]
    for dataset, column, title, share in cells[names].drop_duplicates(PLACE[:2]).to_numpy():
        words = [title] * several[0] + [column] * (several[1] or not several[0])
        places.append((dataset, column))
        heads.append(": ".join(words) + " (%)" * (bool(share) and percent))
    return places, heads


def _texts(cells: pd.DataFrame, gains: pd.DataFrame | None) -> list[str]:
    """Return each number with its interval, or with its difference from another row and that."""
    if gains is None:
        return texts_of(cells)
    gains = gains.merge(cells[PLACE], "inner", PLACE)
    found = dict[tuple[str, ...], str]()
    for *place, mean, text in zip(*(gains[name] for name in (*PLACE, "mean")), texts_of(gains)):
        found[tuple(place)] = f" ({'+' * (mean >= 0.05)}{text})"
    places = cells[PLACE].itertuples(index=False, name=None)
    texts = zip(texts_of(cells.assign(low=-np.inf)), places)
    return [text + found.get(place, "") for text, place in texts]


def differences_table(differences: pd.DataFrame) -> Table:
    """Return a line per difference and dataset, with a column per column of the study."""
    keys = ["row", "minus", "dataset"]
    lines = differences.drop_duplicates(keys)
    places = [*lines[keys].itertuples(index=False, name=None)]
    shown = pd.DataFrame({"Difference": [f"{one} minus {other}" for one, other, _ in places]})
    if lines.dataset.nunique() > 1:
        shown["Videos"] = lines.title.tolist()
    for name, own in differences.groupby("column", sort=False):
        texts = dict(zip(own[keys].itertuples(index=False, name=None), texts_of(own)))
        head = f"{name}{' (points)' * bool(own.share.iloc[0])}{_counted(own)}"
        column = [texts.get(place, "") for place in places]
        shown.insert(shown.shape[1], head, column, allow_duplicates=True)
    return Table(shown, differences.drop(columns="title"), note_of(differences, POINTS))


def predictions_table(verdicts: pd.DataFrame) -> Table:
    """Return a line per prediction, with what was found and the verdict."""
    notes = verdicts.why.str.cat(verdicts.note, sep="; ").str.strip("; ")
    shown = pd.DataFrame(
        {
            # A phone shows the first three.
            "Prediction": verdicts.says,
            "Ours [95 %]": texts_of(verdicts, counted=False),
            "Verdict": verdicts.verdict + np.where(notes != "", " (" + notes + ")", ""),
            "Paper": verdicts.paper.map(signed).where(verdicts.paper.notna(), ""),
            "Videos": verdicts.title,
            "By": verdicts.column,
            "Over": _counts(verdicts),
            "Most against it (where)": verdicts.against,
        }
    )
    same = [name for name in ("Videos", "By", "Paper", "Over") if shown[name].nunique() == 1]
    counts = [f"{verdict}: {n}" for verdict, n in verdicts.verdict.value_counts().items()]
    note = f"{note_of(verdicts, POINTS)} Verdicts: {', '.join(counts)}."
    return Table(shown.drop(columns=same), verdicts, note)


def claims_table(claims: pd.DataFrame) -> Table:
    """Return a line per claim of the paper that has runs: its text, its own tables, and ours."""
    every, claims = claims, claims[claims.status == "finished"]
    paper = [
        signed(difference) + " (differs)" * (not agrees)
        for difference, agrees in zip(claims.paper, claims.agrees)
    ]
    # A second number of another table.
    minus = claims["minus"].str.replace("table(.*?)/(.*)/(.*)", r"\3 of Table \1, \2", regex=True)
    shown = pd.DataFrame(
        {
            "Claim": claims.quote + " (" + claims.place + ")",
            "Difference": claims.row + " minus " + minus,
            "Printed in": "Table " + claims.table.str[5:] + ", " + claims.column,
            "Text": claims.says,
            "Paper": paper,
            "Ours [95 %]": texts_of(claims, counted=False),
            "Over": _counts(claims),
        }
    )
    note = note_of(claims, POINTS)
    if waiting := int((every.status == "not run").sum()):
        note += f" {waiting} more claims have no finished runs (claims.csv)."
    if others := int((every.status == NOT_RERUN).sum()):
        agree = int(every.agrees[every.status == NOT_RERUN].sum())
        note += (
            f" {others} other claims are of numbers that are not rerun here; the paper's own "
            f"tables agree with {agree} of them (claims.csv)."
        )
    same = ["Over"] if shown.Over.nunique() == 1 else []
    return Table(shown.drop(columns=same), every, note)


def _counts(cells: pd.DataFrame) -> list[str]:
    """Return what each interval is over."""
    return [" ".join(_count(cell)).strip() * bool(cell["n"]) for cell in records(cells)]


def texts_of(cells: pd.DataFrame, counted: bool = True) -> list[str]:
    """Return each number of a column with its interval, or why there is none.

    If they are `counted`, a number has its own `n` if most of them have another.
    """
    known, texts = records(cells), list[str]()
    usual = _usual(known)
    for cell in known:
        status, (number, unit) = cell.get("status"), _count(cell)
        if not np.isfinite(cell["mean"]):
            texts.append(status if isinstance(status, str) else "not run")
            continue
        form = "{:z.1f}" if cell["share"] else "{:z.3g}"
        text = form.format(cell["mean"])
        if np.isfinite(cell["low"]):
            text += f" [{form.format(cell['low'])}, {form.format(cell['high'])}]"
        if counted and (number, unit) != usual:
            if unit != usual[1]:
                number += f" {unit}"
            text += f" (n = {number})"
        texts.append(text)
    return texts


def _count(cell: Mapping[Any, Any]) -> tuple[str, str]:
    """Return the number of units of a cell, of how many if some are missing, and their name."""
    number, unit = f"{cell['n']:,.0f}", cell["unit"]
    if cell.get("status") != "partial" or not cell["wanted"]:
        return number, unit
    # One run of several has no other unit.
    if unit == "test videos":
        return number, f"{unit}, 1 of {cell['wanted']:,.0f} runs"
    return f"{number} of {cell['wanted']:,.0f}", unit


def _usual(cells: Sequence[Mapping[Any, Any]]) -> tuple[str, str]:
    """Return the count of units that most numbers have; empty if there is no number."""
    counts = Counter(_count(cell) for cell in cells if cell["mean"] == cell["mean"])
    return counts.most_common(1)[0][0] if counts else ("", "")


def signed(difference: float) -> str:
    """Return a difference with its sign, and without one if it rounds to zero."""
    return "0.0" if abs(difference) < 0.05 else f"{difference:+.1f}"


def note_of(cells: pd.DataFrame, unit: str = SHARE) -> str:
    """Return the unit of a table's numbers, and over what its intervals are."""
    known = records(cells[cells["mean"].notna()])
    if not known:
        return "No run is finished."
    what = f"{unit}, " if all(cell["metric"] == "top1" for cell in known) else ""
    number, units = usual = _usual(known)
    over = f"{number} {units.removesuffix('s') if number == '1' else units}"
    others = {*map(_count, known)} != {usual}
    return f"Ours: {what}mean [95 % interval] over {over}{', or n as it stands' * others}."


def typeset(text: Any) -> str:
    """Return text with minus signs, and with numbers that no line breaks."""
    text = re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", str(text))
    text = re.sub(r"\bn = (?=\d)", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}", text)
    return re.sub(r"(?<=\d)(,?) (?=\[?[%\d\N{MINUS SIGN}])", "\\1\N{NO-BREAK SPACE}", text)


def _aligned(column: pd.Series) -> list[Markup]:
    """Return the cells of a column. Those with a number stand under one another, on one line."""
    texts = [*map(typeset, column)]
    numbers = [found[1] if (found := NUMBER.match(text)) else "" for text in texts]
    wide, made = max(map(len, numbers), default=0), []
    for text, number in zip(texts, numbers):
        if number and "(n\N{NO-BREAK SPACE}=" not in text:
            # A space as wide as a digit.
            text = "\N{FIGURE SPACE}" * (wide - len(number)) + text
            made.append(Markup('<td class="number">{}</td>').format(text))
        else:
            made.append(Markup("<td>{}</td>").format(text))
    return made


def _in_markdown(text: Any) -> str:
    """Return a text on one line, in which no sign is markup of a table, strike or superscript."""
    return re.sub(r"([\\|~^])", r"\\\1", " ".join(str(text).split()))
