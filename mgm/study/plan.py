"""The cost of the experiments: FLOPs, GPU hours, wall time and disk.

`costs` makes the table that everything follows from, with a row per run. This only does
arithmetic; mgm/report/plan.txt.j2 prints the rules below every plan. An epoch counts whole batches.
"""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from mgm.spec import PUBLISHED, Finetune, Pretrain, Probe, Published, Spec, parents
from mgm.spec.compute import (
    longest_chains,
    multiply_adds,
    official_multiply_adds,
    parameters,
    token_bytes,
)
from mgm.spec.values import TOKEN_KINDS
from mgm.study import recipes
from mgm.study.machine import Machine
from mgm.study.quoted import PEAK, VIDEOMAE, PublishedTime
from mgm.study.registry import Cell, Registry, with_mask
from mgm.study.runs import videos_of

CHECKPOINTS = 3  # on disk at once: two that are kept, and one that is being written

# Bytes per parameter: with AdamW's two moments, and alone.
STATE_BYTES, WEIGHT_BYTES = 12, 4

# 20 epochs on four fifths of the clips, then on all (mgm.stages.probe_kinds).
ATTENTIVE_PASSES = 20 * (0.8 + 1)

# Shares of the peak: VideoMAE's code on AVION's machine, AVION, and an assumption.
SHARES = (0.1, 0.17, 0.4)

# FLOP/s of one core in training: 65 % of its peak, AVX-512 in float32 (docs/speed.md). Models of
# mini's size reach fewer: the median of the 380 pretrainings of the study drawn, AVX2.
CORE_FLOPS, SMALL_FLOPS = 0.65 * 205e9, 12e9


class Cost(NamedTuple):
    """The cost of one run.

    Attributes:
        train, test: FLOPs.
        hours: GPU hours.
        reread_h: the part of them in which a probe reads its tokens back.
        checkpoint, weights: bytes of a checkpoint, and of the final weights.
        needs: videos per second that keep a GPU busy in training.
    """

    stage: str
    train: float = 0.0
    test: float = 0.0
    hours: float = 0.0
    reread_h: float = 0.0
    checkpoint: float = 0.0
    weights: float = 0.0
    needs: float = 0.0


# By run id.
Costs = Mapping[str, Cost]


def costs(registry: Registry, machine: Machine) -> Costs:
    """Return the table of costs."""
    scale = registry.scale
    videos = {name: videos_of(scale, name) for name in scale.datasets}
    return {
        run_id: cost(spec, videos[scale.key_of(spec.data)], machine)
        for run_id, spec in registry.specs.items()
    }


def cost(spec: Spec, videos: Published, machine: Machine) -> Cost:
    """Return the cost of a run on a dataset of this size."""
    if not isinstance(spec, Pretrain | Finetune | Probe):
        return Cost(spec.stage)
    forward = 2.0 * multiply_adds(spec, videos.classes if isinstance(spec, Finetune) else 0)
    augmented = reread = size = test = tested = 0.0
    # One forward pass of each clip; the classifier on top costs next to nothing.
    if isinstance(spec, Probe):
        decoded = float(spec.train_clips * videos.train)
        train = decoded * forward
        if spec.kind in TOKEN_KINDS:
            # Once on all clips, and before that on those that choose the learning rate.
            reread = ATTENTIVE_PASSES * decoded * token_bytes(spec) / machine.tokens
    else:
        steps = spec.optim.steps or spec.optim.epochs * (videos.train // spec.optim.batch)
        decoded = float(steps * spec.optim.batch)
        trained = decoded
        if isinstance(spec, Finetune):
            trained *= spec.augment.repeats
            augmented = trained if spec.augment.rand else 0.0
        train = 3.0 * trained * forward
        size = float(parameters(spec, videos.classes))
    if not isinstance(spec, Pretrain):
        tested = float(videos.test * spec.views.temporal)
        test = tested * spec.views.spatial * forward
    read = decoded / machine.decoded + augmented / machine.augmented
    seconds = max(train / machine.flops, read) + reread
    seconds += max(test / machine.flops, tested / machine.decoded)
    return Cost(
        spec.stage,
        train,
        test,
        hours=seconds / 3600,
        reread_h=reread / 3600,
        checkpoint=STATE_BYTES * size,
        weights=WEIGHT_BYTES * size,
        needs=decoded / (train / machine.flops) if train else 0.0,
    )


@dataclass(frozen=True)
class Plan:
    """The cost of a scale.

    Attributes:
        parts: a row of `part` per table and figure; "all" is last, unless one target was asked for.
        lines: a row of `line` per cell of a table.
        chain: the critical path: run ids, with their hours on the GPUs of one run.
        check: a published time by the same formula.
    """

    scale: str
    machine: Machine
    parts: list[dict[str, Any]]
    lines: list[dict[str, Any]]
    chain: list[tuple[str, float]]
    check: "Check"


def make_plan(
    registry: Registry, machine: Machine, utilisation: float, target: str | None = None
) -> Plan:
    """Plan every table and figure of the registry, or only `target`.

    Raises:
        UserError: a dataset has an unknown size, or there is no such target.
    """
    table = costs(registry, machine)
    targets = registry.targets()
    wanted = {name: registry.runs_of(name) for name in (target or "all", *targets)}
    users = Counter(
        spec.run_id for name, specs in wanted.items() if name != "all" for spec in specs
    )
    # Tables in the registry's order, figures by their numbers, then all.
    ordered = [name for name in targets if name.startswith("table")]
    ordered += [*sorted(name for name in targets if name.startswith("figure")), "all"]
    parts = [
        part(name, wanted[name], table, machine, users)
        for name in ([target] if target else ordered)
    ]
    return Plan(
        registry.scale.name,
        machine,
        [row for row in parts if row["hours"] or target],
        [
            line(name, cell, registry, table)
            for name, cell in _cells(registry)
            if target in (None, "all", name)
        ],
        chain(wanted[target or "all"], hours_of(table), machine),
        check(utilisation),
    )


def part(
    target: str, specs: Sequence[Spec], table: Costs, machine: Machine, users: Counter[str]
) -> dict[str, Any]:
    """Return the cost of one target alone: of its runs and their parents, `specs`.

    Args:
        table: the costs of all runs.
        users: the number of targets that use each run.

    Returns:
        FLOPs of training and tests; GPU hours, those of the runs that no other target uses, and
        those of pretraining; the hours until the last run ends, on all GPUs; the most bytes on disk
        at once; the most videos per second that keep a GPU busy.
    """
    runs = {spec.run_id: table[spec.run_id] for spec in specs}
    costs = runs.values()
    largest = sorted((run.checkpoint for run in costs), reverse=True)[: machine.slots]
    only = target != "all"
    return {
        "target": target,
        "runs": len(runs),
        "flops": sum(run.train + run.test for run in costs),
        "hours": sum(run.hours for run in costs),
        "own_hours": sum(run.hours for run_id, run in runs.items() if users[run_id] == only),
        "wall_h": wall(specs, hours_of(runs), machine),
        "disk": sum(run.weights for run in costs) + CHECKPOINTS * sum(largest),
        "needs": max((run.needs for run in costs), default=0.0),
        "pretrain_h": sum(run.hours for run in costs if run.stage == "pretrain"),
    }


def line(target: str, cell: Cell, registry: Registry, table: Costs) -> dict[str, Any]:
    """Return the compute and the epochs of a cell that has runs, with their parents.

    Returns:
        `equivalent_epochs` at mask ratio 0.9 take as much compute as the `epochs` of its
        pretraining; without pretraining both are 0. `supervised` has the epochs of each fine-tuning
        of the first seed. `pretrain` and `rest` are FLOPs of pretraining and of everything else.
    """
    specs = registry.with_parents(run.run_id for run in cell.runs)
    runs = [table[spec.run_id] for spec in specs]
    ratio, epochs, equivalent = 0.0, 0, 0.0
    if first := next((spec for spec in specs if isinstance(spec, Pretrain)), None):
        ratio, epochs = first.mask.ratio, first.optim.epochs
        equivalent = epochs * multiply_adds(first) / multiply_adds(with_mask(first, ratio=0.9))
    pretraining = sum(run.train for run in runs if run.stage == "pretrain")
    return {
        "target": target,
        "row": cell.row,
        "column": cell.column,
        "runs": len(specs),
        "ratio": ratio,
        "epochs": epochs,
        "equivalent_epochs": equivalent,
        "supervised": tuple(
            spec.optim.epochs
            for spec in specs
            if isinstance(spec, Finetune) and spec.seed == cell.runs[0].seed
        ),
        "pretrain": pretraining,
        "rest": sum(run.train + run.test for run in runs) - pretraining,
        "hours": sum(run.hours for run in runs),
    }


def _cells(registry: Registry) -> list[tuple[str, Cell]]:
    """Return the cells that have training runs, with their targets.

    A cell appears once per table. A cell of a figure appears only if no table has it.
    """

    once: dict[tuple, tuple[str, Cell]] = {}
    shown = set()
    for kind, parts in (("table", registry.tables), ("figure", registry.plots)):
        for name, part in parts.items():
            for cell in part.cells:
                runs = tuple(run.run_id for run in cell.runs)
                if kind == "table":
                    shown.add(runs)
                if (
                    (kind == "table" or runs not in shown)
                    and runs
                    and cell.runs[0].stage != "measure"
                ):
                    once.setdefault((kind, name, cell.row, runs), (kind + name, cell))
    return list(once.values())


def hours_of(table: Costs) -> dict[str, float]:
    return {run_id: run.hours for run_id, run in table.items()}


def wall(specs: Sequence[Spec], hours: Mapping[str, float], machine: Machine) -> float:
    """Return the hours until the last run ends.

    Whenever GPUs are free, the run with the longest chain behind it starts.

    Args:
        hours: GPU hours of each run.
    """
    waits, behind = _behind(specs, hours)
    ready, running, now = list[tuple[float, str]](), list[tuple[float, str]](), 0.0
    order = TopologicalSorter(waits)
    order.prepare()
    while order.is_active():
        for run_id in order.get_ready():
            heapq.heappush(ready, (-behind[run_id], run_id))
        while ready and len(running) < machine.slots:
            run_id = heapq.heappop(ready)[1]
            heapq.heappush(running, (now + hours[run_id] / machine.gpus_a_run, run_id))
        now, ended = heapq.heappop(running)
        order.done(ended)
    return now


def chain(
    specs: Sequence[Spec], hours: Mapping[str, float], machine: Machine
) -> list[tuple[str, float]]:
    """Return the critical path: the longest chain of runs, with their hours."""
    waits, behind = _behind(specs, hours)
    path: list[tuple[str, float]] = []
    after = [run_id for run_id, before in waits.items() if not before]
    while after:
        longest = max(after, key=behind.__getitem__)
        path.append((longest, hours[longest] / machine.gpus_a_run))
        after = [run_id for run_id, before in waits.items() if longest in before]
    return path


def _behind(
    specs: Sequence[Spec], hours: Mapping[str, float]
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Return the runs that each run waits for, and the GPU hours of its longest chain."""
    own = {spec.run_id: hours[spec.run_id] for spec in specs}
    # A parent without hours is a file of weights from the user, not a run.
    waits = {spec.run_id: [parent for parent in parents(spec) if parent in own] for spec in specs}
    return waits, longest_chains(own, waits)


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


def check(utilisation: float, published: PublishedTime = VIDEOMAE) -> Check:
    """Compare the formula with a published time, for the operations of VideoMAE's code."""
    spec = with_mask(recipes.pretrain("k400", "tube", published.epochs), ratio=published.ratio)
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
    mgm, tube = (recipes.pretrain("k400", mask) for mask in ("mgm", "tube"))
    ours, official = (count(mgm) / count(tube) for count in (multiply_adds, official_multiply_adds))
    return ours, official


def day_rows(
    registry: Registry, tables: Sequence[Costs]
) -> list[tuple[int, str, tuple[float, ...]]]:
    """Plan a study for one GPU at several rates, in the order in which its runs start.

    Only the first probe of a set of weights computes their features.

    Args:
        tables: the costs at each rate.

    Returns:
        (seed, row, hours from the start until the row is complete, per rate), in order.
    """
    # Weights whose features are computed, by dataset.
    featured = set[tuple[str, ...]]()
    done, total = set[str](), [0.0] * len(tables)
    rows = list[tuple[int, str, tuple[float, ...]]]()
    # Controls train nothing.
    trained = (value for value in registry.values if not value.control)
    for (dataset, seed, row), values in groupby(trained, attrgetter("dataset", "seed", "row")):
        for spec in registry.with_parents(value.run.run_id for value in values):
            if spec.run_id in done:
                continue
            done.add(spec.run_id)
            of = (spec.data.dataset, *parents(spec)) if isinstance(spec, Probe) else ()
            for place, table in enumerate(tables):
                run = table[spec.run_id]
                total[place] += run.reread_h if of in featured else run.hours
            if of:
                featured.add(of)
        rows.append((seed, f"{registry.tables[dataset].title}, {row}", tuple(total)))
    return rows


def day_disk(registry: Registry, table: Costs) -> float:
    """Return the most bytes of weights, checkpoints, and tokens of an attentive probe."""
    scale, tokens = registry.scale, 0.0
    for spec in registry.specs.values():
        if isinstance(spec, Probe) and spec.kind in TOKEN_KINDS:
            videos = videos_of(scale, scale.key_of(spec.data))
            views = spec.views.temporal * spec.views.spatial
            clips = videos.train * spec.train_clips + videos.test * views
            tokens = max(tokens, token_bytes(spec) * clips)
    largest = max((run.checkpoint for run in table.values()), default=0.0)
    return tokens + sum(run.weights for run in table.values()) + CHECKPOINTS * largest


def cpu_hours(registry: Registry, flops: float = CORE_FLOPS) -> dict[str, float]:
    """Return the hours that each run would take on one core. Measurements count as none."""
    return hours_of(costs(registry, Machine("cpu", flops, 1, 1)))
