"""Read and write weights: of mgm, of VideoMAE's code and its successors, and of Hugging Face.

Our names are those of VideoMAE's pretraining model. Its fine-tuning names lack our `encoder.`.
Hugging Face has other names for all, and three matrices for queries, keys and values instead of
one. Tensors are only cut and joined, so every round trip is bit-equal. No code in a file runs.
"""

import argparse
import hashlib
import math
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, PositiveInt
from safetensors.torch import load, save
from torch import Tensor, nn

from mgm.console import show
from mgm.errors import UserError, valid
from mgm.files import read_json, replacing
from mgm.models.vit import IMAGENET_MEAN, IMAGENET_STD, sinusoid_table
from mgm.spec import BACKBONES, Model

# In a folder: our own name, then Hugging Face's.
IN_FOLDERS = ("weights.safetensors", "model.safetensors", "pytorch_model.bin")
PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")

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
QKV = ("query", "key", "value")
# Parts of later methods that no model here has. They are not loaded.
LATER = re.compile(
    r"encoder\.(pos_embed_probs|get_token_probs\..+)"  # AdaMAE's sampler of tokens
    r"|decoder\.\d+\..+|encoder_to_decoder\.\d+\.weight"  # MME's decoders, one per target
    r"|prototypes|memory|memory_pred_head\..+|head\.\d+\..+"  # SIGMA's clusters and projection
    r"|tracker_decoder\..+|encoder_to_tracker\.weight"  # TrackMAE's second decoder
)
POSITIONS = re.compile(r"(^|\.)(pos_embed|position_embeddings|decoder_pos_embed)$")
NOT_ENCODER = ("decoder.", "encoder_to_decoder.", "mask_token", "head.", "pooler.")
NORMS = ("encoder.norm.", "fc_norm.")

# VideoMAE saves {"model": weights, ...}, VideoMAE V2 {"module": weights, ...}.
WRAPPERS = ("model", "module", "state_dict")
_scalar = np.float64(0).__reduce__()[0]
# VideoMAE's checkpoints also hold its arguments, and learning rates as numbers of NumPy 1 or 2.
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all parameters in float32, in one step."""
    state = model.state_dict().items()
    weights = {name: value.detach().float().contiguous().cpu() for name, value in state}
    with replacing(path) as temporary:
        temporary.write_bytes(save(weights))


def load_weights(model: nn.Module, path: Path) -> None:
    """Load all weights in a file into a model."""
    weights = read_weights(path)
    _drop_norm(model, weights, path)
    _fill(model, weights, path)


def load_encoder(model: nn.Module, path: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Load the encoder in a file into `model.encoder`. The decoder and the head are not loaded.

    A pretrained encoder has the norm `encoder.norm`, and a fine-tuned one has `fc_norm`. It is
    loaded if the model has one of this name.

    Args:
        weights: what `read_weights` has read of the file.
    """
    weights = weights or read_weights(path)
    _drop_norm(model, weights, path)
    own = model.state_dict()
    kept = {
        name: value
        for name, value in own.items()
        if not name.startswith("encoder.") or name.startswith(NORMS)
    }
    given = {
        name: value
        for name, value in weights.items()
        if not name.startswith(NOT_ENCODER) and (name in own or not name.startswith(NORMS))
    }
    _fill(model, kept | given, path)


def _drop_norm(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Remove the encoder's final norm if the weights have none.

    VideoMAEForPreTraining of transformers has none by its default, `use_mean_pooling`.
    """
    encoder: Any = model.encoder
    if isinstance(encoder.norm, nn.LayerNorm) and not any(x.startswith(NORMS) for x in weights):
        show(f"{path}: its encoder has no final norm (use_mean_pooling), so none is applied")
        encoder.norm = nn.Identity()


def _fill(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())[:400]}") from None
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise UserError(f"{path}: {name} has values that are not finite, so its run diverged")


# --- Files ---


def weights_file(path: Path) -> Path:
    """Return the weights file of a path: the path itself, or the file in a folder."""
    if not path.is_dir():
        # Opening a pipe would wait for its other end.
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is not a file")
        return path
    found = next((path / name for name in IN_FOLDERS if (path / name).is_file()), None)
    if found is None:
        raise UserError(f"{path}: holds none of {', '.join(IN_FOLDERS)}; pass the weights' file")
    return found


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a weights file."""
    with weights_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights in a file or a folder.

    Returns:
        Tensors under our names.
    """
    path = weights_file(path)
    check_processor(path)
    try:
        with torch.serialization.safe_globals(HARMLESS):
            # Read and not mapped: some file systems cannot map files.
            weights: Any = (
                load(path.read_bytes())
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except OSError:
        raise
    # A damaged file, or one of another format, may raise any exception.
    except Exception:
        raise UserError(
            f"{path}: is damaged, holds code or has another format; save only the model's "
            "state_dict"
        ) from None
    for name in WRAPPERS:
        if isinstance(weights, dict) and isinstance(weights.get(name), dict):
            weights = weights[name]
            break
    names = weights if isinstance(weights, dict) else {}
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: holds no named weights; save only the model's state_dict")
    return to_ours(weights, path)


# --- Names ---


def to_ours(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return weights under our names, without fixed positions and parts of later methods."""
    huggingface = any("patch_embeddings." in name for name in weights)
    ours = dict[str, Tensor]()
    for theirs, value in weights.items():
        name = _from_huggingface(theirs) if huggingface else theirs
        if LATER.fullmatch(name):
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point() or not value.ndim:
            kind = value.dtype if isinstance(value, Tensor) and value.ndim else type(value).__name__
            raise UserError(f"{path}: {theirs} is {kind}, and weights are floating-point arrays")
        # VideoMAE's fine-tuning names.
        name = re.sub(r"^(patch_embed|blocks|norm)\.", r"encoder.\1.", name)
        if POSITIONS.search(name):
            _require_fixed(value, theirs, path)
        elif name.endswith(".attn.qkv.bias"):
            # One bias, as in TrackMAE. That of keys adds the same number to all scores of a query,
            # so the softmax removes it.
            if value.ndim != 1 or len(value) % 3:
                raise UserError(f"{path}: {theirs} has the shape {tuple(value.shape)}")
            at = name.removesuffix("qkv.bias")
            ours[f"{at}q_bias"], _, ours[f"{at}v_bias"] = value.chunk(3)
        else:
            ours[name] = value
    for name in [name for name in ours if name.endswith(".attn.query.weight")]:
        parts = [name.replace("query", part) for part in QKV]
        if ours.keys() >= set(parts):
            values = [ours.pop(part) for part in parts]
            if len({value.shape for value in values}) > 1:
                raise UserError(f"{path}: {' and '.join(parts)} have other shapes")
            ours[name.replace("query", "qkv")] = torch.cat(values)
    return ours


def to_huggingface(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights under the names of transformers 4, which version 5 reads too."""
    theirs = dict[str, Tensor]()
    for name, value in weights.items():
        renamed = f"^{name}"
        for ours, other in HUGGINGFACE:
            renamed = renamed.replace(ours, other)
        parts = zip(QKV, value.chunk(3)) if name.endswith(".qkv.weight") else [("qkv", value)]
        for part, tensor in parts:
            theirs[renamed[1:].replace("qkv", part)] = tensor.contiguous()
    return theirs


def _from_huggingface(name: str) -> str:
    # Names of a VideoMAEModel lack the first part.
    bare = name.startswith(("embeddings.", "encoder.layer.", "layernorm."))
    name = f"^videomae.{name}" if bare else f"^{name}"
    for ours, theirs in HUGGINGFACE:
        name = name.replace(theirs, ours)
    # Version 5 of transformers calls the biases so, version 4 as we do.
    return re.sub(r"\.attn\.(q|v)(uery|alue)\.bias$", r".attn.\1_bias", name[1:])


def _require_fixed(table: Tensor, name: str, path: Path) -> None:
    flat = table.ndim < 2
    fixed = table if flat else sinusoid_table(*table.shape[-2:])
    # The tolerance is that of half precision.
    if flat or not torch.allclose(table.float().cpu(), fixed, atol=1e-2):
        raise UserError(f"{path}: {name} is learned; models here have VideoMAE's fixed positions")


# --- The model of weights, and files beside them ---


def sizes_of(weights: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """Return the spec fields `model` and, with a decoder, `decoder` of weights.

    The number of heads is that of a config.json next to the weights. Otherwise heads have 64
    channels, or 80 in a ViT-H, as in every published ViT.
    """
    kernel = weights.get("encoder.patch_embed.proj.weight")
    depth = _depth(weights, "encoder")
    if kernel is None or kernel.ndim != 5 or not depth:
        raise UserError(f"{path}: holds no encoder of videos")
    width, _, tubelet, patch, _ = kernel.shape
    known = (name for name, (own, _) in BACKBONES.items() if own[:2] == (width, depth))
    name, config = next(known, "vit-b"), config_of(path) or Config()
    of_head = 80 if name == "vit-h" else 64
    if any("temporal_fc" in weight for weight in weights):
        name = "timesformer"
    heads = config.num_attention_heads or max(width // of_head, 1)
    sizes = {"width": width, "depth": depth, "heads": heads, "tubelet": tubelet, "patch": patch}
    with valid(f"{path}: its shapes fit no model here: "):
        fields = {"model": Model(backbone=name, **sizes).model_dump(mode="json")}
    if (depth := _depth(weights, "decoder")) and "encoder_to_decoder.weight" in weights:
        width = len(weights["encoder_to_decoder.weight"])
        heads = config.decoder_num_attention_heads or max(width // of_head, 1)
        fields["decoder"] = {"width": width, "depth": depth, "heads": heads}
    return fields


def _depth(weights: dict[str, Tensor], part: str) -> int:
    return len({name.split(".")[2] for name in weights if name.startswith(f"{part}.blocks.")})


class _Ours(BaseModel):
    stride: PositiveInt = 4


class Config(BaseModel):
    """What a VideoMAE's config.json says. The last four fields are what models here are.

    VideoMAE has an epsilon of 1e-6, and Hugging Face's files say 1e-12; neither changes a feature.
    """

    num_attention_heads: PositiveInt | None = None
    decoder_num_attention_heads: PositiveInt | None = None
    image_size: PositiveInt = 224
    num_frames: PositiveInt = 16
    mgm: _Ours = _Ours()
    id2label: dict[int, str] = {}
    hidden_act: Literal["gelu", "gelu_python"] = "gelu"
    layer_norm_eps: float = Field(1e-6, ge=0, le=1e-5)
    qkv_bias: Literal[True] = True
    num_channels: Literal[3] = 3


def config_of(path: Path) -> Config | None:
    """Return the config.json next to weights; None if there is none of a VideoMAE.

    A link counts where it is: in Hugging Face's cache, a model's files are links in one folder.
    """
    fields = _fields(_beside(path, "config.json"))
    if fields.get("model_type") != "videomae":
        return None
    with valid(f"{_beside(path, 'config.json')}: "):
        return Config.model_validate(fields)


def _fields(file: Path) -> dict[str, Any]:
    """Return the fields of a JSON file; none if it is not there."""
    fields = read_json(file) if file.is_file() else {}
    if not isinstance(fields, dict):
        raise UserError(f"{file}: is no JSON object of fields")
    return fields


def check_processor(path: Path, side: int | None = None) -> None:
    """Refuse weights whose folder has an image processor that prepares pixels otherwise than mgm.

    Args:
        side: of the model's clips. Check also that the short side is scaled to it, and that the
            centre is cut. None: check only how pixels are normalised.
    """
    file = next((file for name in PROCESSORS if (file := _beside(path, name)).is_file()), None)
    if file is None:
        return
    ours: dict[str, Any] = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    ours |= {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    cut = {"do_resize": True, "size": {"shortest_edge": side}, "do_center_crop": True}
    cut |= {"crop_size": {"height": side, "width": side}}
    known = {name: value for name, value in _fields(file).items() if value is not None}
    theirs = {"image_mean": 0.5, "image_std": 0.5, **known}
    # Files of 2022 have numbers, which mean the same.
    if isinstance(size := theirs.get("size"), int):
        theirs["size"] = {"shortest_edge": size}
        theirs.setdefault("crop_size", size)
    if isinstance(size := theirs.get("crop_size"), int):
        theirs["crop_size"] = {"height": size, "width": size}
    for name, value in (ours | cut if side else ours).items():
        if not _alike(other := theirs.get(name, value), value):
            then = f"; to do so all the same, give the size ({side})" if name in cut else ""
            raise UserError(f"{file}: {name} is {other}, and mgm has {value}{then}")


def _alike(theirs: Any, ours: Any) -> bool:
    """Return whether two fields mean the same. Files have numbers of float32 too, and null."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        known = {name: value for name, value in theirs.items() if value is not None}
        return known.keys() == ours.keys() and all(_alike(known[name], ours[name]) for name in ours)
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(_alike, theirs, ours))
    if isinstance(theirs, float) and isinstance(ours, float):
        return math.isclose(theirs, ours, rel_tol=1e-6)
    return bool(theirs == ours)


def _beside(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path.with_name(name)
