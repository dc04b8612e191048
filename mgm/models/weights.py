"""Load weights of mgm, of VideoMAE's official code or of Hugging Face, and save safetensors."""

from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import BaseModel
from safetensors.torch import save_file
from torch import Tensor, nn

from mgm.errors import UserError, valid
from mgm.models.formats import listed, to_ours
from mgm.models.weights_file import read_tensors
from mgm.reading import read_json
from mgm.results.atomic import atomic_write
from mgm.spec import BACKBONES, Model


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all parameters in float32, in one step."""
    state = model.state_dict().items()
    weights = {name: value.detach().float().contiguous().cpu() for name, value in state}
    with atomic_write(path) as temporary:
        save_file(weights, temporary)


def read_weights(path: Path, tokens: int = 0) -> dict[str, Tensor]:
    """Read the weights in a file or a folder, in any format of `mgm.models.formats`.

    Returns:
        Tensors under our names.
    """
    return to_ours(read_tensors(path), path, tokens)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load all weights in a file into a model."""
    tokens: int = model.encoder.pos_embed.shape[1]  # type: ignore[union-attr, index, assignment]
    _fill(model.state_dict(), read_weights(path, tokens), path)


def load_encoder(model: nn.Module, path: Path) -> None:
    """Load the encoder in a file into `model.encoder`, and its `fc_norm` if it is fine-tuned.

    The decoder and the head are not loaded. The final norm is loaded if the model has one.
    """
    tokens: int = model.encoder.pos_embed.shape[1]  # type: ignore[union-attr, index, assignment]
    weights = read_weights(path, tokens)
    kept = ("encoder.", "fc_norm.") if is_classifier(weights) else ("encoder.",)
    _fill(*_of_encoder(model, weights, kept), path)


def _of_encoder(
    model: nn.Module, weights: dict[str, Tensor], kept: tuple[str, ...] = ("encoder.",)
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the model's and the given weights with these prefixes.

    A final norm is left out of the given ones if the model has none.
    """
    own = {name: value for name, value in model.state_dict().items() if name.startswith(kept)}
    unneeded = {"encoder.norm.weight", "encoder.norm.bias"} - own.keys()
    return own, {
        name: value
        for name, value in weights.items()
        if name.startswith(kept) and name not in unneeded
    }


def is_classifier(weights: dict[str, Tensor]) -> bool:
    """Return whether these are weights of a fine-tuned model, which has the norm `fc_norm`."""
    return "fc_norm.weight" in weights


def model_of(weights: dict[str, Tensor], path: Path) -> Model:
    """Return the encoder's sizes, from the shapes of its weights.

    The number of heads does not follow from shapes. It is that of a config.json next to the
    weights. Otherwise heads are assumed to have 64 channels, or 80 in a ViT-H, as in every
    published ViT. If 64 does not divide the width, there is one head.
    """
    config = config_of(path)
    kernel = weights.get("encoder.patch_embed.proj.weight")
    blocks = {name.split(".")[2] for name in weights if name.startswith("encoder.blocks.")}
    if kernel is None or kernel.ndim != 5 or not blocks:
        raise UserError(f"{path}: has no encoder.patch_embed.proj.weight of 5 axes, or no blocks")
    width, channels, tubelet, patch, columns = kernel.shape
    if patch != columns or channels != 3:
        raise UserError(
            f"{path}: patches are {patch} x {columns} of {channels} channels, not squares of 3"
        )
    divided = any("temporal_fc" in name for name in weights)
    sizes = {
        (width, depth): (name, heads)
        for name, ((width, depth, heads), _) in BACKBONES.items()
        if name != "timesformer"
    }
    name, heads = sizes.get((width, len(blocks)), ("vit-b", width // 64 if width % 64 == 0 else 1))
    if config:
        heads = config.num_attention_heads
        if (config.tubelet_size, config.patch_size) != (tubelet, patch):
            raise UserError(
                f"{path}: tokens of {tubelet} x {patch} x {patch} pixels contradict config.json, "
                f"tubelet_size {config.tubelet_size} and patch_size {config.patch_size}"
            )
    with valid(f"{path}: its shapes fit no model here: "):
        return Model(
            backbone="timesformer" if divided else name,
            width=width,
            depth=len(blocks),
            heads=heads,
            tubelet=tubelet,
            patch=patch,
        )


class Config(BaseModel):
    """The fields of transformers' VideoMAEConfig that shapes of weights do not tell."""

    model_type: str
    num_attention_heads: int = 12
    decoder_num_attention_heads: int = 6
    hidden_act: str = "gelu"
    num_frames: int = 16
    image_size: int = 224
    tubelet_size: int = 2
    patch_size: int = 16


def config_of(weights: Path) -> Config | None:
    """Return the configuration next to weights; None if there is none.

    Args:
        weights: a file, or the folder of one.
    """
    # A run's folder links to external weights.
    folder = weights if weights.is_dir() else weights.resolve().parent
    path = folder / "config.json"
    if not path.is_file() or "model_type" not in read_json(path, dict):
        return None
    config = read_json(path, Config)
    if config.model_type != "videomae":
        raise UserError(f"{path}: model_type is {config.model_type}, and mgm reads videomae")
    if config.hidden_act != "gelu":
        raise UserError(f"{path}: hidden_act is {config.hidden_act}, and models here have gelu")
    return config


def classes_of(weights: dict[str, Tensor], path: Path) -> int:
    """Return the number of a classifier's classes."""
    if "head.bias" not in weights:
        raise UserError(f"{path}: has no head.bias, so it holds no classifier")
    return weights["head.bias"].numel()


def require_fit(build: Callable[[], nn.Module], weights: dict[str, Tensor], path: Path) -> None:
    """Compare the shapes of an encoder's weights before the model takes memory.

    A small file may describe a very large model.

    Args:
        build: returns the model. Only its encoder is compared.
    """
    with torch.device("meta"):
        model = build()
    _compare(*_of_encoder(model, weights), path)


def _fill(own: dict[str, Tensor], weights: dict[str, Tensor], path: Path) -> None:
    _compare(own, weights, path)
    for name in sorted(own):
        own[name].copy_(weights[name])
        if not torch.isfinite(own[name]).all():
            raise UserError(f"{path}: {name} has values that are not finite, so its run diverged")


def _compare(own: dict[str, Tensor], weights: dict[str, Tensor], path: Path) -> None:
    missing, unused = own.keys() - weights.keys(), weights.keys() - own.keys()
    faults = []
    if missing:
        faults.append(f"has no {listed(missing)} ({len(missing)} of {len(own)} weights missing)")
    if unused:
        faults.append(f"the model has no {listed(unused)} ({len(unused)} weights too many)")
    if faults:
        raise UserError(f"{path}: {'; '.join(faults)}; it is a checkpoint of another model")
    for name in sorted(own):
        if weights[name].shape != own[name].shape:
            raise UserError(
                f"{path}: {name} is {tuple(weights[name].shape)}, and the model's is "
                f"{tuple(own[name].shape)}"
            )
