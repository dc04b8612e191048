"""Table files in four formats: csv for programs, md and tex for papers, html for pages.

All formats except csv show the scale's caveat.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

import pandas as pd

from mgm.paper.quoted import note, reported
from mgm.paper.registry import Cell, Table
from mgm.paper.scales import Scale
from mgm.report.cells import COLUMNS, FilledCell, frame, gain
from mgm.results import atomic
from mgm.results.statistics import holm, p_value
from mgm.spec import BACKBONES, Finetune, Pretrain, Probe, Spec
from mgm.spec.compute import multiply_adds

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
BOLD = (
    "Bold: significantly above every other row with a model. Differences are paired by seed. "
    "Holm's method keeps the chance of a false difference among a row's comparisons at 5 %. "
    "Intervals are not adjusted."
)
TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {MINUS: "$-$", DASH: "--", "→": r"$\rightarrow$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}"}
)
LATEX = r"""\begin{{table}}
\centering\footnotesize\setlength{{\tabcolsep}}{{3pt}}
\caption{{{caption} \emph{{{caveat}}}}}
\label{{tab:{name}}}
{tabular}\end{{table}}
"""


@dataclass(frozen=True)
class Section:
    """Rows of one column and one group, with a title above them."""

    column: str
    group: str
    rows: tuple[FilledCell, ...]
    shown: str = ""

    @property
    def title(self) -> str:
        column = self.shown or self.column
        return f"{column}, {self.group.lower()}" if self.group else column


def write_tables(folder: Path, table: Table, rows: list[FilledCell], scale: Scale) -> Path:
    """Write `folder`/table4e.csv, .md, .tex and .html, and return the path of the csv.

    The .tex needs the package booktabs. The .html is a fragment without style.
    """
    caption = " ".join(
        filter(None, (f"{table.label}. {table.title}. {table.note}", paper_note(scale)))
    )
    caption += f" {BOLD}" if leaders(table, rows) else ""
    caveat, stem = f"Scale {scale.name}. {caveat_of(scale)}", folder / f"table{table.name}"
    grid = _grid(table, rows, scale, _md, "**{}**", "**{}**")
    align = ("left", *["right"] * (grid.shape[1] - 2), "left")
    text = grid.to_markdown(index=False, disable_numparse=True, colalign=align)
    atomic.write(stem.with_suffix(".md"), f"{_md(caption)}\n\n{text}\n\n*{_md(caveat)}*\n")
    text = _grid(table, rows, scale, _tex, r"\addlinespace\emph{{{}}}", r"\textbf{{{}}}").to_latex(
        index=False, column_format="".join(side[0] for side in align)
    )
    atomic.write(
        stem.with_suffix(".tex"),
        LATEX.format(caption=_tex(caption), caveat=_tex(caveat), name=table.name, tabular=text),
    )
    style = _grid(table, rows, scale, escape, "<em>{}</em>", "<strong>{}</strong>").style.hide(
        axis="index"
    )
    text = style.set_caption(f"{escape(caption)} <em>{escape(caveat)}</em>").to_html(
        exclude_styles=True
    )
    atomic.write(stem.with_suffix(".html"), text)
    return atomic.write(
        stem.with_suffix(".csv"),
        frame(rows)[list(COLUMNS)].round(4).to_csv(index=False, lineterminator="\n"),
    )


def caveat_of(scale: Scale) -> str:
    """Return the scale's caveat without the scale's name at its start.

    A scale's caveat is about its own datasets, and not about a user's videos.
    """
    if scale.own_videos:
        return "Small models on your own videos. The order of the masks may differ for larger ones."
    text = scale.caveat.strip()
    if text.lower().startswith(f"{scale.name} scale: ".lower()):
        text = text.split(": ", 1)[1]
    return text[:1].upper() + text[1:]


def comparable(scale: Scale) -> bool:
    """Return whether our numbers may be compared with the paper's."""
    return scale.name == "paper" and not scale.own_videos


def paper_note(scale: Scale) -> str:
    """Return a note on the paper's numbers for scales that do not repeat its experiments."""
    if scale.own_videos:
        return "Own videos: the paper has no numbers for them."
    if not comparable(scale):
        return (
            f"Scale {scale.name} does not repeat the paper's experiments: the paper's numbers are "
            "for orientation only."
        )
    return ""


def sections(table: Table, rows: list[FilledCell]) -> list[Section]:
    """Split a table by column, and each column by group, in the registry's order."""
    return [
        Section(column, group, tuple(several), table.shown.get(column, ""))
        for column in table.columns
        for group, several in groupby(
            (row for row in rows if row.column == column),
            lambda row: table.groups.get(names(table, row)[0], ""),
        )
    ]


def leaders(table: Table, rows: list[FilledCell]) -> list[FilledCell]:
    """Return the rows to print in bold: in each section, the row above all others.

    Each difference, paired by seed, must pass Holm's method over the row's comparisons. A section
    with a missing run, or with a single seed, has no bold row.
    """
    best = []
    for section in sections(table, rows):
        run = [row for row in section.rows if row.run_ids and row.metric == "top1"]
        if len(run) > 1 and all(row.status == "run" for row in run):
            best += [row for row in run if _is_above(row, [one for one in run if one is not row])]
    return best


def _is_above(row: FilledCell, others: Sequence[FilledCell]) -> bool:
    gains = [gain(row, other) for other in others]
    return all(one is not None and one.low > 0 for one in gains) and all(
        holm([p_value(one) for one in gains if one is not None])
    )


def names(table: Table, row: FilledCell | Cell) -> list[str]:
    """Return the cells that name a row, one per heading of `head_of`.

    The dataset is left out, because the section names it: "MGM, SSv2, 800" becomes MGM and 800. A
    backbone of another size than the paper's is a stand-in.
    """
    kinds = table.head.split(", ")
    parts = row.row.rsplit(", ", len(kinds) - 1)
    stand_in = " stand-in" if own_size(row.runs) else ""
    return [
        DASH if part == "-" else part + stand_in * (kind == "Backbone")
        for kind, part in zip(kinds, parts, strict=True)
        if kind != "dataset"
    ]


def head_of(table: Table) -> list[str]:
    return [kind[:1].upper() + kind[1:] for kind in table.head.split(", ") if kind != "dataset"]


def detail(table: Table, row: FilledCell) -> str:
    """Return the small print of a row: backbone and data from the paper, and our remark.

    A model of another size than the paper's is named in place of its backbone. "Supervised"
    is left out, because the section says it.
    """
    own = own_size(row.runs)
    printed = (
        note(*row.key).replace("supervised, ", "").removesuffix("; supervised")
        if table.shows_notes
        else ""
    )
    if own and (printed or table.head == "Backbone"):
        _, *others = printed.split("; ")
        printed = "; ".join([own, *others])
    return "; ".join(filter(None, (printed, row.remark)))


def own_size(runs: Sequence[Spec]) -> str:
    """Return the size of the runs' model if it is not one of the paper's; else empty."""
    run = next((run for run in runs if isinstance(run, (Pretrain, Finetune, Probe))), None)
    if run is None:
        return ""
    model = run.model
    sizes = (model.width, model.depth, model.heads)
    if model.backbone in BACKBONES and sizes == BACKBONES[model.backbone][0]:
        return ""
    blocks = f"{model.depth} blocks, width {model.width}"
    return f"{blocks}; {multiply_adds(run) / 1e9:.2g} GFLOPs"


def number(value: float | None, sign: bool = False, decimals: int = 1) -> str:
    """Format a number with a true minus sign and never as −0.0; None is a dash."""
    if value is None:
        return DASH
    return f"{value:{'+' if sign else ''}z,.{decimals}f}".replace("-", MINUS)


def interval(row: FilledCell) -> str:
    if not (row.estimate and row.estimate.has_interval):
        return DASH
    return (
        f"[{number(row.estimate.low, decimals=row.decimals)}, "
        f"{number(row.estimate.high, decimals=row.decimals)}]"
    )


def runs(row: FilledCell) -> str:
    """Format how many of the wanted runs are in the mean."""
    return f"{row.estimate.n if row.estimate else 0} of {len(row.run_ids)}" if row.run_ids else DASH


def ours(row: FilledCell) -> str:
    """Format our number, or the status if there is none.

    A partial mean and a single run are marked.
    """
    if row.estimate is None:
        return DASH if row.status == "quoted" else row.status
    remarks = [row.status] * (row.status != "run") + ["n = 1"] * (row.estimate.n == 1)
    return number(row.estimate.mean, decimals=row.decimals) + (
        f" ({', '.join(remarks)})" if remarks else ""
    )


def _grid(
    table: Table,
    rows: list[FilledCell],
    scale: Scale,
    text: Callable[[str], str],
    title: str,
    strong: str,
) -> pd.DataFrame:
    """Lay out a table: each section's title, then its rows.

    Args:
        text: escapes the text of a cell for the format.
        title: format string of a section's title.
        strong: format string of a bold number.
    """
    best, lines = leaders(table, rows), []
    for section in sections(table, rows):
        cells = [
            {name: text(cell) for name, cell in _cells(table, row, scale).items()}
            for row in section.rows
        ]
        for row, line in zip(section.rows, cells, strict=True):
            line["Ours"] = strong.format(line["Ours"]) if row in best else line["Ours"]
        lines += [{head_of(table)[0]: title.format(text(section.title))}, *cells]
    return pd.DataFrame(lines, columns=list(cells[0])).fillna("").rename(columns=text)


def _cells(table: Table, row: FilledCell, scale: Scale) -> dict[str, str]:
    """Map each heading to the row's text."""
    first, *others = names(table, row)
    # The paper prints GFLOPs per view, once per row. They are those of its own model.
    gflops = None if own_size(row.runs) else reported().get((row.table, row.row, "GFLOPs"))
    details = "; ".join(
        filter(None, (detail(table, row), f"{gflops:.0f} GFLOPs" if gflops else ""))
    )
    cells = dict(
        zip(head_of(table), [f"{first} ({details})" if details else first, *others], strict=True)
    )
    if not scale.own_videos:
        cells["Paper"] = number(row.paper, decimals=row.decimals)
    cells |= {"Ours": ours(row), "95 % interval": interval(row)}
    if comparable(scale):
        cells["Difference"] = number(row.difference, sign=True, decimals=row.decimals)
    return cells | {"Runs": runs(row), "Status": row.status}


def _md(text: str) -> str:
    return escape(text, quote=False).replace("|", "\\|")


def _tex(text: str) -> str:
    return text.translate(TEX)
