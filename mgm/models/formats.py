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

_OUTSIDE = {
    "encoder.patch_embed.proj": "videomae.embeddings.patch_embeddings.projection",
    "encoder.norm": "videomae.layernorm",
    "encoder_to_decoder": "encoder_to_decoder",
    "decoder.norm": "decoder.norm",
    "decoder.head": "decoder.head",
    "fc_norm": "fc_norm",
    "head": "classifier",
}
_BLOCKS = {
    "encoder.blocks.#": "videomae.encoder.layer.#",
    "decoder.blocks.#": "decoder.decoder_layers.#",
}
_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    **{f"attn.{part}": f"attention.attention.{part}" for part in QKV},
}
_MODULES = _OUTSIDE | {
    f"{at}.{ours}": f"{there}.{theirs}"
    for at, there in _BLOCKS.items()
    for ours, theirs in _BLOCK.items()
}
_BIASES = {
    f"{at}.attn.{x}_bias": f"{there}.attention.attention.{x}_bias"
    for at, there in _BLOCKS.items()
    for x in "qv"
}
# Our name -> Hugging Face's name, with # for a block's number. Biases have the names of version 4,
# which version 5 reads too.
THEIRS = {
    f"{ours}.{kind}": f"{theirs}.{kind}"
    for ours, theirs in _MODULES.items()
    for kind in ("weight", "bias")
}
THEIRS |= {"mask_token": "mask_token"} | _BIASES
OURS = {theirs: ours for ours, theirs in THEIRS.items()}
OURS |= {
    f"{there}.attention.attention.{part}.bias": f"{at}.attn.{part[0]}_bias"
    for at, there in _BLOCKS.items()
    for part in QKV[::2]
}

_OWN = {name for name in THEIRS if not re.search(f"attn.({'|'.join(QKV)})", name)}
_OWN |= {f"{at}.attn.qkv.weight" for at in _BLOCKS}
_OWN |= {
    name.replace(part, f"temporal_{part}")
    for name in _OWN
    for part in ("norm1", "attn")
    if part in name
}  # TimeSformer's
_OWN |= {f"{at}.temporal_fc.{kind}" for at in _BLOCKS for kind in ("weight", "bias")}
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


def to_ours(weights: dict[str, Tensor], path: Path, tokens: int = 0) -> dict[str, Tensor]:
    """Return weights of any of the three formats under our names.

    The format follows from the names. Fixed position tables are left out, since they are not
    weights. The parts of later methods (`OTHERS`) are left out too.

    Args:
        tokens: number of positions of the model's own table, if known.

    Raises:
        UserError: a name belongs to no format, two names mean the same weight, a part of queries,
            keys and values is missing, or the positions were learned or have another number.
    """
    plain: dict[str, Tensor] = {}
    for name, value in weights.items():
        short = PREFIXES.sub("", name)
        if short in plain:
            raise UserError(
                f"{path}: holds {short} twice, under different prefixes; "
                "save one model's state_dict alone"
            )
        plain[short] = value
    kept = {name: value for name, value in plain.items() if not POSITIONS.search(name)}
    for name in plain.keys() - kept.keys():
        _require_fixed(plain[name], name, path, tokens if "decoder" not in name else 0)
    kept = _without_key_bias(
        {name: value for name, value in kept.items() if not OTHERS.fullmatch(name)}
    )
    if any("patch_embeddings." in name for name in kept):
        named = {_from_huggingface(name): name for name in kept}
    elif any(name.startswith(("blocks.", "patch_embed.")) for name in kept):
        named = {
            f"encoder.{name}"
            if name.startswith(("blocks.", "patch_embed.", "norm."))
            else name: name
            for name in kept
        }
    else:
        named = {name: name for name in kept}
    if len(named) < len(kept):
        twice = listed(kept.keys() - named.values())
        raise UserError(
            f"{path}: {twice} and another name mean the same weight; "
            "save one model's state_dict alone"
        )
    known = _OWN | THEIRS.keys()
    if unknown := [theirs for ours, theirs in named.items() if _template(ours)[0] not in known]:
        raise UserError(
            f"{path}: {len(unknown)} of {len(weights)} names are neither ours, VideoMAE's nor "
            f"Hugging Face's: {listed(unknown)}; it is a checkpoint of another model"
        )
    return _joined({ours: kept[theirs] for ours, theirs in named.items()}, path)


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
        if name.endswith(".qkv.weight"):
            parts |= {
                name.replace("qkv", part): matrix.contiguous()
                for part, matrix in zip(QKV, value.chunk(3))
            }
        else:
            parts[name] = value
    return {_renamed(name, THEIRS): value for name, value in parts.items()}


def _from_huggingface(name: str) -> str:
    """Return our name for one of Hugging Face's, or the same if there is none.

    The names of a VideoMAEModel lack `videomae.`.
    """
    bare = name.startswith(("embeddings.", "encoder.layer.", "layernorm."))
    return _renamed(f"videomae.{name}" if bare else name, OURS)


def _renamed(name: str, names: dict[str, str]) -> str:
    template, number = _template(name)
    return names[template].replace("#", number) if template in names else name


def _template(name: str) -> tuple[str, str]:
    number = re.search(r"(?<=\.)\d+(?=\.)", name)
    return (
        (name[: number.start()] + "#" + name[number.end() :], number[0]) if number else (name, "")
    )


def _joined(parts: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Join the matrices of queries, keys and values into one."""
    weights = dict(parts)
    for name in parts:
        if (
            of_block := re.match(rf"(.*\.attn\.)({'|'.join(QKV)})\.weight$", name)
        ) and f"{of_block[1]}qkv.weight" not in weights:
            three = [f"{of_block[1]}{part}.weight" for part in QKV]
            if missing := [part for part in three if part not in weights]:
                raise UserError(
                    f"{path}: has {name}, but no {listed(missing)}; pass the whole checkpoint"
                )
            if len({weights[part].shape[1:] for part in three}) > 1:
                raise UserError(
                    f"{path}: {listed(three)} differ in width; it is a checkpoint of another model"
                )
            weights[f"{of_block[1]}qkv.weight"] = torch.cat([weights.pop(part) for part in three])
    return weights


def _without_key_bias(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split one bias of queries, keys and values, as in TrackMAE and timm, and drop that of keys.

    A bias of keys adds the same number to all scores of a query, so the softmax removes it.
    """
    split: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.endswith(".attn.qkv.bias"):
            query, _, of_value = value.chunk(3)
            split |= {
                name.replace("qkv.bias", "q_bias"): query,
                name.replace("qkv.bias", "v_bias"): of_value,
            }
        else:
            split[name] = value
    return split


def _require_fixed(table: Tensor, name: str, path: Path, tokens: int) -> None:
    # The tolerance is that of half precision.
    if table.ndim < 2 or not torch.allclose(
        table.float(), sinusoid_table(*table.shape[-2:]), atol=1e-2
    ):
        raise UserError(
            f"{path}: {name} is not VideoMAE's fixed sine-cosine table, and models here have no "
            "learned positions; pass weights with fixed positions"
        )
    if tokens and table.shape[-2] != tokens:
        raise UserError(
            f"{path}: {name} is for {table.shape[-2]} tokens, and the model's clips have {tokens}; "
            "to interpolate, set model.positions to the slots, rows and columns of the clips that "
            "the weights were trained on"
        )
