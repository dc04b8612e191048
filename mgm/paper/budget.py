"""The cost of the experiments: FLOPs, GPU hours, wall time and disk.

The plan lists the cost of each table and figure, and of all together. It only does arithmetic;
mgm/report/plan.txt.j2 prints the rules below every plan. An epoch counts whole batches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from mgm.errors import UserError
from mgm.paper import recipes
from mgm.paper.comparison import videos_of
from mgm.paper.cost import (
    CHECKPOINTS,
    Cost,
    Machine,
    chain,
    cost,
    multiply_adds,
    official_multiply_adds,
    token_bytes,
    wall,
)
from mgm.paper.quoted import (
    AVION,
    MEMORY_GB,
    PEAK,
    VIDEOMAE,
    VIDEOMAE_UCF101,
    PublishedTime,
)
from mgm.paper.registry import Cell, Registry
from mgm.paper.scales import sizes_of
from mgm.spec import PUBLISHED, Finetune, Pretrain, Probe, Published, Spec, parents
from mgm.spec.values import TOKEN_KINDS


@dataclass(frozen=True)
class TargetCost:
    """The cost of a table or figure alone: of its runs and their parents.

    Attributes:
        flops: of training and tests.
        hours: GPU hours.
        own_hours: GPU hours of the runs that no other table or figure uses.
        wall_h: hours until the last run ends, on all GPUs.
        disk: the most bytes on disk at once.
        needs: the most videos per second that keep a GPU busy.
        pretrain_h: GPU hours of pretraining.
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
    """Compute and epochs of a cell of a table: of all its runs and their parents.

    Attributes:
        equivalent_epochs: epochs at mask ratio 0.9 that take as much compute as the `epochs` of
            its pretraining. Without pretraining both are 0.
        supervised: epochs of each fine-tuning of the first seed.
        pretrain, rest: FLOPs of pretraining, and of everything else.
        hours: GPU hours.
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
    """The plan's formula, compared with a pretraining run that has a published time.

    Attributes:
        hours: the published time.
        planned_h: the hours by the formula, at `utilisation`.
        implied: the utilisation that results in the published hours.
        clips_per_s: clips that each GPU saw per second.
    """

    source: str
    flops: float
    hours: float
    planned_h: float
    utilisation: float
    implied: float
    clips_per_s: float


@dataclass(frozen=True)
class Plan:
    """The cost of a scale.

    Attributes:
        parts: one per table and figure; "all" is last, unless one target was asked for.
        lines: one per cell of a table.
        chain: the critical path: run ids, with their hours on the GPUs of one run.
        check: a published time by the same formula.
    """

    scale: str
    machine: Machine
    parts: list[TargetCost]
    lines: list[Line]
    chain: list[tuple[str, float]]
    check: Check


def make_plan(
    registry: Registry, machine: Machine, utilisation: float, target: str | None = None
) -> Plan:
    """Plan every table and figure of the registry, or only `target`.

    Raises:
        UserError: a dataset has an unknown size, or there is no such target.
    """
    costs = _costs(registry, machine)
    wanted = {name: registry.runs_of(name) for name in registry.targets()}
    if target and target not in wanted:
        # This raises an error that names the targets.
        registry.runs_of(target)
    # Tables in the registry's order, figures by their numbers, then all.
    ordered = sorted(
        wanted,
        key=lambda name: (
            name == "all",
            name.startswith("figure"),
            name if name.startswith("figure") else "",
        ),
    )
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
    """Return the cost of one target's runs and their parents, `specs`.

    Args:
        elsewhere: ids of the runs that other targets use too.
    """
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
    """Return the compute and the epochs of a cell that has runs."""
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
    """Compare the formula with a published time, for the operations of VideoMAE's code."""
    spec = recipes.pretrain("k400", "tube", published.epochs)
    mask = spec.mask.model_copy(update={"ratio": published.ratio})
    spec = spec.model_copy(update={"mask": mask})
    clips = published.epochs * PUBLISHED[published.dataset].train
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
    """Return the cost of an epoch of ViT-B at mask ratio 0.75, divided by its cost at 0.9.

    The first number is for this code, the second for the official code.
    """
    mgm, tube = recipes.pretrain("k400", "mgm"), recipes.pretrain("k400", "tube")
    ours, official = (count(mgm) / count(tube) for count in (multiply_adds, official_multiply_adds))
    return ours, official


def _cells(registry: Registry) -> list[tuple[str, Cell]]:
    """Return the cells that have training runs, with their targets.

    A cell appears once per table. A cell of a figure appears only if no table has it.
    """

    def ids(cell: Cell) -> tuple[str, ...]:
        return tuple(run.run_id for run in cell.runs)

    cells = [("table" + name, cell) for name, one in registry.tables.items() for cell in one.cells]
    shown = {ids(cell) for _, cell in cells}
    plots = [("figure" + name, cell) for name, one in registry.plots.items() for cell in one.cells]
    cells += [(name, cell) for name, cell in plots if ids(cell) not in shown]
    once: dict[tuple, tuple[str, Cell]] = {}
    for name, cell in cells:
        if cell.runs and cell.runs[0].stage != "measure":
            once.setdefault((name, cell.row, ids(cell)), (name, cell))
    return list(once.values())


# Clips per second that one core changes by RandAugment (16 frames of 320 x 240), and bytes per
# second of the tokens that one process reads back (docs/loading.md).
AUGMENTED, TOKENS = 11.0, 1.3e9

# Shares of the peak: VideoMAE's code on AVION's machine, AVION, and an assumption.
SHARES = (0.1, 0.17, 0.4)


@dataclass(frozen=True)
class Day:
    """The plan of a scale for one GPU, in the order in which its runs start.

    Attributes:
        rows: (seed, row, hours from the start until the row is complete, per machine), in order.
        hours: the time that the scale is meant to fill.
        memory_gb: what the size is made for, and what the GPU has (0: unknown).
        disk: the most bytes of weights, checkpoints and tokens.
        loader: videos per second that keep the GPU busy in pretraining, per machine.
        checks: published times by the same formula.
    """

    rows: list[tuple[int, str, tuple[float, ...]]]
    hours: float
    memory_gb: tuple[float, float]
    disk: float
    loader: tuple[float, ...]
    checks: tuple[Check, ...]


def _costs(registry: Registry, machine: Machine) -> dict[str, Cost]:
    scale = registry.scale
    known = {name: videos_of(scale, name) for name in scale.datasets}
    return {
        run_id: cost(spec, known[scale.key_of(spec.data)], machine)
        for run_id, spec in registry.specs.items()
    }


def make_day(registry: Registry, machines: Sequence[Machine]) -> Day:
    """Plan a study for one GPU at several rates.

    A scale starts `execution.workers` worker processes, which decode and augment. Only
    the first probe of a set of weights computes their features.
    """
    scale = registry.scale
    costs = [_costs(registry, machine) for machine in machines]
    done, featured, hours = set[str](), set[tuple[str, ...]](), [0.0] * len(machines)
    rows = list[tuple[int, str, tuple[float, ...]]]()
    # Controls train nothing.
    trained = (value for value in registry.values if not value.control)
    for (dataset, seed, row), several in groupby(
        trained, lambda value: (value.dataset, value.seed, value.row)
    ):
        for run in registry.with_parents(value.run.run_id for value in several):
            if run.run_id in done:
                continue
            done.add(run.run_id)
            of = (run.data.dataset, *parents(run)) if isinstance(run, Probe) else ()
            known_features = bool(of) and of in featured
            featured.add(of)
            for index, found in enumerate(costs):
                one = found[run.run_id]
                hours[index] += one.reread_h if known_features else one.hours
        rows.append((seed, f"{registry.tables[dataset].title}, {row}", tuple(hours)))
    probes = [spec for spec in registry.specs.values() if isinstance(spec, Probe)]
    videos = {name: videos_of(scale, name) for name in scale.datasets}
    tokens = max((_tokens(spec, videos[scale.key_of(spec.data)]) for spec in probes), default=0.0)
    runs_cost = costs[0].values()
    disk = tokens + sum(one.weights for one in runs_cost)
    disk += CHECKPOINTS * max((one.checkpoint for one in runs_cost), default=0.0)
    return Day(
        rows,
        scale.hours,
        (scale.memory_gb, MEMORY_GB.get(machines[0].name, 0)),
        disk,
        tuple(
            max((one.needs for one in found.values() if one.stage == "pretrain"), default=0.0)
            for found in costs
        ),
        tuple(check(SHARES[1], one) for one in (AVION, VIDEOMAE_UCF101, VIDEOMAE)),
    )


def day_machine(machine: Machine, cores: int, decoded: float) -> Machine:
    """Return one GPU with the speeds of `cores` worker processes.

    Args:
        decoded: videos per second that one core decodes.
    """
    return replace(
        machine,
        decoded=cores * decoded,
        augmented=cores * AUGMENTED,
        tokens=TOKENS,
    )


def _tokens(spec: Probe, videos: Published) -> float:
    """Return the bytes of the tokens that an attentive probe keeps while it runs.

    Other kinds of probe keep no tokens.
    """
    if spec.kind not in TOKEN_KINDS:
        return 0.0
    views = spec.views.temporal * spec.views.spatial
    return token_bytes(spec) * (videos.train * spec.train_clips + videos.test * views)


# FLOP/s of one core in training: 65 % of its peak, AVX-512 in float32 (docs/speed.md). Models of
# mini's size reach fewer: the median of the 380 pretrainings of the study drawn, AVX2.
CORE_FLOPS, SMALL_FLOPS = 0.65 * 205e9, 12e9


def cpu_hours(registry: Registry, flops: float = CORE_FLOPS) -> dict[str, float]:
    """Return the hours that each run would take on one core. Measurements count as none."""
    return {
        run_id: one.hours for run_id, one in _costs(registry, Machine("cpu", flops, 1, 1)).items()
    }


def size_for(path: Path, gpu: str) -> str:
    """Return the name of a scale's largest size that fits a GPU; empty if it has no sizes.

    Raises:
        UserError: no size fits.
    """
    sizes = sizes_of(path).items()
    wanted = {name: scale.memory_gb for name, scale in sizes if scale.memory_gb}
    if not wanted or gpu not in MEMORY_GB:
        return ""
    fitting = {name: memory for name, memory in wanted.items() if memory <= MEMORY_GB[gpu]}
    if not fitting:
        raise UserError(
            f"--gpu {gpu}: has {MEMORY_GB[gpu]} GB, and the smallest size of {path} takes "
            f"{min(wanted.values()):g}; choose a GPU with more"
        )
    return max(fitting, key=fitting.__getitem__)
