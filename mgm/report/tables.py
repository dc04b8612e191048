"""Tables of what studies found: csv for programs, md and tex for papers."""

import re
from collections.abc import Mapping
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.report.estimates import StudyResults, selected
from mgm.report.markdown import markdown, plain
from mgm.report.page import Shown, caveat_of
from mgm.results import atomic
from mgm.study.schema import View

# A text that a spreadsheet would compute. Numbers are none.
COMPUTED = re.compile(r"[=+@\t\r-](?!\d*\.?\d+$)")
# The frames of `StudyResults` that are written as csv.
FRAMES = ("cells", "differences", "predictions", "values")
# The columns of a table's csv.
COLUMNS = (
    *("dataset", "row", "column", "paper", "ours", "difference", "ci_low", "ci_high", "n"),
    *("status", "run_ids", "commit"),
)
TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
LATEX = r"""\begin{{table}}
\centering\footnotesize\setlength{{\tabcolsep}}{{3pt}}
\caption{{{caption}}}
{tabular}\end{{table}}
"""


def write_table(found: StudyResults, shown: Shown, folder: Path) -> Path:
    """Write `folder`/NAME.csv, .md and .tex, such as table4e.csv, and return the path of the csv.

    The .tex needs the package booktabs.
    """
    view, stem = found.study.shown_views[shown.name], folder / shown.name
    caption = " ".join(filter(None, (f"{view.title or shown.name}.", view.note, caveat_of(found))))
    assert shown.table is not None
    atomic.write(stem.with_suffix(".md"), f"{plain(caption)}\n\n{markdown(shown.table)}\n")
    style = shown.table.map(str).reset_index(names=shown.table.columns.name or "").style
    style = style.hide(axis="index").format(escape="latex")
    style.format_index(escape="latex", axis="columns")
    tabular = style.to_latex(hrules=True, multicol_align="c")
    text = LATEX.format(caption=caption.translate(TEX), tabular=tabular)
    atomic.write(stem.with_suffix(".tex"), text)
    return _csv(csv_of(found, view), stem.with_suffix(".csv"))


def csv_of(found: StudyResults, view: View) -> pd.DataFrame:
    """Return a table with the columns of its csv."""
    table = selected(found, view)
    table = table.rename(columns={"mean": "ours", "low": "ci_low", "high": "ci_high"})
    table = table.assign(difference=table.ours - table.paper)[list(COLUMNS)]
    return table.replace([-inf, inf], nan).round(4)


def write_frames(found: Mapping[str, StudyResults], folder: Path) -> None:
    """Write the frames of all studies as csv files, with the study's name in the first column."""
    for name in FRAMES:
        frames = [
            table.assign(study=study)
            for study, one in found.items()
            if len(table := getattr(one, name))
        ]
        if frames:
            table = pd.concat(frames, ignore_index=True).drop(columns="values", errors="ignore")
            _csv(table[["study", *table.columns.drop("study")]], folder / f"{name}.csv")


def _csv(table: pd.DataFrame, path: Path) -> Path:
    table = table.round(4).map(_inert)
    return atomic.write(path, table.to_csv(index=False, lineterminator="\n"))


def _inert(value: Any) -> Any:
    """Return a cell that no spreadsheet computes: an apostrophe marks a text."""
    return f"'{value}" if isinstance(value, str) and COMPUTED.match(value) else value
