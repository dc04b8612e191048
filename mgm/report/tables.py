"""A table in four formats: csv for programs, md and tex for papers, html for pages; each but the csv carries its scale's promise."""

import csv
import io
from html import escape
from pathlib import Path

from mgm.experiments.registry import Table
from mgm.experiments.scales import Scale
from mgm.report import atomic
from mgm.report.collect import COLUMNS, Row

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
HEADINGS = ("Method", "Tested on", "Paper", "Ours", "95 % interval", "Difference", "Runs", "Status")


def write_tables(folder: Path, table: Table, rows: list[Row], scale: Scale) -> Path:
    """`folder`/table4e.csv, .md, .tex and .html; returns the csv."""
    caption = f"Table {table.name}. {table.title}. {table.note}"
    promise = f"Scale {scale.name}. {promise_of(scale)}"
    stem = folder / f"table{table.name}"
    atomic.write(stem.with_suffix(".md"), _markdown(rows, caption, promise))
    atomic.write(stem.with_suffix(".tex"), _latex(table, rows, caption, promise))
    atomic.write(stem.with_suffix(".html"), _html(rows, caption, promise))
    return atomic.write(stem.with_suffix(".csv"), _csv(rows))


def promise_of(scale: Scale) -> str:
    """The scale's promise as a sentence to follow its name, which it may begin with."""
    text = scale.promise.strip()
    if text.lower().startswith(f"{scale.name} scale: ".lower()):
        text = text.split(": ", 1)[1]
    return text[:1].upper() + text[1:]


def number(value: float | None, sign: bool = False) -> str:
    """One decimal, as the paper prints; a true minus; a dash where there is no number."""
    if value is None:
        return DASH
    return f"{value:{'+' if sign else ''}.1f}".replace("-", MINUS)


def interval(row: Row) -> str:
    if row.estimate is None or row.estimate.low is None:
        return DASH
    return f"[{number(row.estimate.low)}, {number(row.estimate.high)}]"


def runs(row: Row) -> str:
    """How many of the wanted runs are in the number."""
    return f"{row.estimate.n if row.estimate else 0} of {len(row.run_ids)}"


def ours(row: Row) -> str:
    """Our number, or in its place why there is none; a mean over some of the seeds says so."""
    if row.estimate is None:
        return row.status
    return number(row.estimate.mean) + (f" ({row.status})" if row.status != "run" else "")


def _cells(row: Row) -> list[str]:
    return [row.row, row.column, number(row.paper), ours(row), interval(row), number(row.difference, sign=True), runs(row), row.status]


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        estimate = row.estimate
        numbers = [row.paper, *((estimate.mean, row.difference, estimate.low, estimate.high) if estimate else (None,) * 4)]
        n = estimate.n if estimate else 0
        rounded = ["" if value is None else round(value, 4) for value in numbers]
        writer.writerow([row.row, row.column, *rounded, n, row.status, " ".join(row.run_ids), row.commit])
    return text.getvalue()


def _markdown(rows: list[Row], caption: str, promise: str) -> str:
    lines = [HEADINGS, ["---", "---", *["---:"] * 5, "---"], *map(_cells, rows)]
    grid = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"{caption}\n\n{grid}\n\n*{promise}*\n"


def _latex(table: Table, rows: list[Row], caption: str, promise: str) -> str:
    """Needs booktabs."""
    body = "\n".join(" & ".join(map(_tex, _cells(row))) + r" \\" for row in rows)
    return rf"""\begin{{table}}
\centering\small
\caption{{{_tex(caption)} \emph{{{_tex(promise)}}}}}
\label{{tab:{table.name}}}
\begin{{tabular}}{{llrrrrrl}}
\toprule
{" & ".join(map(_tex, HEADINGS))} \\
\midrule
{body}
\bottomrule
\end{{tabular}}
\end{{table}}
"""


TEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    MINUS: "$-$",
    DASH: "--",
    "→": r"$\rightarrow$",
}


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)


def _html(rows: list[Row], caption: str, promise: str) -> str:
    """A fragment: no style, for a page that has its own."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in HEADINGS)
    body = "\n".join(
        f'<tr data-status="{escape(row.status)}"><th scope="row">{escape(row.row)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(row)[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<table>\n<caption>{escape(caption)} <em>{escape(promise)}</em></caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
    )
