"""Tables of what studies found: csv for programs, md and tex for papers."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.report.blocks import Text, caveat_of, seen, table_of
from mgm.report.findings import Findings
from mgm.report.markdown import markdown, plain
from mgm.results import atomic

# A text that a spreadsheet would compute. Numbers are none.
COMPUTED = re.compile(r"[=+@\t\r-](?!\d*\.?\d+$)")
# The frames of `Findings` that are written as csv.
FRAMES = ("cells", "differences", "predictions", "values")
TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
LATEX = r"""\begin{{table}}
\centering\footnotesize\setlength{{\tabcolsep}}{{3pt}}
\caption{{{caption}}}
{tabular}\end{{table}}
"""


def write_table(findings: Findings, name: str, folder: Path) -> Path:
    """Write `folder`/NAME.csv, .md and .tex, such as table4e.csv, and return the path of the csv.

    The .tex needs the package booktabs.
    """
    part, stem = findings.study.shown_views[name], folder / name
    caveats = [block.text for block in caveat_of(findings) if isinstance(block, Text)]
    caption = " ".join(filter(None, (f"{part.title or name}.", part.note, *caveats)))
    table = table_of(findings, seen(findings, name))
    atomic.write(stem.with_suffix(".md"), f"{plain(caption)}\n\n{markdown(table)}\n")
    rows = [[line.name, *(cell.words for cell in line.cells)] for line in table.lines]
    heads = pd.Index([table.head, *table.columns])
    if table.groups:
        heads = pd.MultiIndex.from_arrays([["", *table.groups], heads])
    style = pd.DataFrame(rows, columns=range(len(heads))).set_axis(heads, axis=1).style
    style = style.hide(axis="index").format(escape="latex")
    style.format_index(escape="latex", axis="columns")
    tabular = style.to_latex(hrules=True, multicol_align="c")
    text = LATEX.format(caption=caption.translate(TEX), tabular=tabular)
    atomic.write(stem.with_suffix(".tex"), text)
    return _csv(findings.csv(name), stem.with_suffix(".csv"))


def write_frames(findings: Mapping[str, Findings], folder: Path) -> None:
    """Write the frames of all studies as csv files, with the study's name in the first column."""
    for name in FRAMES:
        frames = [
            table.assign(study=study)
            for study, found in findings.items()
            if len(table := getattr(found, name))
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
