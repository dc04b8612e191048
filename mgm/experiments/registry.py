"""Which runs fill which cell. The workflow, the tables, the figures and the compute plan all derive from this."""

from dataclasses import dataclass, field

from mgm.errors import UserError
from mgm.experiments import recipes
from mgm.experiments.scales import OWN, Scale
from mgm.spec import Finetune, MaskName, Pretrain, Probe, Spec, Visualise, parents


@dataclass(frozen=True)
class Cell:
    """One cell of a table: the mean top-1 of `runs` (one per seed), beside the paper's number if it prints one."""

    table: str
    row: str
    column: str
    runs: tuple[Finetune | Probe, ...]


@dataclass
class Table:
    name: str
    title: str
    note: str  # what a reader must know before comparing its numbers
    cells: list[Cell] = field(default_factory=list)

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(cell.column for cell in self.cells))


class Registry:
    """All tables, figures and runs of one scale. A run shared by several cells is one run."""

    def __init__(self, scale: Scale):
        self.scale = scale
        self.specs: dict[str, Spec] = {}  # by run id, parents before children
        self.tables: dict[str, Table] = {}
        self.figures: dict[str, tuple[Visualise, ...]] = {}
        table_4e(self)
        figure_5(self)

    def add(self, spec, seed: int):
        """`spec` as this scale runs it; known from now on."""
        spec = self.scale.apply(spec, seed)
        return self.specs.setdefault(spec.run_id, spec)

    def runs_of(self, target: str) -> list[Spec]:
        """The runs that `table4e`, `figure5` or `all` needs, parents first."""
        if target == "all":
            return list(self.specs.values())
        leaves: dict[str, list[Spec]] = {
            f"table{name}": [run for cell in table.cells for run in cell.runs] for name, table in self.tables.items()
        }
        leaves |= {f"figure{name}": list(runs) for name, runs in self.figures.items()}
        if target not in leaves:
            raise UserError(f"{target}: no such target at scale {self.scale.name}; choose one of {', '.join(['all', *leaves])}")
        wanted = {spec.run_id for spec in leaves[target]}
        for run_id in reversed(self.specs):
            if run_id in wanted:
                wanted.update(parents(self.specs[run_id]))
        return [spec for run_id, spec in self.specs.items() if run_id in wanted]


MASK_ROWS: dict[str, MaskName] = {  # rows of Table 4e in the paper's order
    "Random Block": "block",
    "SMM (Sparse)": "smm-sparse",
    "Random Tube": "tube",
    "MGM (Sparse)": "mgm-sparse",
    "SMM (Dense)": "smm",
    "MGM (Dense)": "mgm",
}


def table_4e(registry: Registry) -> None:
    """The mask grid: 200 epochs on SSv2 (P 4.5), or on a user's own videos."""
    scale = registry.scale
    dataset, column = (OWN, "own videos") if scale.own_videos else ("ssv2", "SSv2")
    table = Table(
        "4e",
        "Mask types: trajectory by spatial continuity",
        "Tube hides 90 % of the patches, every other mask 75 % (VideoMAE's and the paper's values). "
        "The linear probe and the row without pretraining are ours: the paper reports neither here.",
    )

    def row(name: str, pretrained: list[Pretrain] | None) -> None:
        finetuned, probed = [], []
        for position, seed in enumerate(scale.seeds):
            parent = pretrained[position] if pretrained else None
            parent_id, model = (parent.run_id, parent.model) if parent else ("", recipes.Model())
            finetuned.append(registry.add(recipes.finetune(dataset, parent_id, model), seed))
            probed.append(registry.add(recipes.probe(dataset, parent_id, model), seed))
        table.cells.append(Cell(table.name, name, column, tuple(finetuned)))
        table.cells.append(Cell(table.name, name, f"{column}, linear probe", tuple(probed)))

    row("No pretraining", None)
    for name, mask in MASK_ROWS.items():
        row(name, [registry.add(recipes.pretrain(dataset, mask), seed) for seed in scale.seeds])
    registry.tables[table.name] = table


def figure_5(registry: Registry) -> None:
    """Every mask on one clip (P Figure 5)."""
    dataset = OWN if registry.scale.own_videos else "ssv2"
    like = recipes.pretrain(dataset)
    spec = Visualise(data=like.data, clips=like.clips.model_copy(update={"crop": "centre"}), model=like.model)
    registry.figures["5"] = (registry.add(spec, registry.scale.seeds[0]),)
