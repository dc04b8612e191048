"""What the experiments cost: operations, GPU hours, wall time and disk.

Each table and figure has its cost, and so have all. It is arithmetic alone, by the rules below
every plan (mgm/report/plan.txt.j2); an epoch is whole batches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgm.data.published import PUBLISHED, Published
from mgm.errors import UserError
from mgm.paper import recipes
from mgm.paper.cost import (
    CHECKPOINTS,
    Cost,
    Machine,
    chain,
    cost,
    multiply_adds,
    official_multiply_adds,
    wall,
)
from mgm.paper.quoted import AVION, MEMORY_GB, PEAK, VIDEOMAE, PublishedTime
from mgm.paper.registry import Cell, Registry
from mgm.paper.scales import Scale
from mgm.reading import read_yaml
from mgm.spec import Finetune, Pretrain, Probe, Spec


@dataclass(frozen=True)
class TargetCost:
    """A table or figure alone: the fewest runs that fill it, with their parents.

    Attributes:
        own_hours: GPU hours of runs that nothing else wants.
        wall_h: time on all GPUs.
        disk: the most bytes it holds at once.
    """

    target: str
    runs: int
    flops: float
    hours: float
    own_hours: float
    wall_h: float
    disk: float
    needs: float
    pretrain_h: float


@dataclass(frozen=True)
class Line:
    """Compute beside epochs, of a table's cell: all its runs with their parents.

    `equivalent_epochs` is how many epochs at ratio 0.9 compute as much as its pretraining's
    `epochs`. Without pretraining both are 0.
    """

    target: str
    row: str
    column: str
    runs: int
    ratio: float
    epochs: int
    equivalent_epochs: float
    supervised: tuple[int, ...]
    pretrain: float
    rest: float
    hours: float


@dataclass(frozen=True)
class Check:
    """A pretraining whose time was published, by this plan's formula."""

    source: str
    flops: float
    hours: float  # published
    planned_h: float  # at `utilisation`
    utilisation: float
    implied: float  # utilisation that gives the published hours
    clips_per_s: float  # that each of its GPUs saw


@dataclass(frozen=True)
class Plan:
    scale: str
    machine: Machine
    parts: list[TargetCost]  # "all" last, unless one target was asked for
    lines: list[Line]
    chain: list[tuple[str, float]]  # the critical path: run ids with their hours on one run's GPUs
    check: Check


def make_plan(
    registry: Registry, machine: Machine, utilisation: float, target: str | None = None
) -> Plan:
    """The plan of every table and figure of the registry, or of one.

    Raises:
        UserError: a dataset of unknown size, or no such target.
    """
    known = {name: _size(registry.scale, name) for name in registry.scale.datasets}
    costs = {
        run_id: cost(spec, known[spec.data.dataset], machine)
        for run_id, spec in registry.specs.items()
    }
    wanted = {name: registry.runs_of(name) for name in registry.targets()}
    if target and target not in wanted:
        registry.runs_of(target)  # raises and names the targets
    ordered = sorted(
        wanted,
        key=lambda name: (
            name == "all",
            name.startswith("figure"),
            name if name.startswith("figure") else "",
        ),
    )
    # Tables as the registry has them, figures by their numbers, all.
    names = [target] if target else ordered
    elsewhere = {
        name: {
            spec.run_id
            for other, specs in wanted.items()
            if other not in (name, "all")
            for spec in specs
        }
        for name in names
    }
    parts = [part(name, wanted[name], costs, machine, elsewhere[name]) for name in names]
    return Plan(
        registry.scale.name,
        machine,
        [one for one in parts if one.hours or one.target == target],
        [
            line(name, cell, registry, costs)
            for name, cell in _cells(registry)
            if target in (None, "all", name)
        ],
        chain(wanted[target or "all"], costs, machine),
        check(utilisation),
    )


def part(
    target: str,
    specs: Sequence[Spec],
    costs: Mapping[str, Cost],
    machine: Machine,
    elsewhere: set[str],
) -> TargetCost:
    """A target's runs, taken alone."""
    runs = [costs[spec.run_id] for spec in specs]
    training = sorted((run.checkpoint for run in runs), reverse=True)[: machine.slots]
    return TargetCost(
        target,
        len(runs),
        sum(run.train + run.test for run in runs),
        sum(run.hours for run in runs),
        sum(run.hours for run in runs if run.run_id not in elsewhere),
        wall(specs, costs, machine),
        sum(run.weights for run in runs) + CHECKPOINTS * sum(training),
        max((run.needs for run in runs), default=0.0),
        sum(run.hours for run in runs if run.stage == "pretrain"),
    )


def line(target: str, cell: Cell, registry: Registry, costs: Mapping[str, Cost]) -> Line:
    """Add up a cell that has runs."""
    specs = registry.with_parents(run.run_id for run in cell.runs)
    pretrained = [spec for spec in specs if isinstance(spec, Pretrain)]
    runs = [costs[spec.run_id] for spec in specs]
    ratio = epochs = equivalent = 0.0
    if pretrained:
        first = pretrained[0]
        ratio, epochs = first.mask.ratio, first.optim.epochs
        at_90 = first.model_copy(update={"mask": first.mask.model_copy(update={"ratio": 0.9})})
        equivalent = epochs * multiply_adds(first) / multiply_adds(at_90)
    whole, of_pretraining = (
        sum(run.train + run.test for run in runs),
        sum(costs[spec.run_id].train for spec in pretrained),
    )
    return Line(
        target,
        cell.row,
        cell.column,
        len(specs),
        ratio,
        int(epochs),
        equivalent,
        tuple(
            spec.optim.epochs
            for spec in specs
            if isinstance(spec, Finetune) and spec.seed == cell.runs[0].seed
        ),
        of_pretraining,
        whole - of_pretraining,
        sum(run.hours for run in runs),
    )


def check(utilisation: float, published: PublishedTime = VIDEOMAE) -> Check:
    """Hold the formula against a published time, by what VideoMAE's code computes."""
    spec = recipes.pretrain("k400", "tube", published.epochs)
    clips = published.epochs * PUBLISHED["k400"].train
    flops = 6.0 * clips * official_multiply_adds(spec)
    peak = published.gpus * PEAK[published.gpu]
    return Check(
        f"{published.source}, {published.epochs} epochs on {published.gpus} "
        f"{published.gpu.upper()}",
        flops,
        published.hours,
        flops / (peak * utilisation) / 3600,
        utilisation,
        flops / (peak * published.hours * 3600),
        clips / published.hours / 3600 / published.gpus,
    )


def epoch_cost_ratio() -> tuple[float, float]:
    """Return how much more an epoch of ViT-B computes at ratio 0.75 than at 0.9.

    The first number is ours, the second the official code's.
    """
    mgm, tube = recipes.pretrain("k400", "mgm"), recipes.pretrain("k400", "tube")
    ours, official = (of(mgm) / of(tube) for of in (multiply_adds, official_multiply_adds))
    return ours, official


def _cells(registry: Registry) -> list[tuple[str, Cell]]:
    """Return the cells that have training runs, with their targets.

    Each is there once per table. Cells of figures count where no table has them.
    """
    cells = [
        (f"table{name}", cell) for name, table in registry.tables.items() for cell in table.cells
    ]
    shown = {tuple(run.run_id for run in cell.runs) for _, cell in cells}
    plots = [
        (f"figure{name}", cell) for name, plot in registry.plots.items() for cell in plot.cells
    ]
    cells += [
        (name, cell) for name, cell in plots if tuple(run.run_id for run in cell.runs) not in shown
    ]
    once = {
        (name, cell.row, tuple(run.run_id for run in cell.runs)): (name, cell)
        for name, cell in reversed(cells)
    }
    return [
        pair
        for pair in reversed(once.values())
        if pair[1].runs and pair[1].runs[0].stage != "measure"
    ]


def _size(scale: Scale, name: str) -> Published:
    dataset = scale.datasets[name]
    if dataset.generate or dataset.adapt or name not in PUBLISHED:
        raise UserError(
            f"scale {scale.name}: dataset {name} has no published number of videos; plan a scale "
            "of published datasets, such as paper"
        )
    return PUBLISHED[name]


@dataclass(frozen=True)
class Day:
    """A scale of one GPU, in the order in which it runs.

    Attributes:
        rows: (seed, row, hours from the start until the row is complete), in order.
        hours: that the scale is meant to fill.
        memory_gb: that a step takes, and that the GPU has (0: not known).
        disk: bytes of weights, checkpoints and tokens at most.
        loader: videos per second that keep the GPU busy.
        check: a published time on one of these cards, by the same arithmetic.
    """

    rows: list[tuple[int, str, float]]
    hours: float
    memory_gb: tuple[float, float]
    disk: float
    loader: float
    check: Check


def make_day(registry: Registry, machine: Machine, utilisation: float) -> Day:
    """Plan a scale that has a `grid`."""
    scale = registry.scale
    known = {name: _size(scale, name) for name in scale.datasets}
    costs = {
        run_id: cost(spec, known[spec.data.dataset], machine)
        for run_id, spec in registry.specs.items()
    }
    table, done, hours = registry.tables["masks"], set[str](), 0.0
    rows = list[tuple[int, str, float]]()
    for place, seed in enumerate(scale.seeds):
        for row in table.rows:
            # Controls train nothing.
            if row in table.groups:
                continue
            cells = [cell for cell in table.cells if cell.row == row]
            runs = registry.with_parents(cell.runs[place].run_id for cell in cells)
            hours += sum(costs[run.run_id].hours for run in runs if run.run_id not in done)
            done |= {run.run_id for run in runs}
            rows.append((seed, row, hours))
    probes = [spec for spec in registry.specs.values() if isinstance(spec, Probe)]
    tokens = max((_tokens(spec, known[spec.data.dataset]) for spec in probes), default=0.0)
    runs_cost = costs.values()
    disk = tokens + sum(one.weights for one in runs_cost)
    disk += CHECKPOINTS * max((one.checkpoint for one in runs_cost), default=0.0)
    return Day(
        rows,
        scale.hours,
        (scale.memory_gb, MEMORY_GB.get(machine.name, 0)),
        disk,
        max((one.needs for one in runs_cost), default=0.0),
        check(utilisation, AVION),
    )


def _tokens(spec: Probe, videos: Published) -> float:
    """Return the bytes of tokens that an attentive probe keeps while it runs, 2 per value."""
    if spec.kind != "attentive":
        return 0.0
    views = spec.views.temporal * spec.views.spatial
    clips = videos.train * spec.train_clips + videos.test * views
    return 2.0 * clips * math.prod(spec.grid) * spec.model.width


# A core's share of its peak in training: AVX-512 in float32, 65 % of 205 GFLOP/s (docs/speed.md).
CORE_FLOPS = 0.65 * 205e9


def cpu_hours(registry: Registry) -> float:
    """Return the hours that one core would take for a scale's runs."""
    core = Machine("cpu", CORE_FLOPS, 1, 1)
    return sum(
        cost(spec, _size(registry.scale, spec.data.dataset), core).hours
        for spec in registry.specs.values()
    )


def size_for(path: Path, gpu: str) -> str:
    """Return the name of a scale's largest size that fits a GPU; empty where it has no sizes.

    Raises:
        UserError: none fits.
    """
    sizes = read_yaml(path).get("sizes", {})
    wanted = {name: size["memory_gb"] for name, size in sizes.items() if "memory_gb" in size}
    if not wanted or gpu not in MEMORY_GB:
        return ""
    fitting = {name: memory for name, memory in wanted.items() if memory <= MEMORY_GB[gpu]}
    if not fitting:
        raise UserError(f"--gpu {gpu}: has {MEMORY_GB[gpu]} GB, too few for any size of {path}")
    return max(fitting, key=fitting.__getitem__)
