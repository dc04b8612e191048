"""What the experiments will cost: operations, GPU hours, wall time and disk, of each table and
figure and of all. Arithmetic alone, by the rules that stand below every plan
(mgm/report/plan.txt.j2); an epoch is whole batches."""

import heapq
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from mgm.data.published import PUBLISHED, Published
from mgm.errors import UserError
from mgm.paper import recipes
from mgm.paper.cost import longest_chains, multiply_adds, official_multiply_adds
from mgm.paper.quoted import AVION, MEMORY_GB, PEAK, VIDEOMAE, Measured
from mgm.paper.registry import Cell, Registry
from mgm.paper.scales import Scale, read_yaml
from mgm.reading import read_json, read_text
from mgm.spec import Finetune, Model, Pretrain, Probe, Spec, parents

CHECKPOINTS = 3  # two that are kept, and the one that is being written
STATE_BYTES, WEIGHT_BYTES = 12, 4  # a parameter: with AdamW's two moments, and alone


@dataclass(frozen=True)
class Machine:
    """GPUs that a plan counts on.

    `flops` is what one sustains a second; `decoded` the videos that its cores decode a second.
    """

    name: str
    flops: float
    gpus: int
    gpus_a_run: int
    decoded: float = math.inf
    source: str = ""  # where its rate comes from

    @property
    def slots(self) -> int:
        """Runs at a time."""
        return self.gpus // self.gpus_a_run


@dataclass(frozen=True)
class Cost:
    """What one run takes: FLOPs of training and of testing, videos decoded to train (its test
    decodes a clip a temporal view), GPU hours, bytes of a checkpoint and of the weights it leaves,
    and the videos a second that keep a GPU busy in training."""

    run_id: str
    verb: str
    train: float
    test: float
    decoded: float
    hours: float
    checkpoint: float
    weights: float
    needs: float


@dataclass(frozen=True)
class TargetCost:
    """A table or figure alone: the fewest runs that fill it, their parents among them. `own_hours`
    are those of runs that nothing else wants; `wall_h` is the time on all GPUs, `disk` the most it
    holds at once, in bytes."""

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
    `epochs`. Without pretraining both are 0."""

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


MOST = 10**6  # GPUs, or clips a second of one
ROWS = [
    f"ViT-B, pretraining at 0.75, ours {how}" for how in ("compile", "eager")
]  # of bench/gpu.py; jobs compile where they can


def read_measured(folder: Path) -> dict[str, Any]:
    """Read bench/gpu.py's results in `folder`: machine.json, and step.jsonl with [name,
    {"clips_per_s": ...}] a line. Return `gpu`, `clips_per_s` (of a ViT-B pretraining at ratio 0.75,
    as jobs train it) and `source`, for `machine`; nothing where there are none.

    Raises:
        UserError: they are torn.
    """
    file, about = folder / "step.jsonl", folder / "machine.json"
    if not (file.exists() and about.exists()):
        return {}
    try:
        rows, where = (
            dict(map(json.loads, read_text(file).splitlines())),
            read_json(about),
        )
        for row in ROWS:
            if clips_per_s := rows.get(row, {}).get("clips_per_s"):
                source = f"measured: {file}, {where['date'][:10]}, {row}"
                return {
                    "gpu": str(where["chip"]),
                    "clips_per_s": float(clips_per_s),
                    "source": source,
                }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{folder}: not results of bench/gpu.py ({error}); delete the folder and measure again by `make gpu`"
        ) from None
    return {}


def machine(
    gpu: str,
    utilisation: float,
    gpus: int,
    gpus_a_run: int | None = None,
    clips_per_s: float | None = None,
    decoded: float | None = None,
    source: str = "",
) -> Machine:
    """A machine of `gpus`, at a share of their peak; or at the pretraining clips a second that one
    was measured at.

    Args:
        gpus_a_run: by default 8, a usual node's, or all if there are fewer.
        clips_per_s: of ViT-B by MGM (ratio 0.75, 16 x 224 x 224), as a run's log says it, by the
            number of its GPUs.
        decoded: videos a second that one GPU's cores decode; None: always enough.
        source: of the rate, in words.

    Raises:
        UserError: no such GPU, or a run with more than there are.
    """
    if not clips_per_s and gpu not in PEAK:
        raise UserError(
            f"--gpu {gpu}: its peak is not known here; choose one of {', '.join(PEAK)}, or pass --clips-per-s as measured"
        )
    for option, value in (("--clips-per-s", clips_per_s), ("--gpus", gpus)):
        if value is not None and not value <= MOST:
            raise UserError(f"{option} {value}: choose at most {MOST:,}")
    gpus_a_run = gpus_a_run or min(8, gpus)
    if gpus_a_run > gpus:
        raise UserError(
            f"--gpus-per-run {gpus_a_run}: a run cannot have it of --gpus {gpus}; choose 1 to {gpus}"
        )
    rate = (
        clips_per_s * 6.0 * multiply_adds(recipes.pretrain("k400"))
        if clips_per_s
        else PEAK[gpu] * utilisation
    )
    how = (
        f"{clips_per_s:g} clips/s of ViT-B"
        if clips_per_s
        else f"assumed: {utilisation:.0%} of the {gpu.upper()}'s peak"
    )
    return Machine(gpu, rate, gpus, gpus_a_run, decoded or math.inf, source or how)


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
    names = (
        [target] if target else ordered
    )  # tables as the registry has them, figures by their numbers, all
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


def cost(spec: Spec, videos: Published, machine: Machine) -> Cost:
    """What a run takes on so many videos."""
    train = test = trained = decoded = tested = checkpoint = weights = 0.0
    if isinstance(spec, Pretrain | Finetune | Probe):
        forward = 2.0 * multiply_adds(spec, videos.classes if isinstance(spec, Finetune) else 0)
        if isinstance(
            spec, Probe
        ):  # one forward pass of each clip; the classifier on top costs next to nothing
            decoded = trained = float(spec.train_clips * videos.train)
            train = trained * forward
        else:
            repeats = spec.augment.repeats if isinstance(spec, Finetune) else 1
            steps = spec.optim.steps or spec.optim.epochs * (videos.train // spec.optim.batch)
            decoded = float(steps * spec.optim.batch)
            trained = decoded * repeats
            train = 3.0 * trained * forward
            checkpoint = float(STATE_BYTES * parameters(spec, videos.classes))
            weights = float(WEIGHT_BYTES * parameters(spec, videos.classes))
        if not isinstance(spec, Pretrain):
            test = videos.test * spec.views.temporal * spec.views.spatial * forward
            tested = float(videos.test * spec.views.temporal)
    seconds = max(train / machine.flops, decoded / machine.decoded) + max(
        test / machine.flops, tested / machine.decoded
    )
    needs = decoded / (train / machine.flops) if train else 0.0
    return Cost(
        spec.run_id, spec.verb, train, test, decoded, seconds / 3600, checkpoint, weights, needs
    )


def parameters(spec: Pretrain | Finetune, classes: int) -> int:
    """Weights of a run's model; positions are a fixed table."""
    model = spec.model
    width, pixels = model.width, 3 * model.tubelet * model.patch**2
    encoder = (pixels + 1) * width + model.depth * _block(model)
    if isinstance(spec, Finetune):
        return encoder + 2 * width + (width + 1) * classes
    narrow = spec.decoder.width
    decoder = (
        spec.decoder.depth * _block(Model(width=narrow, heads=spec.decoder.heads))
        + 2 * narrow
        + (narrow + 1) * pixels
    )
    return encoder + 2 * width + width * narrow + narrow + decoder


def _block(model: Model) -> int:
    """Attention (biases of queries, values and the projection), MLP, two norms; a TimeSformer's
    time attention with its norm and its last linear layer."""
    width = model.width
    attention = 4 * width**2 + 3 * width
    over_time = attention + 2 * width + width**2 + width if model.backbone == "timesformer" else 0
    return attention + (8 * width**2 + 5 * width) + 4 * width + over_time


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
        sum(run.hours for run in runs if run.verb == "pretrain"),
    )


def wall(specs: Sequence[Spec], costs: Mapping[str, Cost], machine: Machine) -> float:
    """Hours until the last run ends:

    whenever GPUs are free, the run starts that the longest chain waits for.
    """
    waits, behind = _behind(specs, costs)
    ready, running, now = list[tuple[float, str]](), list[tuple[float, str]](), 0.0
    order = TopologicalSorter(waits)
    order.prepare()
    while order.is_active():
        for run_id in order.get_ready():
            heapq.heappush(ready, (-behind[run_id], run_id))
        while ready and len(running) < machine.slots:
            run_id = heapq.heappop(ready)[1]
            heapq.heappush(running, (now + costs[run_id].hours / machine.gpus_a_run, run_id))
        now, ended = heapq.heappop(running)
        order.done(ended)
    return now


def chain(
    specs: Sequence[Spec], costs: Mapping[str, Cost], machine: Machine
) -> list[tuple[str, float]]:
    """The critical path:

    runs that wait for one another and together take longest, with their hours.
    """
    waits, behind = _behind(specs, costs)
    path: list[tuple[str, float]] = []
    after = [run_id for run_id, before in waits.items() if not before]
    while after:
        longest = max(after, key=behind.__getitem__)
        path.append((longest, costs[longest].hours / machine.gpus_a_run))
        after = [run_id for run_id, before in waits.items() if longest in before]
    return path


def _behind(
    specs: Sequence[Spec], costs: Mapping[str, Cost]
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """The runs that each run waits for, and GPU hours of the longest chain that starts with it."""
    hours = {spec.run_id: costs[spec.run_id].hours for spec in specs}
    waits = {
        spec.run_id: [parent for parent in parents(spec) if parent in hours] for spec in specs
    }  # weights that a user gives are no run
    return waits, longest_chains(hours, waits)


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


def check(utilisation: float, published: Measured = VIDEOMAE) -> Check:
    """Hold the formula against a published time, by what VideoMAE's code computes."""
    spec = recipes.pretrain("k400", "tube", published.epochs)
    clips = published.epochs * PUBLISHED["k400"].train
    flops = 6.0 * clips * official_multiply_adds(spec)
    peak = published.gpus * PEAK[published.gpu]
    return Check(
        f"{published.source}, {published.epochs} epochs on {published.gpus} {published.gpu.upper()}",
        flops,
        published.hours,
        flops / (peak * utilisation) / 3600,
        utilisation,
        flops / (peak * published.hours * 3600),
        clips / published.hours / 3600 / published.gpus,
    )


def epoch_cost_ratio() -> tuple[float, float]:
    """How many times an epoch of ViT-B at ratio 0.75 computes one at 0.9:

    here, and in the official code.
    """
    mgm, tube = recipes.pretrain("k400", "mgm"), recipes.pretrain("k400", "tube")
    ours, official = (of(mgm) / of(tube) for of in (multiply_adds, official_multiply_adds))
    return ours, official


def _cells(registry: Registry) -> list[tuple[str, Cell]]:
    """The cells that have training runs, with their targets:

    once per table, and those of figures that no table has.
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
        if pair[1].runs and pair[1].runs[0].verb != "measure"
    ]


def _size(scale: Scale, name: str) -> Published:
    dataset = scale.datasets[name]
    if dataset.generate or dataset.adapt or name not in PUBLISHED:
        raise UserError(
            f"scale {scale.name}: dataset {name} has no published number of videos; plan a scale of published datasets, such as paper"
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
