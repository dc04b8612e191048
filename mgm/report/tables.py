"""Tables of cells: in the paper's layout, or with a line per row of a study.

A table is written as csv for programs, and as md, tex and html for readers.
"""

import re
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
TEX = {"\N{CHECK MARK}": r"\checkmark", "\N{RIGHTWARDS ARROW}": r"$\to$"}


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
        """Write `stem`.csv, .md and .tex (for booktabs and amssymb)."""
        text = f"{caption} {self.note}".strip()
        cells = self.shown.map(_in_markdown)
        heads = [_in_markdown(head) for head in self.shown.columns]
        table = cells.to_markdown(index=False, headers=heads, disable_numparse=True)
        write_text(stem.with_suffix(".md"), f"{_in_markdown(text)}\n\n{table}\n")
        style = self.shown.style.hide(axis="index").format(escape="latex")
        style = style.format_index(escape="latex", axis="columns")
        caption = re.sub(r"([&%$#_{}])", r"\\\1", " ".join(text.split()))
        tex = style.to_latex(caption=caption, hrules=True, position_float="centering")
        for sign, command in TEX.items():
            tex = tex.replace(sign, command)
        write_text(stem.with_suffix(".tex"), tex)
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


def study_table(cells: pd.DataFrame, turned: bool = False) -> Table:
    """Return a table with a line per row of the study, or per dataset if it is turned.

    Controls that no row loses to stand below the rows, the others above.
    """
    models, controls = cells[~cells.control], cells[cells.control & (cells.n > 0) & (not turned)]
    lowest = models.groupby(["dataset", "column"])["mean"].min().rename("lowest")
    beats = controls["mean"] > controls.join(lowest, on=["dataset", "column"]).lowest
    is_above = controls.row.isin(controls.row[beats])
    controls = controls.assign(row="Control: " + controls.row)
    ordered = pd.concat([controls[is_above], models, controls[~is_above]])
    place = ordered[["dataset", "column"]].drop_duplicates().to_numpy().tolist()
    several = [ordered[name].nunique() > 1 for name in ("dataset", "column")]
    heads = []
    for dataset, column in place:
        one = ordered[(ordered.dataset == dataset) & (ordered.column == column)].iloc[0]
        words = [one.title] * several[0] + [column] * (several[1] or not several[0])
        heads.append(": ".join(words) + " (%)" * (bool(one.share) and not turned))
    texts = ordered.assign(text=texts_of(ordered, models))
    shown = texts.pivot(index="row", columns=["dataset", "column"], values="text").fillna("")
    shown = shown.loc[ordered.row.unique(), [tuple(one) for one in place]].set_axis(heads, axis=1)
    shown = (shown.T if turned else shown).rename_axis(None, axis="columns")
    shown = shown.rename_axis("Videos" if turned else "Pretraining").reset_index()
    note = note_of(models)
    if len(controls):
        note += " Controls use no model. Those above the rows beat at least one of them."
    return Table(shown, ordered[["dataset", "row", "column", *COLUMNS]], note)


def differences_table(differences: pd.DataFrame) -> Table:
    """Return a line per difference and dataset, with a column per column of the study."""
    table = differences.assign(
        Difference=differences.row + " minus " + differences["minus"],
        text=texts_of(differences),
        head=differences.column + np.where(differences.share, " (points)", ""),
    )
    keys = ["Difference", "dataset", "title"]
    order = table[keys].drop_duplicates()
    shown = table.pivot_table("text", keys, "head", aggfunc="first", sort=False).reset_index()
    shown = order.merge(shown).fillna("").drop(columns="dataset")
    shown = shown.rename(columns={"title": "Videos"})
    if table.title.nunique() == 1:
        shown = shown.drop(columns="Videos")
    return Table(shown, differences.drop(columns="title"), note_of(differences, POINTS))


def predictions_table(verdicts: pd.DataFrame) -> Table:
    """Return a line per prediction, with what was found and the verdict."""
    notes = verdicts.why.str.cat(verdicts.note, sep="; ").str.strip("; ")
    shown = pd.DataFrame(
        {
            "Prediction": verdicts.says,
            "Videos": verdicts.title,
            "Found [95 %]": texts_of(verdicts),
            "Verdict": verdicts.verdict + np.where(notes != "", " (" + notes + ")", ""),
            "Contradicts most": verdicts.against,
            "By": verdicts.column,
        }
    )
    same = [name for name in ("Videos", "By") if shown[name].nunique() == 1]
    counts = [f"{verdict}: {n}" for verdict, n in verdicts.verdict.value_counts().items()]
    note = f"{note_of(verdicts, POINTS)} Verdicts: {', '.join(counts)}."
    return Table(shown.drop(columns=same), verdicts, note)


def claims_table(claims: pd.DataFrame) -> Table:
    """Return a line per claim of the paper: its text, its own tables, and ours."""
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
    return Table(shown, claims, note_of(claims, POINTS))


def texts_of(cells: pd.DataFrame, among: pd.DataFrame | None = None) -> list[str]:
    """Return each number with its interval, or why there is none.

    Args:
        among: cells of the same table. If their `n` differ, each number has its own.
    """
    counted = bool(one_count(cells if among is None else among))
    return [_text_of(cell, counted) for cell in cells.to_dict("records")]


def _text_of(cell: Mapping[Any, Any], counted: bool) -> str:
    status = cell.get("status")
    if not np.isfinite(cell["mean"]):
        return status if isinstance(status, str) else "not run"
    form = "{:z.1f}" if cell["share"] else "{:z.3g}"
    text = form.format(cell["mean"])
    if np.isfinite(cell["low"]):
        text += f" [{form.format(cell['low'])}, {form.format(cell['high'])}]"
    if status == "partial":
        done = 1 if cell["unit"] == "test videos" else cell["n"]
        return f"{text} (n = {done:,.0f} of {cell['wanted']:,.0f})"
    return text if counted else f"{text} (n = {cell['n']:,.0f})"


def signed(difference: float) -> str:
    """Return a difference with its sign, and without one if it rounds to zero."""
    return "0.0" if abs(difference) < 0.05 else f"{difference:+.1f}"


def one_count(cells: pd.DataFrame) -> str:
    """Return the number of units of all numbers, such as "16 datasets"; empty if they differ."""
    known = cells[cells["mean"].notna()]
    counts = {
        (n, unit.removesuffix("s") if n == 1 else unit) for n, unit in zip(known.n, known.unit)
    }
    return "{:,.0f} {}".format(*counts.pop()) if len(counts) == 1 else ""


def note_of(cells: pd.DataFrame, unit: str = SHARE) -> str:
    """Return the unit of a table's numbers, and over what its intervals are."""
    known = cells[cells["mean"].notna()]
    if known.empty:
        return "No run is finished."
    what = f"{unit}, " if (known.metric == "top1").all() else ""
    over = one_count(cells)
    over = f" over {over}." if over else f" (n = {' or '.join(dict.fromkeys(known.unit))})."
    return f"Ours: {what}mean [95 % interval]{over}"


def _typeset(text: Any) -> str:
    """Return text with minus signs, and with numbers that no line breaks."""
    text = re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", str(text))
    return re.sub(r"(?<=\d)(,?) (?=\[?[%\d\N{MINUS SIGN}])", "\\1\N{NO-BREAK SPACE}", text)


def _in_markdown(text: Any) -> str:
    """Return a text on one line that ends no cell."""
    return " ".join(str(text).split()).replace("|", r"\|")
