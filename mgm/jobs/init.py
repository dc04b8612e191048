"""`"init": PATH` in a spec file: the run starts from weights that were made elsewhere, in any format `mgm.models.formats` knows."""

import hashlib
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.models.files import INDEX, find_weights, parts_of
from mgm.report.result import file_digest


def adopt(fields: Any, source: str, results: Path) -> Any:
    """The fields of a spec file with `init` turned into `parent`: the name that such weights have among the runs in `results`, where it
    links to them. Their content's digest makes the name, so a path never enters a run's id.

    Raises:
        UserError: no weights there, or a `parent` beside `init`.
    """
    if not isinstance(fields, dict) or "init" not in fields:
        return fields
    if fields.get("parent"):
        raise UserError(f"{source}: has both init and parent, and a run starts from one; remove one of them")
    if not isinstance(fields["init"], str) or not fields["init"]:
        raise UserError(f"{source}: init is {fields['init']!r}; write the path of a weights file or of a folder that holds one")
    try:
        weights = find_weights(Path(fields["init"]))
    except UserError as error:
        raise UserError(f"{source}: init: {str(error).partition(';')[0]}; correct the path") from None
    parent = f"external-{_digest(weights)[:8]}"
    link = results / parent / "weights.safetensors"
    if link.resolve() != weights.resolve():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # they have moved
        link.symlink_to(weights.resolve())
    return {name: value for name, value in fields.items() if name != "init"} | {"parent": parent}


def _digest(weights: Path) -> str:
    """Of a file's content, or of all that an index lists."""
    if not weights.name.endswith(INDEX):
        return file_digest(weights)
    digests = [file_digest(weights.parent / file) for file in parts_of(weights)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
