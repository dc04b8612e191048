"""Convert the names of weights: ours, those of VideoMAE's official code, and Hugging Face's.

Our names are VideoMAE's pretraining names. Its fine-tuning names lack our `encoder.`. Hugging Face
has other names for all, and three matrices for queries, keys and values instead of one. Its biases
of queries and values are `q_bias` and `v_bias` in version 4, and `query.bias` and `value.bias` in
version 5. Tensors are only cut and joined, so every round trip is bit-equal.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from mgm.errors import UserError
from mgm.models.vit import sinusoid_table

# Prefixes of DDP, of torch.compile, and of wrappers of VideoMAE's models.
PREFIXES = re.compile(r"^(module\.|_orig_mod\.|model\.|backbone\.)+")
QKV = ("query", "key", "value")

# Parts of our names and of Hugging Face's, replaced in this order. ^ is the start of a name.
HUGGINGFACE = (
    ("^encoder.patch_embed.proj.", "^videomae.embeddings.patch_embeddings.projection."),
    ("^encoder.blocks.", "^videomae.encoder.layer."),
    ("^encoder.norm.", "^videomae.layernorm."),
    ("^decoder.blocks.", "^decoder.decoder_layers."),
    ("^head.", "^classifier."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    (".attn.", ".attention.attention."),
)
# All our names, with the parts of queries, keys and values that `_joined` joins.
OURS = re.compile(
    r"""mask_token
    | (encoder\.patch_embed\.proj | encoder_to_decoder | (en|de)coder\.norm | (decoder\.)?head
        | fc_norm | pooler\.(norm[12]|[qkv]|fc[12]))\.(weight|bias)
    | pooler\.query
    | (en|de)coder\.blocks\.\d+\.(
        ((temporal_)?(norm1|attn\.proj) | norm2 | mlp\.fc[12] | attn\.(query|key|value)
            | temporal_fc)\.(weight|bias)
        | (temporal_)?attn\.(qkv\.weight|[qv]_bias))""",
    re.VERBOSE,
)
# Parts of later methods that no model here has.
OTHERS = re.compile(
    r"encoder\.(pos_embed_probs|get_token_probs\..+)"  # AdaMAE's sampler of tokens
    r"|decoder\.\d+\..+|encoder_to_decoder\.\d+\.weight"  # MME's decoders, one per target
    # SIGMA's clusters and its projection of targets
    r"|prototypes|memory|memory_pred_head\..+|head\.\d+\..+"
    r"|tracker_decoder\..+|encoder_to_tracker\.weight"  # TrackMAE's second decoder
)
POSITIONS = re.compile(r"(^|\.)(pos_embed|position_embeddings|decoder_pos_embed)$")


def listed(names: Iterable[str]) -> str:
    """Return the first names in order, and the number of the others."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


def is_huggingface(names: Iterable[str]) -> bool:
    """Return whether names of weights are Hugging Face's."""
    return any("patch_embeddings." in name for name in names)


def to_ours(weights: dict[str, Tensor], path: Path, tokens: int = 0) -> dict[str, Tensor]:
    """Return weights of any of the three formats under our names.

    The format follows from the names. Fixed position tables are left out, since they are not
    weights. The parts of later methods (`OTHERS`) are left out too.

    Args:
        tokens: number of positions of the model's own table, if known.
    """
    short_of = {theirs: PREFIXES.sub("", theirs) for theirs in weights}
    from_huggingface = is_huggingface(weights)
    lack_encoder = any(short.startswith(("blocks.", "patch_embed.")) for short in short_of.values())
    kept, unknown = dict[str, Tensor](), list[str]()
    for theirs, short in short_of.items():
        if POSITIONS.search(short):
            _require_fixed(weights[theirs], short, path, tokens if "decoder" not in short else 0)
            continue
        if OTHERS.fullmatch(short):
            continue
        name = short
        if from_huggingface:
            name = _from_huggingface(short)
        elif lack_encoder and short.startswith(("blocks.", "patch_embed.", "norm.")):
            name = f"encoder.{short}"
        for ours, value in _without_key_bias(name, weights[theirs]):
            if ours in kept:
                raise UserError(f"{path}: {theirs} and another name mean the same weight")
            kept[ours] = value
            if not OURS.fullmatch(ours):
                unknown.append(theirs)
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of {len(weights)} names are neither ours, VideoMAE's nor "
            f"Hugging Face's: {listed(unknown)}"
        )
    return _joined(kept, path)


def to_videomae(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights under VideoMAE's names.

    They are those of PretrainVisionTransformer, or of VisionTransformer for a classifier.
    """
    classifier = "fc_norm.weight" in weights
    return {
        name.removeprefix("encoder.") if classifier else name: value
        for name, value in weights.items()
    }


def to_huggingface(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights under Hugging Face's names.

    They are those of VideoMAEForPreTraining, or of VideoMAEForVideoClassification for a classifier.
    """
    parts: dict[str, Tensor] = {}
    for name, value in weights.items():
        theirs = f"^{name}"
        for ours, other in HUGGINGFACE:
            theirs = theirs.replace(ours, other)
        theirs = theirs.removeprefix("^")
        if name.endswith(".qkv.weight"):
            parts |= {
                theirs.replace("qkv", part): matrix.contiguous()
                for part, matrix in zip(QKV, value.chunk(3))
            }
        else:
            parts[theirs] = value
    return parts


def _from_huggingface(name: str) -> str:
    """Return our name for one of Hugging Face's. Those of a VideoMAEModel lack `videomae.`."""
    bare = name.startswith(("embeddings.", "encoder.layer.", "layernorm."))
    name = f"^videomae.{name}" if bare else f"^{name}"
    for ours, theirs in HUGGINGFACE:
        name = name.replace(theirs, ours)
    return re.sub(r"\.attn\.(q)uery\.bias$|\.attn\.(v)alue\.bias$", r".attn.\1\2_bias", name[1:])


def _joined(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Join the matrices of queries, keys and values into one."""
    blocks = {re.sub(rf"\.({'|'.join(QKV)})\.weight$", "", name): name for name in weights}
    for attention, name in blocks.items():
        if attention == name or (joined := f"{attention}.qkv.weight") in weights:
            continue
        three = [f"{attention}.{part}.weight" for part in QKV]
        if missing := [part for part in three if part not in weights]:
            raise UserError(
                f"{path}: has {listed(set(three) - set(missing))}, but no {listed(missing)}"
            )
        if len({weights[part].shape[1:] for part in three}) > 1:
            raise UserError(f"{path}: {listed(three)} differ in width")
        weights[joined] = torch.cat([weights.pop(part) for part in three])
    return weights


def _without_key_bias(name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """Split one bias of queries, keys and values, as in TrackMAE and timm, and drop that of keys.

    A bias of keys adds the same number to all scores of a query, so the softmax removes it.
    """
    if not name.endswith(".attn.qkv.bias"):
        return [(name, value)]
    query, _, of_value = value.chunk(3)
    at = name.removesuffix("qkv.bias")
    return [(f"{at}q_bias", query), (f"{at}v_bias", of_value)]


def _require_fixed(table: Tensor, name: str, path: Path, tokens: int) -> None:
    # The tolerance is that of half precision.
    if table.ndim < 2 or not torch.allclose(
        table.float(), sinusoid_table(*table.shape[-2:]), atol=1e-2
    ):
        raise UserError(f"{path}: {name} is not VideoMAE's fixed table of sines and cosines")
    if tokens and table.shape[-2] != tokens:
        raise UserError(
            f"{path}: {name} is for {table.shape[-2]} tokens, and the model's clips have {tokens}"
        )
