"""The compute of a clip and the size of a model, by formula from a spec.

Only matrix products count, as in papers.
"""

import math

from mgm.spec.run_specs import Finetune, Model, Pretrain, Probe

# FLOP/s of dense 16-bit matrix products, from NVIDIA's data sheets: with float32 accumulation and
# without sparsity. The pinned PyTorch supports all of them.
PEAK = {
    "a100": 312e12,
    "h100": 989e12,
    "h200": 989e12,
    "rtx4090": 165.2e12,
    "a5000": 111.1e12,
}


def peak_of(gpu: str) -> float:
    """Return the FLOP/s in `PEAK` of a GPU by the driver's name of it; 0 if it is not known."""
    name = gpu.lower().replace(" ", "")
    return next((peak for known, peak in PEAK.items() if known in name), 0.0)


def passes(spec: Pretrain | Finetune) -> int:
    """Return how many forward passes a training step takes as long as.

    A backward pass takes two. A frozen encoder has none, and its head is small.
    """
    return 1 if isinstance(spec, Finetune) and spec.head == "attentive" else 3


def multiply_adds(spec: Pretrain | Finetune | Probe, classes: int = 0) -> int:
    """Return the multiply-adds of one clip of pretraining, or of one view otherwise.

    With `classes`, the classifier's last layer counts too. ViT-B at 16 x 224 x 224 takes 180.3e9
    per view (180 GFLOPs in Table 1). Its pretraining takes 55.0e9 at mask ratio 0.75, and 33.4e9
    at 0.9.
    """
    slots, tokens, width = spec.grid[0], math.prod(spec.grid), spec.model.width
    if not isinstance(spec, Pretrain):
        head = width * classes
        if isinstance(spec, Finetune) and spec.head == "attentive":
            # Its single query is the same for all clips, so it does not count.
            head += 2 * tokens * spec.model.heads * width + (1 + 8) * width**2
        return encoder_multiply_adds(spec.model, spec.grid) + head
    masked = slots * spec.hidden
    visible = tokens - masked
    decoder = spec.decoder
    return (
        encoder_multiply_adds(spec.model, spec.grid, visible)
        + visible * width * decoder.width
        + (decoder.depth - 1) * _block(tokens, decoder.width)
        + _block(tokens, decoder.width, masked)
        + masked * decoder.width * _pixels(spec.model)
    )


def encoder_multiply_adds(model: Model, grid: tuple[int, int, int], visible: int = 0) -> int:
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
    return 3 * model.tubelet * model.patch**2


def parameters(spec: Pretrain | Finetune, classes: int) -> int:
    """Return the number of parameters of a run's model. Its position table is not trained."""
    model = spec.model
    width = model.width
    encoder = (_pixels(model) + 1) * width + model.depth * _block_weights(model)
    if isinstance(spec, Finetune):
        # A norm, or the block of an attentive head with a second norm of the encoder.
        head = 2 * width if spec.head == "linear" else 11 * width**2 + 14 * width
        return encoder + head + (width + 1) * classes
    narrow = spec.decoder.width
    decoder = (
        spec.decoder.depth * _block_weights(Model(width=narrow, heads=spec.decoder.heads))
        + 2 * narrow
        + (narrow + 1) * _pixels(model)
    )
    return encoder + 2 * width + width * narrow + narrow + decoder


# Bytes that a compiled bf16 step keeps for its backward pass, per token and channel of a block, and
# per predicted value. PyTorch's partitioner counts 144 MiB per clip of ViT-B at mask ratio 0.9, 209
# at 0.75, and 473 in fine-tuning. Divided attention is estimated: it has two attentions per block.
KEPT, KEPT_DIVIDED, KEPT_RECOMPUTED, KEPT_PREDICTED = 34.3, 50, 4, 8


def kept_bytes(spec: Pretrain | Finetune, recompute: bool = False) -> float:
    """Return the bytes of a GPU's memory that a training step needs per clip."""
    model, tokens = spec.model, math.prod(spec.grid)
    block = KEPT_DIVIDED if model.divided else KEPT
    block = KEPT_RECOMPUTED if recompute else block
    if isinstance(spec, Finetune):
        if spec.head == "attentive":
            # The frozen encoder keeps nothing.
            return KEPT * tokens * model.width
        return block * tokens * model.width * model.depth
    decoder, hidden = spec.decoder, spec.grid[0] * spec.hidden
    encoded = block * (tokens - hidden) * model.width * model.depth
    decoded = (KEPT_RECOMPUTED if recompute else KEPT) * tokens * decoder.width * decoder.depth
    return encoded + decoded + KEPT_PREDICTED * hidden * _pixels(model)


def gpu_bytes(
    spec: Pretrain | Finetune, clips: int, parts: int, classes: int, recompute: bool = False
) -> float:
    """Estimate the bytes of a GPU's memory that a run needs, by formula.

    Weights, gradients and AdamW's two moments have four bytes each. Besides, a step has its clips
    as uint8, twice since the next ones are copied meanwhile, and one micro-batch in work.

    Args:
        clips: per step and process.
        parts: micro-batches per step.
    """
    frames = 3 * spec.clips.frames * spec.clips.size**2
    most = kept_bytes(spec, recompute) * clips / parts
    return 16.0 * parameters(spec, classes) + 2.0 * frames * clips + most


def _block_weights(model: Model) -> int:
    """Return the number of parameters of a transformer block.

    They belong to attention (with biases of queries, values and the projection), the MLP and two
    norms. A TimeSformer adds time attention, its norm and its last linear layer.
    """
    width = model.width
    attention = 4 * width**2 + 3 * width
    over_time = attention + 2 * width + width**2 + width if model.divided else 0
    return attention + (8 * width**2 + 5 * width) + 4 * width + over_time
