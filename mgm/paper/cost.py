"""The cost of a clip and of a run: multiply-adds by formula, FLOPs, hours and bytes.

A training step takes three times the multiply-adds of a forward pass. Only matrix products count,
as in papers.
"""

import heapq
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.paper import recipes
from mgm.paper.quoted import PEAK
from mgm.reading import read_json, read_text
from mgm.spec import Finetune, Model, Pretrain, Probe, Published, Spec, parents
from mgm.spec.values import TOKEN_KINDS


def multiply_adds(spec: Pretrain | Finetune | Probe, classes: int = 0) -> int:
    """Return the multiply-adds of one clip of pretraining, or of one view otherwise.

    With `classes`, the classifier's last layer counts too. ViT-B at 16 x 224 x 224 takes 180.3e9
    per view (180 GFLOPs in Table 1). Its pretraining takes 55.0e9 at mask ratio 0.75, and 33.4e9
    at 0.9.
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
    """Return the multiply-adds of one clip in VideoMAE's own code.

    ViT-B takes 57.4e9 at mask ratio 0.75, and 35.4e9 at 0.9. That code embeds masked tubelets
    before it drops them. Its last decoder block also computes outputs of visible tokens, which
    are not used.
    """
    tokens, masked, width = math.prod(spec.grid), spec.grid[0] * spec.hidden, spec.decoder.width
    unread = _block(tokens, width) - _block(tokens, width, masked)
    return multiply_adds(spec) + masked * _pixels(spec.model) * spec.model.width + unread


def train_multiply_adds(spec: Spec) -> float:
    """Return the multiply-adds of a run's training, to rank runs by length.

    An epoch counts as 100,000 videos. A run without training counts as 100 clips.
    """
    if not isinstance(spec, Pretrain | Finetune):
        return 100.0 * encoder(spec.model, spec.grid)
    clips = spec.optim.steps * spec.optim.batch or spec.optim.epochs * 100_000
    repeats = spec.augment.repeats if isinstance(spec, Finetune) else 1
    return 3.0 * clips * repeats * multiply_adds(spec)


def longest_chains(
    own: Mapping[str, float], before: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Return the length of the longest chain that starts with each item.

    Args:
        own: the length of each item, which its chain includes.
        before: the items that each item waits for.
    """
    chains = dict(own)
    for name in reversed([*TopologicalSorter(before).static_order()]):
        for earlier in before[name]:
            chains[earlier] = max(chains[earlier], own[earlier] + chains[name])
    return chains


def encoder(model: Model, grid: tuple[int, int, int], visible: int = 0) -> int:
    """Return the encoder's multiply-adds of one clip, with all or `visible` tokens of the grid."""
    width, (slots, rows, columns) = model.width, grid
    tokens = visible or math.prod(grid)
    block = _block(tokens, width)
    if model.divided:
        # Pairs of tokens that attend to each other.
        over_time, over_space = tokens * slots, tokens * rows * columns
        # On visible tokens alone, both compute attention over all pairs and mask most of them
        # (mgm.models.vit).
        if visible:
            over_time = over_space = tokens**2
        block = tokens * (4 + 1 + 4 + 8) * width**2 + 2 * (over_time + over_space) * width
    return tokens * _pixels(model) * width + model.depth * block


def _block(tokens: int, width: int, outputs: int = 0) -> int:
    """Return the multiply-adds of a transformer block.

    In units of width²: keys and values cost 2 per token. Queries and the projection cost 2 per
    output token, and the MLP costs 8; `outputs` is by default all tokens. The second term is the
    products of queries with keys, and of attention weights with values.
    """
    outputs = outputs or tokens
    return (2 * tokens + (2 + 8) * outputs) * width**2 + 2 * outputs * tokens * width


def _pixels(model: Model) -> int:
    return model.channels * model.tubelet * model.patch**2


CHECKPOINTS = 3  # on disk at once: two that are kept, and one that is being written

# Bytes per parameter: with AdamW's two moments, and alone.
STATE_BYTES, WEIGHT_BYTES = 12, 4


@dataclass(frozen=True)
class Machine:
    """The GPUs of a plan.

    Attributes:
        flops: FLOP/s that one GPU sustains.
        gpus_a_run: GPUs per run.
        decoded: videos per second that the cores of one GPU decode.
        source: where `flops` comes from.
        augmented: clips per second that these cores change by RandAugment.
        tokens: bytes per second of the tokens that a probe reads back.
    """

    name: str
    flops: float
    gpus: int
    gpus_a_run: int
    decoded: float = math.inf
    source: str = ""
    augmented: float = math.inf
    tokens: float = math.inf

    @property
    def slots(self) -> int:
        """Runs that train at the same time."""
        return self.gpus // self.gpus_a_run


@dataclass(frozen=True)
class Cost:
    """The cost of one run.

    Attributes:
        train, test: FLOPs.
        decoded: videos decoded for training.
        hours: GPU hours.
        checkpoint, weights: bytes of a checkpoint, and of the final weights.
        needs: videos per second that keep a GPU busy in training.
        reread_h: hours in which a probe reads its tokens back.
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
    reread_h: float = 0.0


MOST = 10**6  # GPUs, or clips per second of one GPU

# Rows of bench/gpu.py. The compiled one comes first, since jobs compile where they can.
ROWS = [f"ViT-B, pretraining at 0.75, ours {how}" for how in ("compile", "eager")]


def read_measured(folder: Path) -> dict[str, Any]:
    """Read the training rate that bench/gpu.py measured in `folder`.

    Returns:
        The arguments `gpu`, `clips_per_s` (of ViT-B pretraining at mask ratio 0.75) and `source`
        of `machine`. Empty if nothing was measured.

    Raises:
        UserError: the files are damaged.
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
        gpus_a_run: GPUs per run; by default 8, as in a usual node, or all if there are fewer.
        clips_per_s: measured rate per GPU, of pretraining ViT-B with MGM (mask ratio 0.75,
            16 x 224 x 224).
        decoded: videos per second that the cores of one GPU decode; None: always enough.
        source: where the rate comes from.

    Raises:
        UserError: the GPU is unknown, or a run has more GPUs than there are.
    """
    if not clips_per_s and gpu not in PEAK:
        raise UserError(
            f"--gpu {gpu}: its peak is unknown; choose one of {', '.join(PEAK)}, or give "
            "--clips-per-s as measured"
        )
    for option, value in (("--clips-per-s", clips_per_s), ("--gpus", gpus)):
        if value is not None and not value <= MOST:
            raise UserError(f"{option} {value}: choose at most {MOST:,}")
    gpus_a_run = gpus_a_run or min(8, gpus)
    if gpus_a_run > gpus:
        raise UserError(
            f"--gpus-per-run {gpus_a_run}: is more than --gpus {gpus}; choose 1 to {gpus}"
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
    """Return the cost of a run on a dataset of this size."""
    train = test = trained = decoded = tested = checkpoint = weights = 0.0
    augmented = reread = 0.0
    if isinstance(spec, Pretrain | Finetune | Probe):
        forward = 2.0 * multiply_adds(spec, videos.classes if isinstance(spec, Finetune) else 0)
        # One forward pass of each clip; the classifier on top costs next to nothing.
        if isinstance(spec, Probe):
            decoded = trained = float(spec.train_clips * videos.train)
            train = trained * forward
            if spec.kind in TOKEN_KINDS:
                # Once on all clips, and before that on those that choose the learning rate.
                reread = ATTENTIVE_PASSES * trained * token_bytes(spec)
        else:
            repeats = spec.augment.repeats if isinstance(spec, Finetune) else 1
            steps = spec.optim.steps or spec.optim.epochs * (videos.train // spec.optim.batch)
            decoded = float(steps * spec.optim.batch)
            trained = decoded * repeats
            if isinstance(spec, Finetune) and spec.augment.rand:
                augmented = trained
            train = 3.0 * trained * forward
            checkpoint = float(STATE_BYTES * parameters(spec, videos.classes))
            weights = float(WEIGHT_BYTES * parameters(spec, videos.classes))
        if not isinstance(spec, Pretrain):
            test = videos.test * spec.views.temporal * spec.views.spatial * forward
            tested = float(videos.test * spec.views.temporal)
    read = decoded / machine.decoded + augmented / machine.augmented
    seconds = max(train / machine.flops, read) + reread / machine.tokens
    seconds += max(test / machine.flops, tested / machine.decoded)
    needs = decoded / (train / machine.flops) if train else 0.0
    return Cost(
        spec.run_id,
        spec.stage,
        train,
        test,
        decoded,
        seconds / 3600,
        checkpoint,
        weights,
        needs,
        reread / machine.tokens / 3600,
    )


# 20 epochs on four fifths of the clips, then on all (mgm.stages.probe_kinds).
ATTENTIVE_PASSES = 20 * (0.8 + 1)


def token_bytes(spec: Probe) -> float:
    """Return the bytes of one clip's tokens: 2 bytes per value."""
    return 2.0 * math.prod(spec.grid) * spec.model.width


def parameters(spec: Pretrain | Finetune, classes: int) -> int:
    """Return the number of parameters of a run's model. Its position table is not trained."""
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
    """Return the number of parameters of a transformer block.

    They belong to attention (with biases of queries, values and the projection), the MLP and two
    norms. A TimeSformer adds time attention, its norm and its last linear layer.
    """
    width = model.width
    attention = 4 * width**2 + 3 * width
    over_time = attention + 2 * width + width**2 + width if model.divided else 0
    return attention + (8 * width**2 + 5 * width) + 4 * width + over_time


def wall(specs: Sequence[Spec], costs: Mapping[str, Cost], machine: Machine) -> float:
    """Return the hours until the last run ends.

    Whenever GPUs are free, the run with the longest chain behind it starts.
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
    """Return the runs that each run waits for, and the GPU hours of its longest chain."""
    hours = {spec.run_id: costs[spec.run_id].hours for spec in specs}
    # A parent without hours is a file of weights from the user, not a run.
    waits = {spec.run_id: [parent for parent in parents(spec) if parent in hours] for spec in specs}
    return waits, longest_chains(hours, waits)
