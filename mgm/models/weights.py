"""Weights in, from files of ours, of VideoMAE's official code or of Hugging Face's;

and out, as safetensors.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mgm.errors import UserError, valid
from mgm.models.formats import listed, to_ours
from mgm.models.weights_file import read_tensors
from mgm.results.files import atomic_write
from mgm.spec import BACKBONES, Model


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all parameters in float32, whole or not at all."""
    with atomic_write(path) as temporary:
        save_file(
            {
                name: value.detach().float().contiguous().cpu()
                for name, value in model.state_dict().items()
            },
            temporary,
        )


def read_weights(path: Path, tokens: int = 0) -> dict[str, Tensor]:
    """The weights in a file of any format that `mgm.models.formats` knows, or in a folder, under
    our names.

    Raises:
        UserError: no such file, not whole, not weights, a pickle that would run code, or names that
            belong to another model.
    """
    return to_ours(read_tensors(path), path, tokens)


def load_weights(model: nn.Module, path: Path) -> None:
    """Give `model` all the weights in a file; see `read_weights`.

    Raises:
        UserError: as `read_weights`; or a weight is missing, too many, not finite, or has another
            shape than the model's.
    """
    _fill(model.state_dict(), read_weights(path, model.encoder.positions), path)  # type: ignore[union-attr, arg-type]


def load_encoder(model: nn.Module, path: Path) -> None:
    """Give `model.encoder` the encoder in a file, and `model.fc_norm` that of a finetuned one;
    decoder, head and, where the model has none, the final norm are left out.

    Raises:
        UserError: as `read_weights`; or a weight is missing, too many, not finite, or has another
            shape than the model's.
    """
    weights, own = read_weights(path, model.encoder.positions), model.state_dict()  # type: ignore[union-attr, arg-type]
    kept = ("encoder.", "fc_norm.") if is_classifier(weights) else ("encoder.",)
    own = {name: value for name, value in own.items() if name.startswith(kept)}
    unneeded = {"encoder.norm.weight", "encoder.norm.bias"} - own.keys()
    _fill(
        own,
        {
            name: value
            for name, value in weights.items()
            if name.startswith(kept) and name not in unneeded
        },
        path,
    )


def is_classifier(weights: dict[str, Tensor]) -> bool:
    """Tell whether these are a finetuned run's weights:

    their norm comes after the mean over tokens.
    """
    return "fc_norm.weight" in weights


def model_of(weights: dict[str, Tensor], path: Path) -> Model:
    """The encoder that these weights are of, read from their shapes. No shape tells the heads: each
    of 64 channels, or 80 in a ViT-H, as in every published ViT; and a width that 64 does not divide
    is one head.

    Raises:
        UserError: they hold no encoder of ours.
    """
    kernel = weights.get("encoder.patch_embed.proj.weight")
    blocks = {name.split(".")[2] for name in weights if name.startswith("encoder.blocks.")}
    if kernel is None or kernel.ndim != 5 or not blocks:
        raise UserError(
            f"{path}: has no encoder.patch_embed.proj.weight of five dimensions and no encoder blocks; give weights of a video ViT"
        )
    width, channels, tubelet, patch, columns = kernel.shape
    if patch != columns:
        raise UserError(
            f"{path}: its patches are {patch} x {columns}, and models here have squares"
        )
    divided = any("temporal_fc" in name for name in weights)
    sizes = {
        (width, depth): (name, heads)
        for name, ((width, depth, heads), _) in BACKBONES.items()
        if name != "timesformer"
    }
    name, heads = sizes.get((width, len(blocks)), ("vit-b", width // 64 if width % 64 == 0 else 1))
    with valid(f"{path}: its shapes are of no model here: "):
        return Model(
            backbone="timesformer" if divided else name,
            width=width,
            depth=len(blocks),
            heads=heads,
            tubelet=tubelet,
            patch=patch,
            channels=channels,
        )


def classes_of(weights: dict[str, Tensor], path: Path) -> int:
    """How many classes a classifier's weights tell apart.

    Raises:
        UserError: they are not a classifier's.
    """
    if "head.bias" not in weights:
        raise UserError(
            f"{path}: has no head.bias, so it is no classifier's; give the weights of a finetuned model"
        )
    return weights["head.bias"].numel()


def require_fit(build: Callable[[], nn.Module], weights: dict[str, Tensor], path: Path) -> None:
    """Compare shapes before a model takes memory: a small file may name a very large one.

    Args:
        build: makes the model; its encoder alone is compared.

    Raises:
        UserError: a weight of the encoder is missing, too many, or has another shape.
    """
    with torch.device("meta"):
        own = build().state_dict()
    kept = {name: value for name, value in own.items() if name.startswith("encoder.")}
    unneeded = {"encoder.norm.weight", "encoder.norm.bias"} - kept.keys()
    found = {
        name: value
        for name, value in weights.items()
        if name.startswith("encoder.") and name not in unneeded
    }
    _compare(kept, found, path)


def _fill(own: dict[str, Tensor], weights: dict[str, Tensor], path: Path) -> None:
    _compare(own, weights, path)
    for name in sorted(own):
        own[name].copy_(weights[name])
        if not torch.isfinite(own[name]).all():
            raise UserError(
                f"{path}: {name} has values that are not finite; the run that wrote it diverged, run it again with a lower optim.lr"
            )


def _compare(own: dict[str, Tensor], weights: dict[str, Tensor], path: Path) -> None:
    missing, unused = own.keys() - weights.keys(), weights.keys() - own.keys()
    faults = (
        [f"has no {listed(missing)} ({len(missing)} of {len(own)} weights missing)"]
        if missing
        else []
    )
    faults += (
        [f"the model has no {listed(unused)} ({len(unused)} weights too many)"] if unused else []
    )
    if faults:
        raise UserError(f"{path}: {'; '.join(faults)}; it is a checkpoint of another model")
    for name in sorted(own):
        if weights[name].shape != own[name].shape:
            if (
                name in ("head.weight", "head.bias")
                and weights[name].ndim
                and weights[name].shape[1:] == own[name].shape[1:]
            ):
                raise UserError(
                    f"{path}: tells {len(weights[name])} classes apart, the data have {len(own[name])}; give weights of those data"
                )
            raise UserError(
                f"{path}: {name} is {tuple(weights[name].shape)}, the model's is {tuple(own[name].shape)}; "
                "it is a checkpoint of another model"
            )
