"""Load weights of mgm, of VideoMAE's official code or of Hugging Face, and save safetensors."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, Field, PositiveFloat
from safetensors.torch import save_file
from torch import Tensor, nn

from mgm.console import show_once
from mgm.errors import UserError, valid
from mgm.models.formats import is_huggingface, listed, to_ours
from mgm.models.vit import IMAGENET_MEAN, IMAGENET_STD
from mgm.models.weights_file import beside, noted_config, read_tensors
from mgm.reading import read_json
from mgm.results.atomic import atomic_write
from mgm.spec import BACKBONES, Model

# The first layer's weights under our names.
KERNEL, BIAS = "encoder.patch_embed.proj.weight", "encoder.patch_embed.proj.bias"


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

    Raises:
        UserError: they are damaged, have unknown names, or are for pixels that are not normalised
            by `IMAGENET_MEAN` and `IMAGENET_STD`.
    """
    weights = read_tensors(path)
    _require_our_pixels(path, is_huggingface(weights))
    return to_ours(weights, path, tokens)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load all weights in a file into a model.

    Raises:
        UserError: they are not all of the model's weights, have other shapes, or are not finite.
    """
    tokens: int = model.encoder.pos_embed.shape[1]  # type: ignore[union-attr, index, assignment]
    _fill(model.state_dict(), read_weights(path, tokens), path)


def load_encoder(model: nn.Module, path: Path) -> None:
    """Load the encoder in a file into `model.encoder`, with its final norm.

    The decoder and the head are not loaded. A fine-tuned encoder's norm is `fc_norm`, and a
    pretrained one's is `encoder.norm`. It is loaded if the model has one of this name.
    """
    tokens: int = model.encoder.pos_embed.shape[1]  # type: ignore[union-attr, index, assignment]
    weights = read_weights(path, tokens)
    absent = "encoder.norm." if is_classifier(weights) else "fc_norm."
    own = {
        name: value
        for name, value in model.state_dict().items()
        if name.startswith(("encoder.", "fc_norm.")) and not name.startswith(absent)
    }
    given = {
        name: value
        for name, value in weights.items()
        if name in own or (name.startswith("encoder.") and not name.startswith("encoder.norm."))
    }
    _fill(own, given, path)


def is_classifier(weights: dict[str, Tensor]) -> bool:
    """Return whether these are weights of a fine-tuned model, which has the norm `fc_norm`."""
    return "fc_norm.weight" in weights


def model_of(weights: dict[str, Tensor], path: Path) -> Model:
    """Return the encoder's sizes, from the shapes of its weights.

    The number of heads does not follow from shapes. It is that of a config.json next to the
    weights. Otherwise heads are assumed to have 64 channels, or 80 in a ViT-H, as in every
    published ViT. If 64 does not divide the width, there is one head.

    Args:
        weights: under our names, as `read_weights` returns them.

    Raises:
        UserError: no model here has these shapes, or config.json contradicts them.
    """
    config, kernel, blocks = config_of(path, weights), weights.get(KERNEL), _blocks(weights)
    if kernel is None or kernel.ndim != 5 or not blocks:
        raise UserError(f"{path}: has no {KERNEL} of 5 axes, or no blocks")
    width, channels, tubelet, patch, columns = kernel.shape
    if patch != columns or channels != 3:
        raise UserError(
            f"{path}: patches are {patch} x {columns} of {channels} channels, not squares of 3"
        )
    # The memory that the model takes is that of the file.
    first = weights.get("encoder.blocks.0.attn.qkv.weight")
    if first is None or first.shape != (3 * width, width):
        raise UserError(f"{path}: has no encoder.blocks.0.attn.qkv.weight of width {width}")
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


class Processor(BaseModel):
    """The fields of transformers' VideoMAEImageProcessor that normalise pixels, and its defaults.

    A normalised pixel is (factor * pixel - mean) / deviation.
    """

    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: float | tuple[float, float, float] = 0.5
    image_std: PositiveFloat | tuple[PositiveFloat, PositiveFloat, PositiveFloat] = 0.5

    @property
    def is_ours(self) -> bool:
        """Whether it has the effect of our normalisation: (pixel / 255 - mean) / deviation."""
        factor = 255 * (self.rescale_factor if self.do_rescale else 1.0)
        theirs = (self.image_mean, self.image_std) if self.do_normalize else (0.0, 1.0)
        mean_C, std_C, our_mean_C, our_std_C = (
            np.broadcast_to(each, 3) for each in (*theirs, IMAGENET_MEAN, IMAGENET_STD)
        )
        black_C, our_black_C = -mean_C / std_C, -np.divide(our_mean_C, our_std_C)
        same = np.allclose(factor / std_C, 1 / our_std_C, 1e-6)
        return same and np.allclose(black_C, our_black_C, 1e-6)


PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")


def _require_our_pixels(path: Path, of_huggingface: bool) -> None:
    """Refuse weights whose folder has a processor that normalises pixels otherwise than we do."""
    for file in filter(None, (beside(path, name) for name in PROCESSORS)):
        fields = {name: value for name, value in read_json(file, dict).items() if value is not None}
        with valid(f"{file}: "):
            processor = Processor.model_validate(fields)
        if not processor.is_ours:
            raise UserError(
                f"{file}: normalises pixels by mean {processor.image_mean} and deviation "
                f"{processor.image_std}; mgm reads weights for ImageNet's, {IMAGENET_MEAN} and "
                f"{IMAGENET_STD}"
            )
        return
    if of_huggingface:
        show_once(
            f"{path}: has no {PROCESSORS[0]}; its pixels are normalised by ImageNet's mean and "
            "deviation, as VideoMAE's"
        )


def _square(size: Any) -> Any:
    """Return the side of a square that is given by its height and width."""
    return size[0] if isinstance(size, list) and len(size) == 2 and size[0] == size[1] else size


class Origin(BaseModel):
    """What `mgm export` notes of the run that it exports."""

    stride: int = Field(4, ge=1)


class Config(BaseModel):
    """The fields of transformers' VideoMAEConfig that shapes of weights do not tell."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    decoder_num_attention_heads: int = 6
    hidden_act: str = "gelu"
    num_frames: int = 16
    # Height and width may be listed.
    image_size: Annotated[int, BeforeValidator(_square)] = 224
    tubelet_size: int = 2
    patch_size: int = 16
    mgm: Origin = Origin()


def config_of(path: Path, weights: dict[str, Tensor]) -> Config | None:
    """Return the configuration of weights; None if there is none, or one of another model.

    It is next to them, or in a checkpoint of `mgm export`.

    Args:
        path: a file, or the folder of one.
        weights: what it holds, under our names.
    """
    file = beside(path, "config.json")
    fields = read_json(file, dict) if file else noted_config(path)
    if fields.get("model_type") != "videomae":
        return None
    with valid(f"{file or path}: "):
        config = Config.model_validate(fields)
    width = len(weights.get(BIAS, ()))
    if (config.hidden_size, config.num_hidden_layers) != (width, len(_blocks(weights))):
        return None
    if config.hidden_act != "gelu":
        raise UserError(
            f"{file or path}: hidden_act is {config.hidden_act}, and models here have gelu"
        )
    return config


def _blocks(weights: dict[str, Tensor]) -> set[str]:
    return {name.split(".")[2] for name in weights if name.startswith("encoder.blocks.")}


def classes_of(weights: dict[str, Tensor], path: Path) -> int:
    """Return the number of a classifier's classes. Raise UserError if it is no classifier."""
    if "head.bias" not in weights:
        raise UserError(f"{path}: has no head.bias, so it holds no classifier")
    return weights["head.bias"].numel()


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
