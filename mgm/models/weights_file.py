"""Read a weights file as named tensors. No code in it runs."""

import argparse
import hashlib
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mgm.errors import UserError
from mgm.reading import file_digest, read_json, regular

# The suffix of an index of weights in several files, such as Hugging Face's
# model.safetensors.index.json.
INDEX = ".index.json"
# Our own name, then Hugging Face's names, then the name of an export.
IN_FOLDERS = ("weights.safetensors", "model.safetensors", "pytorch_model.bin", "checkpoint.pth")
SHARDED = tuple(name + INDEX for name in IN_FOLDERS[1:3])
# VideoMAE saves {"model": weights, "optimizer": ...}. DeepSpeed saves {"module": weights, ...}.
WRAPPERS = ("model", "module", "state_dict")
_scalar = np.float64(0).__reduce__()[0]
# VideoMAE's checkpoints also hold its arguments, and others hold rates as numbers of NumPy.
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in np.typecodes["AllInteger"] + np.typecodes["Float"]),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or PyTorch file, or of the one in a folder.

    Names are those of the file. If weights are in several files, an index lists them.

    Raises:
        UserError: there are none, they are damaged or hold code, or are not dense floats.
    """
    path = weights_file(path)
    return _read_parts(path) if path.name.endswith(INDEX) else _read_file(path)


def beside(path: Path, name: str) -> Path | None:
    """Return the file of this name in the folder of weights.

    A link counts where it is: in Hugging Face's cache all files of a model are links in one folder.
    """
    file = path / name if path.is_dir() else path.with_name(name)
    return file if file.is_file() else None


def weights_file(path: Path) -> Path:
    """Return the weights file of a path: the path itself, or the file in a folder."""
    if path.is_dir():
        names = IN_FOLDERS + SHARDED
        if not (present := [path / name for name in names if (path / name).exists()]):
            raise UserError(
                f"{path}: this folder holds no weights ({', '.join(names)}); pass the file"
            )
        return present[0]
    try:
        return regular(path)
    except OSError:
        # Results may be shared without their weights.
        if (path.parent / "result.json").exists():
            raise UserError(
                f"{path}: no such weights, but the run is done; delete {path.parent} to run it"
            ) from None
        raise UserError(
            f"{path}: no such weights; run the parent first, or correct the parent's run id"
        ) from None


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a weights file, or of the digests of all files that an index lists."""
    path = weights_file(path)
    if not path.name.endswith(INDEX):
        return file_digest(path)
    digests = [file_digest(file) for file in parts_of(path)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


class _Parts(BaseModel):
    """The field of an index of weights: each tensor's name with its file."""

    weight_map: dict[str, str]


def noted_config(path: Path) -> dict[str, Any]:
    """Return the fields of config.json that `mgm export` also wrote into a checkpoint; or none."""
    if not path.is_file() or path.name.endswith(INDEX) or path.suffix == ".safetensors":
        return {}
    try:
        # The tensors stay on the disk.
        content = torch.load(path, "cpu", mmap=True, weights_only=True)
    # Another program's file, which may raise any exception. `read_tensors` reads or refuses it.
    except Exception:
        return {}
    fields = content.get("config") if isinstance(content, dict) else None
    return fields if isinstance(fields, dict) else {}


def parts_of(index: Path) -> dict[Path, list[str]]:
    """Return {file: names of its tensors} of an index."""
    names = read_json(index, _Parts, _AGAIN).weight_map
    parts: dict[Path, list[str]] = {}
    for file in sorted(set(names.values())):
        plain = "\0" not in file and Path(file).name == file
        if not plain or not (part := beside(index, file)):
            raise UserError(
                f"{index}: names {file}, which is not a file in its folder; "
                f"copy all {len(set(names.values()))} files into one folder"
            )
        parts[part] = [name for name, of in names.items() if of == file]
    return parts


def _read_parts(index: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for file, names in parts_of(index).items():
        part = _read_file(file)
        if wrong := sorted(set(names) ^ part.keys()):
            where = "has no" if wrong[0] in names else "also has"
            raise UserError(f"{file}: {where} {wrong[0]}, which contradicts {index.name}; {_AGAIN}")
        weights |= part
    return weights


def _read_file(path: Path) -> dict[str, Tensor]:
    if regular(path).suffix == ".safetensors":
        try:
            return _require_dense_floats(load_file(path), path)
        except SafetensorError as error:
            raise UserError(f"{path}: not a whole safetensors file ({error}); {_AGAIN}") from None
    return _require_dense_floats(_unwrapped(_unpickled(path), path), path)


_AGAIN = "copy it again; if a run made it, delete it and start the run again"
_STATE_DICT = "save only the model's state_dict"


def _unpickled(path: Path) -> Any:
    try:
        with (
            torch.serialization.safe_globals(HARMLESS),
            path.open("rb") as file,
            warnings.catch_warnings(),
        ):
            # Hide warnings about unusual pickles. An error has its own message.
            warnings.simplefilter("ignore")
            # Pass an open file, since torch.load would rely on a path's suffix.
            return torch.load(file, map_location="cpu", weights_only=True)
    # A damaged file, or one of another format, may raise any exception.
    except Exception as error:
        if code := re.search(r"GLOBAL (\S+)|[Uu]nsupported class (\S+)", str(error)):
            raise UserError(
                f"{path}: asks for {code[1] or code[2]}, which is code; {_STATE_DICT}"
            ) from None
        raise UserError(
            f"{path}: holds more than weights, has another format, or is damaged "
            f"({type(error).__name__}); {_STATE_DICT} as safetensors or with torch.save, or copy "
            "it again"
        ) from None


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    # Unwrap a limited number of times, since a dictionary may contain itself.
    for _ in WRAPPERS:
        if isinstance(content, dict):
            content = next(
                (content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), content
            )
    if not isinstance(content, dict) or not content:
        raise UserError(
            f"{path}: holds {'nothing' if isinstance(content, dict) else type(content).__name__}, "
            f"not named weights; {_STATE_DICT}"
        )
    if other := next(
        (name for name, value in content.items() if not isinstance(value, Tensor)), None
    ):
        raise UserError(
            f"{path}: its {other} is {type(content[other]).__name__}, not a weight; {_STATE_DICT}"
        )
    return {str(name): value for name, value in content.items()}


def _require_dense_floats(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Refuse tensors that a model would cast silently."""
    for name, value in weights.items():
        # Quantised tensors are no floats.
        if value.layout != torch.strided or value.is_meta or not value.is_floating_point():
            raise UserError(
                f"{path}: {name} is {value.dtype}, {value.layout}, on {value.device}; save dense "
                "floating-point tensors"
            )
    return weights
