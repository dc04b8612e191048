"""Tables for readers: their layout, and their files in three formats.

csv is for programs, md and tex are for papers and show the scale's caveat.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import groupby
from pathlib import Path

import pandas as pd

from mgm.report.cells import COLUMNS, FilledCell, Key, filled_of, frame, gain
from mgm.report.words import DASH, MINUS, caveat_of, comparable, number, paper_note
from mgm.results import atomic
from mgm.results.statistics import holm, p_value
from mgm.spec import BACKBONES, Finetune, Pretrain, Probe, Spec
from mgm.spec.compute import multiply_adds
from mgm.study.quoted import note, reported
from mgm.study.registry import Cell, Registry, Table
from mgm.study.scales import Scale

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
    """Cells of one column and one group."""

    column: str
    group: str
    cells: tuple[FilledCell, ...]


@dataclass(frozen=True)
class TableView:
    """A table with its numbers, as readers see it."""

    table: Table
    cells: Sequence[FilledCell]
    scale: Scale

    @cached_property
    def head(self) -> list[str]:
        """Headings of the columns that name a row. The dataset has none: sections name it."""
        kinds = self.table.head.split(", ")
        return [kind[:1].upper() + kind[1:] for kind in kinds if kind != "dataset"]

    @cached_property
    def sections(self) -> list[Section]:
        """The cells by column, and each column by group, in the registry's order."""
        return [
            Section(column, group, tuple(cells))
            for column in self.table.columns
            for group, cells in groupby(
                (cell for cell in self.cells if cell.column == column),
                lambda cell: self.table.groups.get(names(self.table, cell)[0], ""),
            )
        ]

    @cached_property
    def leaders(self) -> list[FilledCell]:
        """The cells to print in bold: in each section, the cell above all others.

        Each difference, paired by seed, must pass Holm's method over the cell's comparisons. A
        section with a missing run, or with a single seed, has no bold cell.
        """
        best = []
        for section in self.sections:
            cells = [cell for cell in section.cells if cell.run_ids and cell.metric == "top1"]
            if len(cells) > 1 and all(cell.status == "run" for cell in cells):
                best += [cell for cell in cells if _is_above(cell, cells)]
        return best


def views_of(registry: Registry, cells: Mapping[Key, FilledCell]) -> dict[str, TableView]:
    """Return the tables of a registry with their numbers, by their names."""
    return {
        name: TableView(table, filled_of(table, cells), registry.scale)
        for name, table in registry.tables.items()
    }


def _is_above(cell: FilledCell, cells: Sequence[FilledCell]) -> bool:
    gains = [gain(cell, other) for other in cells if other is not cell]
    return all(difference is not None and difference.low > 0 for difference in gains) and all(
        holm([p_value(difference) for difference in gains if difference is not None])
    )


def names(table: Table, cell: Cell) -> list[str]:
    """Return the texts that name a cell's row, one per heading of `TableView.head`.

    "MGM, SSv2, 800" becomes MGM and 800. A backbone of another size than the paper's is a stand-in.
    """
    kinds = table.head.split(", ")
    parts = cell.row.rsplit(", ", len(kinds) - 1)
    stand_in = " stand-in" if own_size(cell.runs) else ""
    return [
        DASH if part == "-" else part + stand_in * (kind == "Backbone")
        for kind, part in zip(kinds, parts, strict=True)
        if kind != "dataset"
    ]


def detail(table: Table, cell: FilledCell) -> str:
    """Return the small print of a row: backbone and data from the paper, and our remark.

    A model of another size than the paper's is named in place of its backbone. "Supervised"
    is left out, because the section says it.
    """
    own = own_size(cell.runs)
    printed = (
        note(*cell.key).replace("supervised, ", "").removesuffix("; supervised")
        if table.shows_notes
        else ""
    )
    if own and (printed or table.head == "Backbone"):
        _, *others = printed.split("; ")
        printed = "; ".join([own, *others])
    return "; ".join(filter(None, (printed, cell.remark)))


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


def write_tables(folder: Path, view: TableView) -> Path:
    """Write `folder`/table4e.csv, .md and .tex, and return the path of the csv.

    The .tex needs the package booktabs.
    """
    table, scale = view.table, view.scale
    caption = " ".join(
        filter(None, (f"{table.label}. {table.title}. {table.note}", paper_note(scale)))
    )
    caption += f" {BOLD}" if view.leaders else ""
    caveat, stem = f"Scale {scale.name}. {caveat_of(scale)}", folder / f"table{table.name}"
    grid = _grid(view, _md, "**{}**", "**{}**")
    align = ("left", *["right"] * (grid.shape[1] - 2), "left")
    text = grid.to_markdown(index=False, disable_numparse=True, colalign=align)
    atomic.write(stem.with_suffix(".md"), f"{_md(caption)}\n\n{text}\n\n*{_md(caveat)}*\n")
    text = _grid(view, _tex, r"\addlinespace\emph{{{}}}", r"\textbf{{{}}}").to_latex(
        index=False, column_format="".join(side[0] for side in align)
    )
    atomic.write(
        stem.with_suffix(".tex"),
        LATEX.format(caption=_tex(caption), caveat=_tex(caveat), name=table.name, tabular=text),
    )
    return atomic.write(
        stem.with_suffix(".csv"),
        frame(view.cells)[list(COLUMNS)].round(4).to_csv(index=False, lineterminator="\n"),
    )


def _grid(view: TableView, text: Callable[[str], str], title: str, strong: str) -> pd.DataFrame:
    """Lay out a table: each section's title, then its rows.

    Args:
        text: escapes the text of a cell for the format.
        title: format string of a section's title.
        strong: format string of a bold number.
    """
    lines = []
    for section in view.sections:
        column = view.table.shown.get(section.column, section.column)
        named = f"{column}, {section.group.lower()}" if section.group else column
        lines.append({view.head[0]: title.format(text(named))})
        for cell in section.cells:
            line = {name: text(shown) for name, shown in _line(view, cell).items()}
            if cell in view.leaders:
                line["Ours"] = strong.format(line["Ours"])
            lines.append(line)
    return pd.DataFrame(lines, columns=list(lines[-1])).fillna("").rename(columns=text)


def _line(view: TableView, cell: FilledCell) -> dict[str, str]:
    """Map each heading to the text of a cell's row."""
    first, *others = names(view.table, cell)
    # The paper prints GFLOPs per view, once per row. They are those of its own model.
    gflops = None if own_size(cell.runs) else reported().get((cell.table, cell.row, "GFLOPs"))
    details = "; ".join(
        filter(None, (detail(view.table, cell), f"{gflops:.0f} GFLOPs" if gflops else ""))
    )
    line = dict(zip(view.head, [f"{first} ({details})" if details else first, *others]))
    if not view.scale.own_videos:
        line["Paper"] = number(cell.paper, decimals=cell.decimals)
    line |= {"Ours": _ours(cell), "95 % interval": DASH}
    if cell.estimate and cell.estimate.has_interval:
        ends = (number(end, decimals=cell.decimals) for end in cell.estimate[1:3])
        line["95 % interval"] = f"[{', '.join(ends)}]"
    if comparable(view.scale):
        line["Difference"] = number(cell.difference, sign=True, decimals=cell.decimals)
    # How many of the wanted runs are in the mean.
    done = cell.estimate.n if cell.estimate else 0
    line["Runs"] = f"{done} of {len(cell.run_ids)}" if cell.run_ids else DASH
    return line | {"Status": cell.status}


def _ours(cell: FilledCell) -> str:
    """Format our number, or the status if there is none.

    A partial mean and a single run are marked.
    """
    if cell.estimate is None:
        return DASH if cell.status == "quoted" else cell.status
    partial = "" if cell.status == "run" else cell.status
    single = "n = 1" if cell.estimate.n == 1 else ""
    remarks = ", ".join(filter(None, (partial, single)))
    mean = number(cell.estimate.mean, decimals=cell.decimals)
    return f"{mean} ({remarks})" if remarks else mean


def _md(text: str) -> str:
    return escape(text, quote=False).replace("|", "\\|")


def _tex(text: str) -> str:
    return text.translate(TEX)
