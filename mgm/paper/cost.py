"""The cost of a clip: multiply-adds of one forward pass, by formula.

A training step takes three times as many. Matrix products alone are counted, as papers do.
"""

import heapq
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from mgm.data.published import Published
from mgm.errors import UserError
from mgm.paper import recipes
from mgm.paper.quoted import PEAK
from mgm.reading import read_json, read_text
from mgm.spec import Finetune, Model, Pretrain, Probe, Spec, parents


def multiply_adds(spec: Pretrain | Finetune | Probe, classes: int = 0) -> int:
    """Return the multiply-adds of one clip of pretraining, or of one view otherwise.

    With `classes`, the classifier's last layer counts too. ViT-B at 16 x 224 x 224: 180.3e9 per
    view (Table 1's 180 GFLOPs); pretraining 55.0e9 at mask ratio 0.75, 33.4e9 at 0.9.
    """
    if not isinstance(spec, Pretrain):
        return encoder(spec.model, spec.grid) + spec.model.width * classes
    slots, tokens = spec.grid[0], math.prod(spec.grid)
    masked = slots * spec.hidden
    visible = tokens - masked
    width, decoder = spec.model.width, spec.decoder
    predicted = masked if spec.mask.predicts == "all" else slots * (spec.hidden // 2)
    decoded = visible + predicted
    return (
        encoder(spec.model, spec.grid, visible)
        + visible * width * decoder.width
        + (decoder.depth - 1) * _block(decoded, decoder.width)
        + _block(decoded, decoder.width, predicted)
        + predicted * decoder.width * spec.target_size
    )


def official_multiply_adds(spec: Pretrain) -> int:
    """Return the cost of one clip in VideoMAE's own code: 57.4e9 and 35.4e9 for ViT-B.

    That code embeds hidden tubelets before it drops them, and computes what nobody reads: the
    visible tokens' outputs of the decoder's last block.
    """
    tokens, masked, width = math.prod(spec.grid), spec.grid[0] * spec.hidden, spec.decoder.width
    unread = _block(tokens, width) - _block(tokens, width, masked)
    return multiply_adds(spec) + masked * _pixels(spec.model) * spec.model.width + unread


def train_multiply_adds(spec: Spec) -> float:
    """Return the multiply-adds that a run trains with, to rank runs by length.

    A length in epochs counts 100,000 videos. A run that trains nothing counts as a hundred clips.
    """
    if not isinstance(spec, Pretrain | Finetune):
        return 100.0 * encoder(spec.model, spec.grid)
    clips = spec.optim.steps * spec.optim.batch or spec.optim.epochs * 100_000
    repeats = spec.augment.repeats if isinstance(spec, Finetune) else 1
    return 3.0 * clips * repeats * multiply_adds(spec)


def longest_chains(
    own: Mapping[str, float], before: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Length of the longest chain that starts with each item, its own length included.

    `before`: the items that each waits for.
    """
    chains = dict(own)
    for name in reversed([*TopologicalSorter(before).static_order()]):
        for earlier in before[name]:
            chains[earlier] = max(chains[earlier], own[earlier] + chains[name])
    return chains


def encoder(model: Model, grid: tuple[int, int, int], visible: int = 0) -> int:
    """Cost of one clip, on all tokens of the grid, or on `visible` of them."""
    width, (slots, rows, columns) = model.width, grid
    tokens = visible or math.prod(grid)
    block = _block(tokens, width)
    if model.divided:
        over_time, over_space = tokens * slots, tokens * rows * columns  # pairs of tokens
        # both are one attention over all visible tokens with most pairs forbidden
        # (mgm.models.vit)
        if visible:
            over_time = over_space = tokens**2
        block = tokens * (4 + 1 + 4 + 8) * width**2 + 2 * (over_time + over_space) * width
    return tokens * _pixels(model) * width + model.depth * block


def _block(tokens: int, width: int, outputs: int = 0) -> int:
    """Return a transformer block's cost.

    All tokens need keys and values (2). The wanted `outputs`, by default all, need queries and the
    projection (2) and the MLP (8). Then queries with keys, and weights with values.
    """
    outputs = outputs or tokens
    return (2 * tokens + (2 + 8) * outputs) * width**2 + 2 * outputs * tokens * width


def _pixels(model: Model) -> int:
    return model.channels * model.tubelet * model.patch**2


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
    """What one run takes.

    Attributes:
        train, test: FLOPs.
        decoded: videos decoded to train; a test decodes one clip per temporal view.
        hours: GPU hours.
        checkpoint, weights: bytes of a checkpoint, and of the weights it leaves.
        needs: videos per second that keep a GPU busy in training.
    """

    run_id: str
    stage: str
    train: float
    test: float
    decoded: float
    hours: float
    checkpoint: float
    weights: float
    needs: float


MOST = 10**6  # GPUs, or clips per second of one

# Of bench/gpu.py; jobs compile where they can.
ROWS = [f"ViT-B, pretraining at 0.75, ours {how}" for how in ("compile", "eager")]


def read_measured(folder: Path) -> dict[str, Any]:
    """Read the rate that bench/gpu.py measured in `folder`; empty where there is none.

    Returns:
        `gpu`, `clips_per_s` (of a ViT-B pretraining at ratio 0.75, as jobs train it) and `source`,
        for `machine`.

    Raises:
        UserError: the files are torn.
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
            f"{folder}: not results of bench/gpu.py ({error}); delete the folder and measure again "
            "by `make gpu`"
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
    """Return a machine of `gpus`, at a share of their peak or at a measured rate.

    Args:
        gpus_a_run: GPUs of one run; by default 8, as in a usual node, or all if there are fewer.
        clips_per_s: per GPU, of ViT-B with MGM (ratio 0.75, 16 x 224 x 224), from a run's log.
        decoded: videos per second that one GPU's cores decode; None: always enough.
        source: of the rate, in words.

    Raises:
        UserError: no such GPU, or a run with more than there are.
    """
    if not clips_per_s and gpu not in PEAK:
        raise UserError(
            f"--gpu {gpu}: its peak is not known here; choose one of {', '.join(PEAK)}, or pass "
            "--clips-per-s as measured"
        )
    for option, value in (("--clips-per-s", clips_per_s), ("--gpus", gpus)):
        if value is not None and not value <= MOST:
            raise UserError(f"{option} {value}: choose at most {MOST:,}")
    gpus_a_run = gpus_a_run or min(8, gpus)
    if gpus_a_run > gpus:
        raise UserError(
            f"--gpus-per-run {gpus_a_run}: a run cannot have it of --gpus {gpus}; choose 1 to "
            f"{gpus}"
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


def cost(spec: Spec, videos: Published, machine: Machine) -> Cost:
    """What a run takes on so many videos."""
    train = test = trained = decoded = tested = checkpoint = weights = 0.0
    if isinstance(spec, Pretrain | Finetune | Probe):
        forward = 2.0 * multiply_adds(spec, videos.classes if isinstance(spec, Finetune) else 0)
        # One forward pass of each clip; the classifier on top costs next to nothing.
        if isinstance(spec, Probe):
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
        spec.run_id, spec.stage, train, test, decoded, seconds / 3600, checkpoint, weights, needs
    )


def parameters(spec: Pretrain | Finetune, classes: int) -> int:
    """Weights of a run's model; positions are a fixed table."""
    model = spec.model
    width = model.width
    encoder = (_pixels(model) + 1) * width + model.depth * _block_weights(model)
    if isinstance(spec, Finetune):
        return encoder + 2 * width + (width + 1) * classes
    narrow = spec.decoder.width
    decoder = (
        spec.decoder.depth * _block_weights(Model(width=narrow, heads=spec.decoder.heads))
        + 2 * narrow
        + (narrow + 1) * spec.target_size
    )
    return encoder + 2 * width + width * narrow + narrow + decoder


def _block_weights(model: Model) -> int:
    """Return a block's number of weights.

    Attention (biases of queries, values and the projection), MLP, two norms; a TimeSformer's time
    attention with its norm and its last linear layer.
    """
    width = model.width
    attention = 4 * width**2 + 3 * width
    over_time = attention + 2 * width + width**2 + width if model.divided else 0
    return attention + (8 * width**2 + 5 * width) + 4 * width + over_time


def wall(specs: Sequence[Spec], costs: Mapping[str, Cost], machine: Machine) -> float:
    """Return hours until the last run ends.

    Whenever GPUs are free, the run starts that the longest chain waits for.
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
    """Return the critical path: the longest chain of runs, with their hours."""
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
    # Weights that a user gives are no run.
    waits = {spec.run_id: [parent for parent in parents(spec) if parent in hours] for spec in specs}
    return waits, longest_chains(hours, waits)
