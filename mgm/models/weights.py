"""Weights in and out, as safetensors: no code runs when a file is read."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mgm.errors import UserError


def save_weights(model: nn.Module, path: Path) -> None:
    """All parameters in float32, written beside `path` and then moved there."""
    part = path.with_suffix(".part")
    save_file({name: value.detach().float().contiguous().cpu() for name, value in model.state_dict().items()}, part)
    part.replace(path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        UserError: no such file, or not a whole safetensors file.
    """
    if not path.exists():
        raise UserError(f"{path}: no such weights; run the parent first, or correct the parent's run id")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); delete it and run its run again") from None


def load_weights(model: nn.Module, path: Path) -> None:
    """Give `model` all the weights of a run.

    Raises:
        UserError: a weight is missing, too many, not finite, or has another shape than the model.
    """
    _fill(model.state_dict(), read_weights(path), path)


def load_encoder(model: nn.Module, path: Path) -> None:
    """Give `model.encoder` a run's encoder, and `model.fc_norm` that of a finetuned one; decoder, head and, where the model has none,
    the final norm are left out.

    Raises:
        UserError: a weight is missing, too many, not finite, or has another shape than the model.
    """
    weights, own = read_weights(path), model.state_dict()
    kept = ("encoder.", "fc_norm.") if is_classifier(weights) else ("encoder.",)
    own = {name: value for name, value in own.items() if name.startswith(kept)}
    unneeded = {"encoder.norm.weight", "encoder.norm.bias"} - own.keys()
    _fill(own, {name: value for name, value in weights.items() if name.startswith(kept) and name not in unneeded}, path)


def is_classifier(weights: dict[str, Tensor]) -> bool:
    """Whether these are a finetuned run's weights: their norm comes after the mean over tokens."""
    return "fc_norm.weight" in weights


def _fill(own: dict[str, Tensor], weights: dict[str, Tensor], path: Path) -> None:
    if missing := sorted(own.keys() - weights.keys()):
        raise UserError(f"{path}: has no {missing[0]} ({len(missing)} of {len(own)} weights missing); it is a checkpoint of another model")
    if unused := sorted(weights.keys() - own.keys()):
        raise UserError(f"{path}: the model has no {unused[0]} ({len(unused)} weights too many); it is a checkpoint of another model")
    for name in sorted(own):
        if weights[name].shape != own[name].shape:
            raise UserError(
                f"{path}: {name} is {tuple(weights[name].shape)}, the model's is {tuple(own[name].shape)}; "
                "it is a checkpoint of another model"
            )
        if not torch.isfinite(weights[name]).all():
            raise UserError(
                f"{path}: {name} has values that are not finite; the run that wrote it diverged, run it again with a lower optim.lr"
            )
        own[name].copy_(weights[name])
