"""Which runs there are, and which cell of which table or figure each fills.

`mgm.paper.suite` fills it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mgm.errors import UserError
from mgm.paper.scales import R, Scale
from mgm.spec import Finetune, Measure, Pretrain, Probe, Spec, Visualise, parents

CONTROL_ROWS = {  # row: the metric of a `measure controls` run
    "Motion-vector histogram": "vector_histogram",
    "Motion-vector histogram by quadrant": "vector_quadrants",
    "Mean motion vector": "vector_mean",
    "Mean frame difference, 12 x 12": "frame_difference",
    "Middle frame, 12 x 12": "middle_frame",
    "File facts": "file_facts",
}
# Metrics that are shares of the test videos, as an axis names them.
SHARES = {
    **dict.fromkeys(("top1", *CONTROL_ROWS.values()), "Top-1 accuracy (%)"),
    "outside": "Share of predictions (%)",
    "map": "mAP (%)",
}


@dataclass(frozen=True)
class Cell:
    """One cell of a table: the mean of a metric over `runs`, one per seed.

    Without runs, the cell only quotes the paper.
    """

    table: str
    row: str
    column: str
    runs: tuple[Finetune | Probe | Measure, ...] = ()
    metric: str = "top1"  # of result.json
    decimals: int = 1
    # Stands behind the row's name: how this scale's run differs from what the name says.
    remark: str = ""


@dataclass
class Table:
    name: str
    title: str
    note: str  # what a reader must know before comparing its numbers
    cells: list[Cell] = field(default_factory=list)
    head: str = "Method"  # of the column of row names
    # Method: the section of the table it stands in.
    groups: dict[str, str] = field(default_factory=dict)
    base: str = ""  # the row that the others' gains are measured from
    ours: str = ""  # the row that the others are compared with
    own_jobs: bool = False  # its runs share no job with others
    rows_name_runs: bool = False  # a row's name alone says what its runs are
    takes_weights: bool = False  # a user may give the weights of a row that is quoted
    shown: dict[str, str] = field(default_factory=dict)  # columns: names for readers
    # Show the notes of quoted.csv (backbone, data) with the names of the rows.
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
    """A figure of table cells: `lines` maps a method to its (x, cell) pairs."""

    title: str
    note: str
    x: str
    y: str
    lines: dict[str, tuple[tuple[float, Cell], ...]]
    # Names of x = 0, 1, ... if x is not a number. Then no line joins the points.
    ticks: tuple[str, ...] = ()
    # A tick. If set, the figure draws every seed, and each other tick minus this one.
    reference: str = ""

    @property
    def cells(self) -> list[Cell]:
        return [cell for line in self.lines.values() for _, cell in line]

    shown: dict[str, str] = field(default_factory=dict)  # lines: names for readers


@dataclass(frozen=True)
class Figure:
    """A figure that draws the arrays of a run; mgm.report.figures.draw draws it by its name."""

    run: Visualise | Measure
    title: str
    note: str
    vector: bool = False  # curves, to be shown as SVG; else pictures of clips
    shows_masks: bool = False  # on one clip, which the page plays


@dataclass
class Registry:
    """All tables, figures and runs of one scale, for the datasets that the scale lists.

    A run shared by several cells is one run.
    """

    scale: Scale
    specs: dict[str, Spec] = field(default_factory=dict)  # by run id, parents before children
    tables: dict[str, Table] = field(default_factory=dict)
    plots: dict[str, Plot] = field(default_factory=dict)  # figures that draw cells
    # Figures that draw the arrays of a run.
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def figure_names(self) -> list[str]:
        """Names of all figures as the paper counts them, our own after the one they belong to."""
        return sorted([*self.plots, *self.figures], key=lambda name: name.replace("_", "~"))

    @property
    def controls(self) -> list[Measure]:
        """The runs that classify videos without a model."""
        every = self.specs.values()
        return [run for run in every if isinstance(run, Measure) and run.name == "controls"]

    @property
    def mask_clip(self) -> Visualise | Measure | None:
        """The run whose arrays show every mask on one clip."""
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
        """Add a run of the paper as this scale changes it."""
        return self.add(self.scale.apply(spec, seed))

    def add(self, spec: R) -> R:
        """Add a run; the one there is, if there is an equal one."""
        return self.specs.setdefault(spec.run_id, spec)  # type: ignore[arg-type, return-value]

    def targets(self) -> dict[str, list[Spec]]:
        """What can be asked for, such as table4e or figure5, and the runs it shows."""
        found: dict[str, list[Spec]] = {"all": list(self.specs.values())}
        for name, table in self.tables.items():
            found[f"table{name}"] = [run for cell in table.cells for run in cell.runs]
        for name, figure in self.figures.items():
            found[f"figure{name}"] = [figure.run]
        for name, plot in self.plots.items():
            found[f"figure{name}"] = [run for cell in plot.cells for run in cell.runs]
        return found

    def runs_of(self, target: str) -> list[Spec]:
        """The runs that a target needs, parents first."""
        if target not in (targets := self.targets()):
            raise UserError(
                f"{target}: no such target at scale {self.scale.name}; choose one of "
                f"{', '.join(targets)}"
            )
        return self.with_parents(run.run_id for run in targets[target])

    def with_parents(self, run_ids: Iterable[str]) -> list[Spec]:
        """These runs and all they start from, parents first."""
        wanted = set(run_ids)
        for run_id in reversed(self.specs):
            if run_id in wanted:
                wanted.update(parents(self.specs[run_id]))
        return [spec for run_id, spec in self.specs.items() if run_id in wanted]


def label_of(target: str) -> str:
    """Return the name that a reader sees.

    "Table 4, edge" of table4_edge; "Measured" of tablemeasured, which the paper does not number.
    """
    kind, name = re.fullmatch("(table|figure|)(.+)", target).groups()  # type: ignore[union-attr]
    return (
        f"{kind.capitalize()} {name.replace('_', ', ')}" if name[0].isdigit() else name.capitalize()
    )


def with_mask(run: Pretrain, **mask) -> Pretrain:
    """Change fields of a run's mask."""
    return run.model_copy(update={"mask": run.mask.model_copy(update=mask)})
