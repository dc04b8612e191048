"""Tables of what studies found: csv for programs, md and tex for papers, from one frame each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.report.findings import Findings, estimate_of, in_words
from mgm.results import atomic

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


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame of estimates, each with its `estimate`; None without a number."""
    rows: list[Any] = table.to_dict("records")
    return [row | {"estimate": estimate_of(row) if row["n"] else None} for row in rows]


def groups(table: pd.DataFrame, *names: str) -> list[tuple[Any, pd.DataFrame]]:
    """Return the parts of a frame that share the fields `names`, in the frame's order."""
    return list(table.groupby([*names], sort=False))


def laid_out(findings: Findings, cells: pd.DataFrame) -> pd.DataFrame:
    """Return the texts of a table: a line per row, a column per dataset and column of the study.

    The paper's numbers stand beside ours where there are any.
    """
    titles = findings.study.shown
    one_dataset, one_column = (cells[name].nunique() == 1 for name in ("dataset", "column"))
    texts: dict[str, dict[str, str]] = {}
    for (dataset, column), block in groups(cells, "dataset", "column"):
        title = titles.get(dataset, dataset)
        title = column if one_dataset else title if one_column else f"{title}: {column}"
        lines = records(block)
        if block.paper.notna().any():
            texts[f"{title}, paper"] = {
                line["row"]: f"{line['paper']:.1f}" for line in lines if line["paper"] > -1e9
            }
        texts[title] = {line["row"]: text_of(line) for line in lines}
        places = {line["row"]: (dataset, column, line["row"]) for line in lines}
        fits = {at: f"{value:.1f}" for at, value in findings.fitted.items()}
        for what, of_place in (("training clips", fits), ("chosen", findings.chosen)):
            if of_row := {row: of_place[at] for row, at in places.items() if at in of_place}:
                texts[f"{title}, {what}"] = of_row
    table = pd.DataFrame(texts, index=cells.row.unique()).fillna("")
    return table.rename_axis("Pretraining").reset_index()


def seen(findings: Findings, name: str) -> pd.DataFrame:
    """Return the cells of a table that readers see.

    A control that is the same for all videos, such as their duration, is not measured.
    """
    cells = findings.table(name)
    return cells[~cells.control | (cells.n > 0)]


def compared(findings: Findings) -> pd.DataFrame:
    """Return the differences that readers see: a difference of single runs shows nothing."""
    return findings.differences[findings.differences.n > 1]


def text_of(line: Mapping[str, Any]) -> str:
    """Return the text of a cell: its number with the interval, or its status."""
    if line["estimate"] is None:
        return "" if line["status"] == "quoted" else str(line["status"])
    partial = f" ({line['status']})" if line["status"] == "partial" else ""
    return in_words(line["estimate"]) + partial


def markdown(table: pd.DataFrame) -> str:
    """Return a frame of texts as a Markdown table."""
    escaped = table.map(lambda text: str(text).replace("|", "\\|"))
    return str(escaped.to_markdown(index=False, disable_numparse=True))


def write_table(findings: Findings, name: str, folder: Path) -> Path:
    """Write `folder`/table4e.csv, .md and .tex, and return the path of the csv.

    The .tex needs the package booktabs.
    """
    part, cells = findings.study.parts[name], seen(findings, name)
    caption = " ".join(filter(None, (f"{part.title}.", part.note, findings.study.caveat)))
    stem, table = folder / f"table{name}", laid_out(findings, cells)
    atomic.write(stem.with_suffix(".md"), f"{caption}\n\n{markdown(table)}\n")
    tabular = table.style.hide(axis="index").format(escape="latex")
    tabular.format_index(escape="latex", axis="columns")
    text = LATEX.format(caption=caption.translate(TEX), tabular=tabular.to_latex(hrules=True))
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
            table = pd.concat(frames, ignore_index=True)
            _csv(table[["study", *table.columns.drop("study")]], folder / f"{name}.csv")


def _csv(table: pd.DataFrame, path: Path) -> Path:
    return atomic.write(path, table.round(4).to_csv(index=False, lineterminator="\n"))
