"""The names that weights have: ours, those of VideoMAE's official code (V) and those of Hugging
Face's VideoMAE.

Ours are V's pretraining names (RECIPES). V's finetuning names lack our `encoder.`. Hugging Face has
other names for all, and three matrices for the one of queries, keys and values; the biases of
queries and values are `q_bias`, `v_bias` in its 4.x and `query.bias`, `value.bias` in its 5.x.
Tensors are never changed, only cut and joined, so every round trip is bit-equal.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from mgm.errors import UserError
from mgm.models.vit import sinusoid_table

PREFIXES = re.compile(
    r"^(module\.|_orig_mod\.|model\.|backbone\.)+"
)  # of DDP, torch.compile, and wrappers of V's models
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
# Names with # for a block's number; the 4.x biases, which 5.x reads too
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
# What later methods pretrain beside a ViT and VideoMAE's decoder, and no model here takes: parts of
# targets, samplers, other decoders
OTHERS = re.compile(
    r"encoder\.(pos_embed_probs|get_token_probs\..+)"  # AdaMAE's sampler of tokens
    r"|decoder\.\d+\..+|encoder_to_decoder\.\d+\.weight"  # MME's decoders, one a target
    # SIGMA's clusters and its projection of targets
    r"|prototypes|memory|memory_pred_head\..+|head\.\d+\..+"
    r"|tracker_decoder\..+|encoder_to_tracker\.weight"  # TrackMAE's second decoder
)
POSITIONS = re.compile(r"(^|\.)(pos_embed|position_embeddings|decoder_pos_embed)$")


def listed(names: Iterable[str]) -> str:
    """The first names of many, in order, and how many more there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


def to_ours(weights: dict[str, Tensor], path: Path, tokens: int = 0) -> dict[str, Tensor]:
    """Weights in any of the three formats, told apart by their names, under ours. Fixed position
    tables are no weights and are left out, as are the parts of later methods that no model of ours
    has (`OTHERS`). `tokens`: positions that the model's own table has, if it is known.

    Raises:
        UserError: names that no format has, two of one name, a part of queries, keys and values, or
            positions that were learned or are of another number of tokens.
    """
    plain: dict[str, Tensor] = {}
    for name, value in weights.items():
        short = PREFIXES.sub("", name)
        if short in plain:
            raise UserError(
                f"{path}: holds {short} twice, under different prefixes; save one model's state_dict alone"
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
            f"{path}: {twice} and another name mean the same weight; save one model's state_dict alone"
        )
    known = _OWN | THEIRS.keys()
    if unknown := [theirs for ours, theirs in named.items() if _template(ours)[0] not in known]:
        raise UserError(
            f"{path}: {len(unknown)} of {len(weights)} names are neither ours, VideoMAE's nor Hugging Face's: {listed(unknown)}; "
            "it is a checkpoint of another model"
        )
    return _joined({ours: kept[theirs] for ours, theirs in named.items()}, path)


def to_videomae(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under V's names:

    those of PretrainVisionTransformer, or of VisionTransformer for a classifier.
    """
    classifier = "fc_norm.weight" in weights
    return {
        name.removeprefix("encoder.") if classifier else name: value
        for name, value in weights.items()
    }


def to_huggingface(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the names of Hugging Face's VideoMAEForPreTraining or
    VideoMAEForVideoClassification.
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
    """Our name, or the same where there is none.

    VideoMAEModel alone has no `videomae.` before its names.
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
    """Queries', keys' and values' matrices as one."""
    weights = dict(parts)
    for name in parts:
        if (
            of_block := re.match(rf"(.*\.attn\.)({'|'.join(QKV)})\.weight$", name)
        ) and f"{of_block[1]}qkv.weight" not in weights:
            three = [f"{of_block[1]}{part}.weight" for part in QKV]
            if missing := [part for part in three if part not in weights]:
                raise UserError(
                    f"{path}: has {name}, but no {listed(missing)}; it is not a whole checkpoint"
                )
            if len({weights[part].shape[1:] for part in three}) > 1:
                raise UserError(
                    f"{path}: {listed(three)} differ in width; it is a checkpoint of another model"
                )
            weights[f"{of_block[1]}qkv.weight"] = torch.cat([weights.pop(part) for part in three])
    return weights


def _without_key_bias(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """TrackMAE's and timm's one bias of queries, keys and values as two: a bias of keys adds the
    same to all scores of a query, which the softmax does not see."""
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
    if table.ndim < 2 or not torch.allclose(
        table.float(), sinusoid_table(*table.shape[-2:]), atol=1e-2
    ):  # half precision's 3 digits
        raise UserError(
            f"{path}: {name} is not VideoMAE's fixed sine-cosine table; our models cannot take positions that were learned"
        )
    if tokens and table.shape[-2] != tokens:
        raise UserError(
            f"{path}: {name} is for {table.shape[-2]} tokens, the model's clips have {tokens}; to interpolate, set model.positions to "
            "the slots, rows and columns the weights were made for"
        )
