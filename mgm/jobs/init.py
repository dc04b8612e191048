"""Weights that were made elsewhere, in any format `mgm.models.formats` knows, as a parent: of a spec file with `"init": PATH`, and of the
rows of a table that a scale's `weights` names."""

import hashlib
import re
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.models.files import INDEX, find_weights, parts_of
from mgm.runs.result import file_digest


def adopt(fields: Any, source: str, results: Path) -> Any:
    """The fields of a spec file with `init` turned into `parent`: a run in `results` that links to those weights. Their content's digest
    names it, so a path never enters a run's id.

    Raises:
        UserError: no weights there, or a `parent` beside `init`.
    """
    if not isinstance(fields, dict) or "init" not in fields:
        return fields
    if fields.get("parent"):
        raise UserError(f"{source}: has both init and parent, and a run starts from one; remove one of them")
    if not isinstance(fields["init"], str) or not fields["init"]:
        raise UserError(f"{source}: init is {fields['init']!r}; write the path of a weights file or of a folder that holds one")
    parent, weights = named(fields["init"], f"{source}: init")
    link(weights, results / parent)
    return {name: value for name, value in fields.items() if name != "init"} | {"parent": parent}


def named(path: str, source: str, row: str = "") -> tuple[str, Path]:
    """The id of the run that such weights stand for, and their file. `source` stands in the error.

    Raises:
        UserError: no weights there.
    """
    try:
        weights = find_weights(Path(path))
    except UserError as error:
        raise UserError(f"{source}: {str(error).partition(';')[0]}; correct the path") from None
    return "-".join(filter(None, ("external", re.sub("[^a-z0-9]+", "-", row.lower()).strip("-"), _digest(weights)[:8]))), weights


def link(weights: Path, run: Path) -> None:
    """Let the folder `run` have the weights, as a training run's has."""
    place = run / "weights.safetensors"
    if place.resolve() != weights.resolve():
        run.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)  # they have moved
        place.symlink_to(weights.resolve())


def _digest(weights: Path) -> str:
    """Of a file's content, or of all that an index lists."""
    if not weights.name.endswith(INDEX):
        return file_digest(weights)
    digests = [file_digest(weights.parent / file) for file in parts_of(weights)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
