"""What a clip costs: the multiply-adds of one forward pass, by formula. Its training step takes
three times as many.

Matrix products alone are counted, as papers do.
"""

import math
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

from mgm.spec import Finetune, Model, Pretrain, Probe, Spec


def multiply_adds(spec: Pretrain | Finetune | Probe, classes: int = 0) -> int:
    """Cost of one clip: of pretraining, or a view in finetuning, probing and testing (with
    `classes`, the classifier's last layer too).

    ViT-B at 16 x 224 x 224: 180.3e9 a view (Table 1's 180 GFLOPs); pretraining 55.0e9 at mask ratio
    0.75, 33.4e9 at 0.9.
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
        + predicted * decoder.width * _pixels(spec.model)
    )


def official_multiply_adds(spec: Pretrain) -> int:
    """Cost of one clip in VideoMAE's own code, 57.4e9 and 35.4e9 for ViT-B: it embeds hidden
    tubelets before it drops them, and computes what nobody reads, the visible tokens' outputs of
    the decoder's last block."""
    tokens, masked, width = math.prod(spec.grid), spec.grid[0] * spec.hidden, spec.decoder.width
    unread = _block(tokens, width) - _block(tokens, width, masked)
    return multiply_adds(spec) + masked * _pixels(spec.model) * spec.model.width + unread


def train_flops(spec: Spec) -> float:
    """Multiply-adds that a run trains with, on 100,000 videos if its length is in epochs: to tell
    long runs from short ones. A run that trains nothing counts as a hundred of its clips."""
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
    if model.backbone == "timesformer":
        over_time, over_space = tokens * slots, tokens * rows * columns  # pairs of tokens
        # both are one attention over all visible tokens with most pairs forbidden
        # (mgm.models.timesformer)
        if visible:
            over_time = over_space = tokens**2
        block = tokens * (4 + 1 + 4 + 8) * width**2 + 2 * (over_time + over_space) * width
    return tokens * _pixels(model) * width + model.depth * block


def _block(tokens: int, width: int, outputs: int = 0) -> int:
    """Keys and values (2) of all tokens; queries and projection (2) and MLP (8) of the `outputs`
    that are wanted, by default all; queries with keys, weights with values."""
    outputs = outputs or tokens
    return (2 * tokens + (2 + 8) * outputs) * width**2 + 2 * outputs * tokens * width


def _pixels(model: Model) -> int:
    return model.channels * model.tubelet * model.patch**2
