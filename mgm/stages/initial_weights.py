"""Use weights that were made elsewhere, in any format `mgm.models.formats` knows, as a parent: for
a spec file with `"init": PATH`, and for the rows of a table that a scale's `weights` names."""

import re
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.models.weights_file import weights_digest, weights_file


def resolve_init(fields: Any, source: str, results: Path) -> Any:
    """Turn `init` in the fields of a spec file into `parent`: a run in `results` that links to
    those weights. Their content's digest names it, so a path never enters a run's id.

    Raises:
        UserError: no weights there, or a `parent` beside `init`.
    """
    if not isinstance(fields, dict) or "init" not in fields:
        return fields
    if fields.get("parent"):
        raise UserError(
            f"{source}: has both init and parent, and a run starts from one; remove one of them"
        )
    if not isinstance(fields["init"], str) or not fields["init"]:
        raise UserError(
            f"{source}: init is {fields['init']!r}; write the path of a weights file or of a folder that holds one"
        )
    parent, weights = external_run_id(fields["init"], f"{source}: init")
    link(weights, results / parent)
    return {name: value for name, value in fields.items() if name != "init"} | {"parent": parent}


def external_run_id(path: str, source: str, row: str = "") -> tuple[str, Path]:
    """Id of the run that stands for such weights, and their file. `source` stands in the error.

    Raises:
        UserError: no weights there.
    """
    try:
        weights = weights_file(Path(path))
    except UserError as error:
        raise UserError(f"{source}: {str(error).partition(';')[0]}; correct the path") from None
    return "-".join(
        filter(
            None,
            (
                "external",
                re.sub("[^a-z0-9]+", "-", row.lower()).strip("-"),
                weights_digest(weights)[:8],
            ),
        )
    ), weights


def link(weights: Path, run: Path) -> None:
    """Link the weights into the folder `run`, where a training run has its own."""
    place = run / "weights.safetensors"
    if place.resolve() != weights.resolve():
        run.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)  # they have moved
        place.symlink_to(weights.resolve())
