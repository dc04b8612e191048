"""Which runs there are, and which cell of which table or figure each fills. The workflow and the report derive from it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mgm.errors import UserError
from mgm.experiments.scales import Scale
from mgm.spec import Finetune, Measure, Pretrain, Probe, Spec, Visualise, parents


@dataclass(frozen=True)
class Cell:
    """One cell of a table: the mean of a metric over `runs` (one per seed), beside the paper's number if it prints one.

    Without runs, the cell only quotes the paper.
    """

    table: str
    row: str
    column: str
    runs: tuple[Finetune | Probe | Measure, ...]
    metric: str = "top1"  # of result.json
    decimals: int = 1
    remark: str = ""  # stands behind the row's name: how this scale's run differs from what the name says


@dataclass
class Table:
    name: str
    title: str
    note: str  # what a reader must know before comparing its numbers
    cells: list[Cell] = field(default_factory=list)
    head: str = "Method"  # of the column of row names

    @property
    def label(self) -> str:
        """As a reader sees it: "Table 4e"."""
        return "Measured" if self.name == "measured" else f"Table {self.name.replace('_', ', ')}"

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(cell.column for cell in self.cells))

    def cell(self, row: str, column: str) -> Cell:
        return next(cell for cell in self.cells if (cell.row, cell.column) == (row, column))


@dataclass(frozen=True)
class Plot:
    """A figure that draws table cells: each line or point is a method's (x, cell) pairs."""

    name: str
    title: str
    note: str
    x: str
    y: str
    lines: dict[str, tuple[tuple[float, Cell], ...]]
    ticks: tuple[str, ...] = ()  # names of x = 0, 1, ... where it is no number: then points are not joined


class Registry:
    """All tables, figures and runs of one scale: those whose datasets the scale lists. A run shared by several cells is one run."""

    def __init__(self, scale: Scale):
        from mgm.experiments import figures, tables  # they describe themselves in this module's terms

        self.scale = scale
        self.specs: dict[str, Spec] = {}  # by run id, parents before children
        self.tables: dict[str, Table] = {}
        self.plots: dict[str, Plot] = {}  # figures that draw cells
        self.figures: dict[str, Visualise | Measure] = {}  # figures that draw the arrays of a run
        for make in (*tables.ALL, *figures.ALL):
            make(self)
        if unknown := scale.weights.keys() - {cell.row for table in self.tables.values() for cell in table.cells if table.name == "1"}:
            raise UserError(
                f"weights: {min(unknown)!r} is not a row of Table 1 at scale {scale.name}; write it as there, such as 'MAM2, SSv2, 1200'"
            )
        if unknown := set(scale.more_seeds) - set(self.targets()):
            raise UserError(
                f"scale {scale.name}: more_seeds.{min(unknown)} is not a table or figure; choose from {', '.join(self.targets())}"
            )

    def has(self, *datasets: str) -> bool:
        return set(datasets) <= set(self.scale.datasets)

    def seeds(self, target: str) -> tuple[int, ...]:
        return self.scale.more_seeds.get(target, self.scale.seeds)

    def add(self, spec, seed: int):
        """`spec` as this scale runs it; known from now on."""
        return self.keep(self.scale.apply(spec, seed))

    def keep(self, spec):
        """`spec` as it is; known from now on."""
        return self.specs.setdefault(spec.run_id, spec)

    def targets(self) -> dict[str, list[Spec]]:
        """What can be asked for, such as table4e or figure5, and the runs it shows."""
        found: dict[str, list[Spec]] = {"all": list(self.specs.values())}
        for name, table in self.tables.items():
            found[f"table{name}"] = [run for cell in table.cells for run in cell.runs]
        for name, run in self.figures.items():
            found[f"figure{name}"] = [run]
        for name, plot in self.plots.items():
            found[f"figure{name}"] = [run for line in plot.lines.values() for _, cell in line for run in cell.runs]
        return found

    def runs_of(self, target: str) -> list[Spec]:
        """The runs that a target needs, parents first."""
        if target not in (targets := self.targets()):
            raise UserError(f"{target}: no such target at scale {self.scale.name}; choose one of {', '.join(targets)}")
        return self.with_parents(run.run_id for run in targets[target])

    def with_parents(self, run_ids: Iterable[str]) -> list[Spec]:
        """These runs and all they start from, parents first."""
        wanted = set(run_ids)
        for run_id in reversed(self.specs):
            if run_id in wanted:
                wanted.update(parents(self.specs[run_id]))
        return [spec for run_id, spec in self.specs.items() if run_id in wanted]


def changed(run: Pretrain, **mask) -> Pretrain:
    """`run` under another mask."""
    return run.model_copy(update={"mask": run.mask.model_copy(update=mask)})
