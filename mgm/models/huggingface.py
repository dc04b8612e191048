"""Read config.json, which a Hugging Face folder has next to its weights."""

from pathlib import Path

from pydantic import BaseModel

from mgm.errors import UserError
from mgm.reading import read_json


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

    Raises:
        UserError: it is of a model that mgm does not have.
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
