"""Read a weights file as named tensors. Its content decides the format, and no code in it runs."""

import argparse
import hashlib
import pickle
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
OF_HUGGINGFACE = IN_FOLDERS[1:3] + SHARDED
# VideoMAE saves {"model": weights, "optimizer": ...}. DeepSpeed saves {"module": weights, ...}.
WRAPPERS = ("model", "module", "state_dict")
_scalar, _array = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
# Checkpoints also hold arguments, and learning rates, scores and random states of NumPy's types.
# Arrays of objects could hold anything.
HARMLESS: list[Any] = [
    argparse.Namespace,
    bytes,
    np.dtype,
    np.ndarray,
    *(type(np.dtype(kind)) for kind in np.typecodes["All"] if kind not in "OV"),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or PyTorch file, or of the one in a folder.

    Names are those of the file. If weights are in several files, an index lists them.
    """
    # An index's files are in the folder of the index, not in the folder of a link to it.
    path = weights_file(path.resolve() if path.is_symlink() else path)
    return _read_parts(path) if path.name.endswith(INDEX) else _read_file(path)


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
    path = weights_file(path.resolve())
    if not path.name.endswith(INDEX):
        return file_digest(path)
    digests = [file_digest(path.parent / file) for file in parts_of(path)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


class _Parts(BaseModel):
    """The field of an index of weights: each tensor's name with its file."""

    weight_map: dict[str, str]


def parts_of(index: Path) -> dict[str, list[str]]:
    """Return {file: names of its tensors} of an index."""
    names = read_json(index, _Parts, _AGAIN).weight_map
    parts: dict[str, list[str]] = {file: [] for file in sorted(set(names.values()))}
    for name, file in names.items():
        parts[file].append(name)
    for file in parts:
        if "\0" in file or Path(file).name != file or not (index.parent / file).is_file():
            raise UserError(
                f"{index}: names {file}, which is not a file in its folder; "
                f"copy all {len(parts)} files into one folder"
            )
    return parts


def _read_parts(index: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for file, names in parts_of(index).items():
        part = _read_file(index.parent / file)
        if wrong := sorted(set(names) ^ part.keys()):
            where = "has no" if wrong[0] in names else "also has"
            raise UserError(
                f"{index.parent / file}: {where} {wrong[0]}, which contradicts {index.name}; "
                f"{_AGAIN}"
            )
        weights |= part
    return weights


def _read_file(path: Path) -> dict[str, Tensor]:
    with regular(path).open("rb") as file:
        start = file.read(9)
    # safetensors has the header's length in 8 bytes, then the header in JSON.
    if start[8:] == b"{":
        try:
            return _require_dense_floats(load_file(path), path)
        except SafetensorError as error:
            raise UserError(f"{path}: not a whole safetensors file ({error}); {_AGAIN}") from None
    # PyTorch writes a zip archive. Before version 1.6 it wrote a pickle.
    if start.startswith((b"PK", b"\x80")):
        return _require_dense_floats(_unwrapped(_unpickled(path), path), path)
    raise UserError(f"{path}: not a whole safetensors file, and not PyTorch's; {_AGAIN}")


_AGAIN = "copy it again; if a run made it, delete it and start the run again"


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
    # A damaged file may raise any exception.
    except Exception as error:
        if code := re.search(r"GLOBAL (\S+)|[Uu]nsupported class (\S+)", str(error)):
            raise UserError(
                f"{path}: asks for {code[1] or code[2]}, which is code; {_STATE_DICT}"
            ) from None
        # Files that are cut off or damaged raise other errors, or name a class of no program.
        if isinstance(error, pickle.UnpicklingError):
            raise UserError(f"{path}: holds more than weights; {_STATE_DICT}") from None
        raise UserError(
            f"{path}: not a whole PyTorch file of weights ({type(error).__name__}); {_AGAIN}"
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


_STATE_DICT = "save only the model's state_dict"


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
