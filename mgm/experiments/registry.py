"""Which runs fill which cell. The workflow, the tables, the figures and the compute plan all derive from this."""

from dataclasses import dataclass, field

from mgm.errors import UserError
from mgm.experiments import recipes
from mgm.experiments.scales import OWN, Scale
from mgm.spec import Finetune, MaskName, Pretrain, Probe, Spec, Visualise, parents


@dataclass(frozen=True)
class Cell:
    """One cell of a table: the mean top-1 of `runs` (one per seed), beside the paper's number if it prints one.

    Without runs, the cell only quotes the paper.
    """

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
    head: str = "Method"  # of the column of row names

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(cell.column for cell in self.cells))


@dataclass(frozen=True)
class Plot:
    """A figure that draws table cells: each line or point is a method's (x, cell) pairs."""

    name: str
    title: str
    note: str
    x: str
    y: str
    lines: dict[str, tuple[tuple[float, Cell], ...]]


class Registry:
    """All tables, figures and runs of one scale. A run shared by several cells is one run."""

    def __init__(self, scale: Scale):
        self.scale = scale
        self.specs: dict[str, Spec] = {}  # by run id, parents before children
        self.tables: dict[str, Table] = {}
        self.figures: dict[str, tuple[Visualise, ...]] = {}  # figures that show clips
        self.plots: dict[str, Plot] = {}  # figures that draw cells
        if {"ssv2", "k400"} <= set(scale.datasets):  # a scale has the tables and figures whose datasets it lists
            table_1(self)
            figure_1(self)
        table_4e(self)
        figure_5(self)

    def add(self, spec, seed: int):
        """`spec` as this scale runs it; known from now on."""
        spec = self.scale.apply(spec, seed)
        return self.specs.setdefault(spec.run_id, spec)

    def targets(self) -> dict[str, list[Spec]]:
        """What can be asked for, such as table4e or figure5, and the runs it shows."""
        found: dict[str, list[Spec]] = {"all": list(self.specs.values())}
        for name, table in self.tables.items():
            found[f"table{name}"] = [run for cell in table.cells for run in cell.runs]
        for name, runs in self.figures.items():
            found[f"figure{name}"] = list(runs)
        for name, plot in self.plots.items():
            found[f"figure{name}"] = [run for line in plot.lines.values() for _, cell in line for run in cell.runs]
        return found

    def runs_of(self, target: str) -> list[Spec]:
        """The runs that a target needs, parents first."""
        if target not in (targets := self.targets()):
            raise UserError(f"{target}: no such target at scale {self.scale.name}; choose one of {', '.join(targets)}")
        wanted = {spec.run_id for spec in targets[target]}
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


COLUMNS = {"ssv2": "SSv2", "k400": "K400"}
TABLE_1: dict[str, tuple[tuple[str, str, str], ...]] = {  # groups of (method, its epochs on SSv2, on K400), as the paper prints them
    "Supervised": (
        ("SlowFast", "196", "-"),
        ("TimeSformer", "15", "15"),
        ("VidTr", "50", "-"),
        ("MotionFormer", "90+35", "90"),
        ("MViTv1", "200", "-"),
        ("MViTv2", "200", "-"),
    ),
    "Self-supervised": (
        ("BEVT", "800+150", "800+150"),
        ("M3Video", "400", "400"),
        ("MGM", "400", "400"),
        ("VideoMAE", "800", "800"),
        ("MGM", "800", "800"),
        ("MAM2", "1200", "800"),
        ("MGM", "1200", "1200"),
        ("OmniMAE", "1600", "1600"),
        ("VideoMAE", "1600", "1600"),
        ("VideoMAE", "2400", ""),
        ("ST-MAE", "", "1600"),
        ("MotionMAE", "2400", "1600"),
        ("MGM", "1600", "1600"),
        ("MGM", "2400", ""),
    ),
}
OURS: dict[str, MaskName] = {"MGM": "mgm", "VideoMAE": "tube", "ST-MAE": "agnostic"}  # methods we run, by their masks


def table_1(registry: Registry) -> None:
    """Finetuned top-1 on SSv2 and K400 over pretraining epochs. A method that differs in more than its mask is quoted."""
    table = Table(
        "1",
        "Finetuned top-1 on Something-Something V2 and Kinetics-400",
        "MGM, VideoMAE and ST-MAE are run here, under one recipe that differs in the mask alone; the other rows are quoted from the paper. "
        "ST-MAE's own recipe is another (repeated augmentation 4, a deeper decoder, a class token), so its row is agnostic masking under "
        "VideoMAE's. The paper quotes VideoMAE's 800-epoch cells from runs without repeated augmentation.",
        head="Method, dataset, pretraining epochs",
    )
    seeds = registry.scale.fewer_seeds.get("table1", registry.scale.seeds)
    for rows in TABLE_1.values():
        for method, *epochs_of in rows:
            for dataset, epochs in zip(COLUMNS, epochs_of, strict=True):
                if epochs:
                    runs = tuple(_finetuned(registry, dataset, OURS[method], int(epochs), seed) for seed in seeds) if method in OURS else ()
                    table.cells.append(Cell("1", f"{method}, {COLUMNS[dataset]}, {epochs}", COLUMNS[dataset], runs))
    registry.tables["1"] = table


def _finetuned(registry: Registry, dataset: str, mask: MaskName, epochs: int, seed: int) -> Finetune:
    parent = registry.add(recipes.pretrain(dataset, mask, epochs), seed)
    return registry.add(recipes.finetune(dataset, parent.run_id, parent.model), seed)


def figure_1(registry: Registry) -> None:
    """SSv2 top-1 over pretraining epochs (P Figure 1): MGM and VideoMAE run, the methods the paper names quoted."""
    lines: dict[str, list[tuple[float, Cell]]] = {}
    for cell in registry.tables["1"].cells:
        method, dataset, epochs = cell.row.split(", ")
        if dataset == "SSv2" and method in ("MGM", "VideoMAE", "M3Video", "MAM2", "BEVT", "OmniMAE", "MotionMAE"):
            lines.setdefault(method, []).append((sum(map(float, epochs.split("+"))), cell))
    registry.plots["1"] = Plot(
        "1",
        "Top-1 accuracy on Something-Something V2 over pretraining epochs",
        "Lines are run here, with 95 % intervals; dotted lines and open marks are the paper's numbers.",
        "pretraining epochs",
        "SSv2 top-1 accuracy in %",
        {method: tuple(sorted(points, key=lambda point: point[0])) for method, points in lines.items()},
    )


def table_4e(registry: Registry) -> None:
    """The mask grid: 200 epochs on SSv2 (P 4.5), or on a user's own videos."""
    scale = registry.scale
    dataset, column = (OWN, "own videos") if scale.own_videos else ("ssv2", "SSv2")
    note = "Tube hides 90 % of the patches, every other mask 75 % (VideoMAE's and the paper's values)."
    if not scale.own_videos:
        note += " The linear probe and the row without pretraining are ours: the paper reports neither here."
    table = Table("4e", "Mask types: trajectory by spatial continuity", note)

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
