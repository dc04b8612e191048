"""Write and read checkpoints. A run in progress keeps two, and a finished run keeps none.

A checkpoint is a file of torch.save, followed by the SHA-256 of its bytes in hex.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from mgm.errors import UserError
from mgm.results.atomic import atomic_write

NEWEST, BEFORE = "checkpoint.pt", "checkpoint.before.pt"
DIGEST = 64  # bytes at the end


class _Checkpoint(BaseModel):
    """The fields of a checkpoint. Raise `format` when their meaning changes."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    format: Literal[1]
    run_id: str
    step: Annotated[int, Field(ge=0)]
    model: dict[str, torch.Tensor]
    optimiser: dict[str, Any]
    rng: torch.Tensor
    failed: list[str]


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state`, the fields of a checkpoint, as the newest one, and keep the previous one."""
    newest = folder / NEWEST
    try:
        with atomic_write(newest) as part:
            torch.save({"format": 1, **state}, part)
            with part.open("rb+") as file:
                # This moves to the end of the file.
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                file.write(digest.encode())
            if newest.exists():
                newest.replace(folder / BEFORE)
    # torch turns some OSErrors into RuntimeErrors.
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        free = shutil.disk_usage(folder).free / 1e6
        raise UserError(
            f"{newest}: cannot be written ({why}; {free:.0f} MB are free); make room and run again"
        ) from error


def load_checkpoint(
    folder: Path, run_id: str, steps: int, show: Callable[[str], None] = print
) -> dict[str, Any] | None:
    """Load the newest checkpoint that is not damaged; None if there is no checkpoint.

    A damaged newest checkpoint is deleted. Otherwise the next save would replace the good previous
    one by it.

    Args:
        steps: of the run. A checkpoint of a later step is damaged.
    """
    checkpoints = [path for path in (folder / NEWEST, folder / BEFORE) if path.exists()]
    for path in checkpoints:
        try:
            state = _read(path)
        # A damaged file, or another program's file, may raise any exception.
        except Exception:
            continue
        if state["run_id"] != run_id:
            raise UserError(f"{path}: belongs to run {state['run_id']}, not to {run_id}")
        if state["step"] > steps:
            continue
        if path != checkpoints[0]:
            show(f"{checkpoints[0]}: is damaged, so {run_id} goes back to the previous checkpoint")
            checkpoints[0].unlink()
        return state
    if checkpoints:
        raise UserError(
            f"{checkpoints[0]}: all {len(checkpoints)} checkpoints are damaged, or from another "
            "version of mgm; delete them"
        )
    return None


def _read(path: Path) -> dict[str, Any]:
    """Return the fields of a checkpoint after checking its digest and their types."""
    with path.open("rb") as file:
        size, digest = path.stat().st_size - DIGEST, hashlib.sha256()
        while block := file.read(min(2**20, max(size - file.tell(), 0))):
            digest.update(block)
        if file.read().decode() != digest.hexdigest():
            raise ValueError("the digest differs")
    return dict(_Checkpoint.model_validate(torch.load(path, map_location="cpu", weights_only=True)))


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a finished run."""
    for name in (NEWEST, BEFORE):
        (folder / name).unlink(missing_ok=True)
