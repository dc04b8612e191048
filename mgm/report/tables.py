"""Tables of cells: in the paper's layout, or with a line per row of a study.

A table is written as csv for programs, and as md and html for readers.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgm.files import write_text

# A column of a paper's table that names our cell of the column before it, as DATASET/ROW/COLUMN.
OURS = ": ours"
COLUMNS = ["mean", "low", "high", "n", "unit", "status", "run_ids", "commit"]
NOT_RERUN = "not rerun"
SHARE, POINTS = "top-1 accuracy in %", "points of top-1 accuracy"


@dataclass(frozen=True)
class Table:
    """What readers see as text, what programs read, and how to read it."""

    shown: pd.DataFrame
    csv: pd.DataFrame
    note: str = ""

    def html(self) -> str:
        """Return the table as HTML. All text is escaped."""
        made = self.shown.map(_typeset)
        made.columns = pd.Index([_typeset(head) for head in made.columns])
        if made.columns.str.contains(": ").any():
            parts = [head.rpartition(": ") for head in made.columns]
            made.columns = pd.MultiIndex.from_tuples([(group, name) for group, _, name in parts])
        with pd.option_context("display.max_colwidth", None):
            return made.to_html(index=False, border=0, justify="inherit")

    def write(self, stem: Path, caption: str) -> None:
        """Write `stem`.csv and .md."""
        text = f"{caption} {self.note}".strip()
        cells = self.shown.map(_in_markdown)
        heads = [_in_markdown(head) for head in self.shown.columns]
        table = cells.to_markdown(index=False, headers=heads, disable_numparse=True)
        write_text(stem.with_suffix(".md"), f"{_in_markdown(text)}\n\n{table}\n")
        write_csv(self.csv, stem.with_suffix(".csv"))


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame with four decimals. -inf and inf, which bound nothing, are empty."""
    rounded = frame.replace([-np.inf, np.inf], np.nan).round(4)
    write_text(path, rounded.to_csv(index=False, lineterminator="\n"))


def paper_table(printed: pd.DataFrame, cells: pd.DataFrame, differences: bool = False) -> Table:
    """Return a table in the paper's layout, with our number after each that is rerun.

    Args:
        printed: as `mgm.report.cells.printed` returns it.
        cells: of the study whose view the table is.
        differences: add ours minus the paper's.
    """
    names = [str(name) for name in printed if not str(name).endswith(OURS)]
    numbers = [name for name in names if name + OURS in printed]
    found = cells.set_index(cells.dataset + "/" + cells.row + "/" + cells.column)
    ours = {name: found.reindex(printed[name + OURS].to_numpy()) for name in numbers}
    every = pd.concat(ours.values())
    shown, parts = dict[str, list[str]](), list[pd.DataFrame]()
    for name in names:
        shown[name] = printed[name].tolist()
        if name not in ours:
            continue
        values = pd.to_numeric(printed[name], "coerce")
        texts = [
            text if key else NOT_RERUN * bool(np.isfinite(value))
            for key, value, text in zip(printed[name + OURS], values, texts_of(ours[name], every))
        ]
        group = name.rpartition(": ")[0]
        before = f"{group}: " if group else f"{name}, " * (len(numbers) > 1)
        shown[f"{before}{'ours' if before else 'Ours'} [95 %]"] = texts
        if differences:
            minus = ours[name]["mean"].to_numpy(float) - values
            shown[f"{before}ours minus paper"] = [signed(x) * bool(np.isfinite(x)) for x in minus]
        rows = ours[name].reindex(columns=COLUMNS).reset_index(drop=True)
        rows = printed[names].assign(number=name).join(rows)
        parts.append(rows.fillna({"status": NOT_RERUN})[values.notna()])
    return Table(pd.DataFrame(shown), pd.concat(parts, ignore_index=True), note_of(every))


def quotes(printed: pd.DataFrame) -> pd.DataFrame:
    """Return a line per number of a paper's table: its cell, method, epochs and value.

    A method that is not rerun has no row. Its dataset and column are those of the others. Epochs
    of supervised methods are left out, since they are not of pretraining.
    """
    parts = []
    # A line without numbers is the heading of those below it.
    head = printed.iloc[:, 0].where((printed.iloc[:, 1:] == "").all(axis=1)).ffill()
    for name in (str(key).removesuffix(OURS) for key in printed if str(key).endswith(OURS)):
        cells = printed[name + OURS].str.extract(
            r"^(?P<dataset>[^/]*)/(?P<row>.*)/(?P<column>[^/]*)$"
        )
        cells[["dataset", "column"]] = cells[["dataset", "column"]].bfill().ffill()
        epochs = printed.get(f"{name.rpartition(': ')[0]}: Epochs", pd.Series("", printed.index))
        # As in 800+150.
        parts_of = epochs.where(head != "Supervised", "").str.split("+", expand=True)
        total = parts_of.apply(pd.to_numeric, errors="coerce").sum(axis=1, min_count=1)
        paper = pd.to_numeric(printed[name], "coerce")
        cells = cells.assign(line=printed.iloc[:, 0], epochs=total, paper=paper)
        parts.append(cells[paper.notna()])
    return pd.concat(parts, ignore_index=True)


def study_table(
    cells: pd.DataFrame, turned: bool = False, gains: pd.DataFrame | None = None
) -> Table:
    """Return a table with a line per row of the study, or per dataset if it is turned.

    Controls that no row loses to stand below the rows, the others above.

    Args:
        gains: differences of the rows from one of them, which stand after their numbers.
    """
    models, controls = cells[~cells.control], cells[cells.control & (cells.n > 0) & (not turned)]
    lowest = models.groupby(["dataset", "column"])["mean"].min().rename("lowest")
    beats = controls["mean"] > controls.join(lowest, on=["dataset", "column"]).lowest
    is_above = controls.row.isin(controls.row[beats])
    ordered = pd.concat([controls[is_above], models, controls[~is_above]])
    words = _gains(ordered, gains) if gains is not None else texts_of(ordered, models)
    place = ["dataset", "column"]
    texts = dict(zip(ordered[[*place, "row"]].itertuples(index=False, name=None), words))
    rows = {
        row: "Control: " * bool(control) + row for row, control in zip(ordered.row, ordered.control)
    }
    heads = _heads(ordered, percent=not turned)
    table = [[texts.get((*at, row), "") for row in rows] for at in heads]
    shown = pd.DataFrame(table, columns=[*rows.values()])
    shown.insert(0, "Videos", [*heads.values()], allow_duplicates=True)
    if not turned:
        shown = shown.iloc[:, 1:].T.set_axis([*heads.values()], axis=1)
        shown.insert(0, "Pretraining", shown.index, allow_duplicates=True)
    quotes = dict[Any, float]()
    if gains is not None and len(gains):
        quotes = cells.groupby("row").paper.first().dropna().to_dict()
    if gains is not None and len(quotes) > 1 and (base := gains["minus"].iloc[0]) in quotes:
        quoted = [
            f"{quotes[row]:.1f}" + f" ({signed(quotes[row] - quotes[base])})" * (row != base)
            if row in quotes
            else ""
            for row in rows
        ]
        shown.insert(1, "Paper", quoted, allow_duplicates=True)
    note = note_of(models)
    if len(controls):
        note += " Controls use no model. Those above the rows beat at least one of them."
    numbers = ordered[["dataset", "row", "column", *COLUMNS]]
    if gains is not None and len(gains):
        own = gains[["dataset", "row", "column", "minus", "mean", "low", "high", "n"]]
        numbers = numbers.merge(own, "left", ["dataset", "row", "column"], suffixes=("", "_minus"))
        note += f" In brackets: minus {gains['minus'].iloc[0]}, over what both have."
    return Table(shown.reset_index(drop=True), numbers, note)


def _heads(cells: pd.DataFrame, percent: bool) -> dict[tuple[str, str], str]:
    """Return the name of each pair of dataset and column, as far as they differ."""
    several = [cells[name].nunique() > 1 for name in ("dataset", "column")]
    heads = dict[tuple[str, str], str]()
    names = ["dataset", "column", "title", "share"]
    for dataset, column, title, share in cells[names].drop_duplicates(names[:2]).to_numpy():
        words = [title] * several[0] + [column] * (several[1] or not several[0])
        heads[dataset, column] = ": ".join(words) + " (%)" * (bool(share) and percent)
    return heads


def _gains(cells: pd.DataFrame, gains: pd.DataFrame) -> list[str]:
    """Return each number without its interval, and its difference from another row with it."""
    place = ["dataset", "column", "row"]
    words = texts_of(gains, gains)
    found = {
        at: f"{'+' * (mean >= 0.05)}{text}"
        for at, mean, text in zip(gains[place].itertuples(index=False), gains["mean"], words)
    }
    texts = zip(texts_of(cells.assign(low=-np.inf)), cells[place].itertuples(index=False))
    return [text + (f" ({found[at]})" if at in found else "") for text, at in texts]


def differences_table(differences: pd.DataFrame) -> Table:
    """Return a line per difference and dataset, with a column per column of the study."""
    keys = ["row", "minus", "dataset"]
    lines = differences.drop_duplicates(keys)
    texts = dict(
        zip(
            differences[[*keys, "column"]].itertuples(index=False, name=None),
            texts_of(differences),
        )
    )
    places = [*lines[keys].itertuples(index=False, name=None)]
    shown = pd.DataFrame({"Difference": [f"{one} minus {other}" for one, other, _ in places]})
    if lines.dataset.nunique() > 1:
        shown["Videos"] = lines.title.tolist()
    own = differences.drop_duplicates("column")
    for name, share in zip(own.column.tolist(), own.share.tolist()):
        head = name + " (points)" * bool(share)
        column = [texts.get((*place, name), "") for place in places]
        shown.insert(shown.shape[1], head, column, allow_duplicates=True)
    return Table(shown, differences.drop(columns="title"), note_of(differences, POINTS))


def predictions_table(verdicts: pd.DataFrame) -> Table:
    """Return a line per prediction, with what was found and the verdict."""
    notes = verdicts.why.str.cat(verdicts.note, sep="; ").str.strip("; ")
    shown = pd.DataFrame(
        {
            "Prediction": verdicts.says,
            "Paper": verdicts.paper.map(signed).where(verdicts.paper.notna(), ""),
            "Videos": verdicts.title,
            "Found [95 %]": texts_of(verdicts),
            "Verdict": verdicts.verdict + np.where(notes != "", " (" + notes + ")", ""),
            "Contradicts most": verdicts.against,
            "By": verdicts.column,
        }
    )
    same = [name for name in ("Videos", "By", "Paper") if shown[name].nunique() == 1]
    counts = [f"{verdict}: {n}" for verdict, n in verdicts.verdict.value_counts().items()]
    note = f"{note_of(verdicts, POINTS)} Verdicts: {', '.join(counts)}."
    return Table(shown.drop(columns=same), verdicts, note)


def claims_table(claims: pd.DataFrame) -> Table:
    """Return a line per claim of the paper that is rerun: its text, its own tables, and ours."""
    every, claims = claims, claims[claims.status != NOT_RERUN]
    agrees = np.where(claims.agrees, "", " (differs)")
    # A second number of another table.
    minus = claims["minus"].str.replace("table(.*?)/(.*)/(.*)", r"\3 of Table \1, \2", regex=True)
    shown = pd.DataFrame(
        {
            "Claim": claims.quote + " (" + claims.place + ")",
            "Difference": claims.row + " minus " + minus,
            "Printed in": "Table " + claims.table.str[5:] + ", " + claims.column,
            "Text": claims.says,
            "Its tables": claims.paper.map(signed) + agrees,
            "Ours [95 %]": texts_of(claims),
        }
    )
    note = note_of(claims, POINTS)
    if others := len(every) - len(claims):
        agree = int(every.agrees[every.status == NOT_RERUN].sum())
        note += (
            f" {others} other claims are of numbers that are not rerun here; the paper's own "
            f"tables agree with {agree} of them (claims.csv)."
        )
    return Table(shown, every, note)


def texts_of(cells: pd.DataFrame, among: pd.DataFrame | None = None) -> list[str]:
    """Return each number with its interval, or why there is none.

    Args:
        among: cells of the same table. A number has its own `n` if most of them have another.
    """
    usual = usual_count(cells if among is None else among)
    return [_text_of(cell, usual) for cell in cells.to_dict("records")]


def _text_of(cell: Mapping[Any, Any], usual: tuple[Any, ...]) -> str:
    status = cell.get("status")
    if not np.isfinite(cell["mean"]):
        return status if isinstance(status, str) else "not run"
    form = "{:z.1f}" if cell["share"] else "{:z.3g}"
    text = form.format(cell["mean"])
    if np.isfinite(cell["low"]):
        text += f" [{form.format(cell['low'])}, {form.format(cell['high'])}]"
    n, wanted, unit = own = _count(cell)
    if own == usual:
        return text
    if wanted and unit == "test videos":
        return f"{text} (n = 1 of {wanted:,.0f}, over {n:,.0f} test videos)"
    of = f" of {wanted:,.0f}" if wanted else ""
    return f"{text} (n = {n:,.0f}{of}{f' {unit}' if unit != usual[2] else ''})"


def _count(cell: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Return the number of units of a cell, of how many if some are missing, and their name."""
    return cell["n"], cell["wanted"] if cell.get("status") == "partial" else 0, cell["unit"]


def usual_count(cells: pd.DataFrame) -> tuple[Any, ...]:
    """Return the count of units that most numbers have."""
    counts = Counter(map(_count, cells[cells["mean"].notna()].to_dict("records")))
    return counts.most_common(1)[0][0] if counts else (0, 0, "")


def signed(difference: float) -> str:
    """Return a difference with its sign, and without one if it rounds to zero."""
    return "0.0" if abs(difference) < 0.05 else f"{difference:+.1f}"


def note_of(cells: pd.DataFrame, unit: str = SHARE) -> str:
    """Return the unit of a table's numbers, and over what its intervals are."""
    known = cells[cells["mean"].notna()]
    if known.empty:
        return "No run is finished."
    what = f"{unit}, " if (known.metric == "top1").all() else ""
    n, wanted, units = usual = usual_count(cells)
    units = units.removesuffix("s") if n == 1 and not wanted else units
    over = f"{n:,.0f}{f' of {wanted:,.0f}' if wanted else ''} {units}"
    others = {*map(_count, known.to_dict("records"))} != {usual}
    return f"Ours: {what}mean [95 % interval] over {over}{', or n as it stands' * others}."


def _typeset(text: Any) -> str:
    """Return text with minus signs, and with numbers that no line breaks."""
    text = re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", str(text))
    return re.sub(r"(?<=\d)(,?) (?=\[?[%\d\N{MINUS SIGN}])", "\\1\N{NO-BREAK SPACE}", text)


def _in_markdown(text: Any) -> str:
    """Return a text on one line that ends no cell."""
    return " ".join(str(text).split()).replace("|", r"\|")
