"""The registry of a scale: its runs, and the cells of tables and figures that they fill.

`mgm.study.suite` fills it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mgm.errors import UserError
from mgm.spec import (
    Finetune,
    Kinds,
    Measure,
    Pretrain,
    Probe,
    Spec,
    Visualise,
    metric_by_title,
    parents,
)
from mgm.study.runs import Value
from mgm.study.scales import R, Scale

# Metrics of a `measure controls` run, by the controls' titles.
CONTROL_ROWS = metric_by_title(
    "file_facts",
    "middle_frame",
    "frame_difference",
    "vector_mean",
    "vector_histogram",
    "vector_quadrants",
)
# The group of their rows.
NO_MODEL = "Controls: no model"
# Metrics that are shares of the test videos, as an axis names them.
SHARES = {
    **dict.fromkeys(("top1", *CONTROL_ROWS.values()), "Top-1 accuracy (%)"),
    "outside": "Share of predictions (%)",
}


@dataclass(frozen=True)
class Cell:
    """A cell of a table: the mean of a metric over `runs`, one run per seed.

    Without runs, the cell only quotes the paper.

    Attributes:
        metric: a field of the runs' result.json.
        remark: how this scale's runs differ from what the row's name says. It is shown after the
            name.
    """

    table: str
    row: str
    column: str
    runs: tuple[Finetune | Probe | Measure, ...] = ()
    metric: str = "top1"
    decimals: int = 1
    remark: str = ""


@dataclass
class Table:
    """A table of the paper, or one of ours.

    Attributes:
        note: what a reader must know before comparing its numbers.
        head: the heading of the column of row names.
        groups: the section of the table that a row or method belongs to.
        base: the row that gains are measured from.
        ours: the row that the other rows are compared with.
        own_jobs: its runs share no job with runs of other tables.
        rows_name_runs: the name of a row is enough to know its runs.
        shown: names of columns for readers.
        shows_notes: the notes of quoted.csv (backbone, data) are shown after the rows' names.
    """

    name: str
    title: str
    note: str
    cells: list[Cell] = field(default_factory=list)
    head: str = "Method"
    groups: dict[str, str] = field(default_factory=dict)
    base: str = ""
    ours: str = ""
    own_jobs: bool = False
    rows_name_runs: bool = False
    shown: dict[str, str] = field(default_factory=dict)
    shows_notes: bool = False

    @property
    def label(self) -> str:
        return label_of(f"table{self.name}")

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(cell.column for cell in self.cells))

    def add(self, row: str, column: str, *fields: Any, **more: Any) -> None:
        """Add a cell, with the further fields of `Cell`."""
        self.cells.append(Cell(self.name, row, column, *fields, **more))

    def cell(self, row: str, column: str) -> Cell:
        return next(cell for cell in self.cells if (cell.row, cell.column) == (row, column))


@dataclass(frozen=True)
class Plot:
    """A figure of table cells.

    Attributes:
        x, y: titles of the axes.
        lines: the (x, cell) pairs of each method.
        ticks: names of x = 0, 1, ... if x is not a number. Then no line joins the points.
        reference: a tick. If set, the figure draws every seed, and each other tick minus this one.
        shown: names of lines for readers.
    """

    title: str
    note: str
    x: str
    y: str
    lines: dict[str, tuple[tuple[float, Cell], ...]]
    ticks: tuple[str, ...] = ()
    reference: str = ""
    shown: dict[str, str] = field(default_factory=dict)

    @property
    def cells(self) -> list[Cell]:
        return [cell for line in self.lines.values() for _, cell in line]


@dataclass(frozen=True)
class Figure:
    """A figure that draws the arrays of a run; `mgm.report.figures.draw` draws it.

    Attributes:
        vector: the figure has curves and is shown as SVG. Otherwise it shows frames of clips.
        shows_masks: the figure shows every mask on one clip, which the page plays.
    """

    run: Visualise | Measure
    title: str
    note: str
    vector: bool = False
    shows_masks: bool = False


@dataclass
class Registry:
    """All tables, figures and runs of one scale, for the datasets that the scale lists.

    A run shared by several cells is one run.

    Attributes:
        specs: specs of the runs by run id, parents before children.
        plots: figures that draw cells of tables.
        figures: figures that draw the arrays of a run.
    """

    scale: Scale
    specs: dict[str, Spec] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    plots: dict[str, Plot] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    # The runs of a study in their order.
    values: list[Value] = field(default_factory=list)

    @property
    def kinds(self) -> Kinds:
        return self.scale.kinds

    @property
    def figure_names(self) -> list[str]:
        """Names of all figures in the paper's order; ours follow the figure they belong to."""
        return sorted([*self.plots, *self.figures], key=lambda name: name.replace("_", "~"))

    @property
    def controls(self) -> list[Measure]:
        """The runs that classify videos without a model."""
        every = self.specs.values()
        return [run for run in every if isinstance(run, Measure) and run.name == "controls"]

    @property
    def mask_clip(self) -> Visualise | Measure | None:
        """The run that draws every mask on one clip."""
        return next((figure.run for figure in self.figures.values() if figure.shows_masks), None)

    def add_table(self, name: str, title: str, note: str, **fields: Any) -> Table:
        """Add an empty table, with the further fields of `Table`."""
        return self.tables.setdefault(name, Table(name, title, note, **fields))

    def has(self, *datasets: str) -> bool:
        return set(datasets) <= set(self.scale.datasets)

    def seeds(self, target: str, stage: str = "") -> tuple[int, ...]:
        """Return the seeds of a table or figure, or of its runs of one stage."""
        more = self.scale.more_seeds
        return more.get(f"{target}.{stage}") or more.get(target, self.scale.seeds)

    def add_scaled(self, spec: R, seed: int) -> R:
        """Add a run of the paper, changed by this scale."""
        return self.add(self.scale.apply(spec, seed))

    def add(self, spec: R) -> R:
        """Add a run and return it, or return the equal run that is already there."""
        return self.specs.setdefault(spec.run_id, spec)  # type: ignore[arg-type, return-value]

    def targets(self) -> dict[str, list[Spec]]:
        """Return the targets, such as table4e and figure5, with the runs they show."""
        targets: dict[str, list[Spec]] = {"all": list(self.specs.values())}
        for name, table in self.tables.items():
            targets[f"table{name}"] = [run for cell in table.cells for run in cell.runs]
        for name, figure in self.figures.items():
            targets[f"figure{name}"] = [figure.run]
        for name, plot in self.plots.items():
            targets[f"figure{name}"] = [run for cell in plot.cells for run in cell.runs]
        return targets

    def runs_of(self, target: str) -> list[Spec]:
        """Return the runs that a target needs, parents first.

        Raises:
            UserError: there is no such target.
        """
        if target not in (targets := self.targets()):
            raise UserError(
                f"{target}: no such target at scale {self.scale.name}; choose one of "
                f"{', '.join(targets)}"
            )
        return self.with_parents(run.run_id for run in targets[target])

    def with_parents(self, run_ids: Iterable[str]) -> list[Spec]:
        """Return these runs and the runs that they start from, parents first."""
        wanted = set(run_ids)
        for run_id in reversed(self.specs):
            if run_id in wanted:
                wanted.update(parents(self.specs[run_id]))
        return [spec for run_id, spec in self.specs.items() if run_id in wanted]


def label_of(target: str) -> str:
    """Return the name of a table or figure for readers.

    "table4_edge" becomes "Table 4, edge". "tablemeasured", which has no number, becomes "Measured".
    """
    kind, name = re.fullmatch("(table|figure|)(.+)", target).groups()  # type: ignore[union-attr]
    return (
        f"{kind.capitalize()} {name.replace('_', ', ')}" if name[0].isdigit() else name.capitalize()
    )


def with_mask(run: Pretrain, **mask) -> Pretrain:
    """Return a pretraining run with other fields of its mask."""
    return run.model_copy(update={"mask": run.mask.model_copy(update=mask)})
