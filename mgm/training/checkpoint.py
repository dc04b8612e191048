"""Write and read checkpoints. A run in progress keeps two, and a finished run keeps none.

A checkpoint is a file of torch.save, followed by the SHA-256 of its bytes in hex.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch

from mgm.console import show
from mgm.errors import UserError
from mgm.files import replacing

NEWEST, BEFORE = "checkpoint.pt", "checkpoint.before.pt"
FORMAT = 2  # raise this number when the meaning of a field changes
DIGEST = 64  # bytes at the end


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the newest checkpoint, and keep the previous one."""
    newest = folder / NEWEST
    try:
        with replacing(newest) as part:
            torch.save({"format": FORMAT, **state}, part)
            with part.open("rb+") as file:
                # This moves to the end of the file.
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                file.write(digest.encode())
            if newest.exists():
                newest.replace(folder / BEFORE)
    # torch turns some OSErrors into RuntimeErrors.
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{newest}: cannot be written ({error}); make room and run again"
        ) from error


def load_checkpoint(folder: Path, run_id: str) -> dict[str, Any] | None:
    """Load the newest checkpoint that is not damaged; None if there is no checkpoint.

    Every process of a run reads it. A damaged one is left for `drop_damaged`.

    Raises:
        UserError: all are damaged, or the newest belongs to another run.
    """
    checkpoints = [path for path in (folder / NEWEST, folder / BEFORE) if path.exists()]
    for path in checkpoints:
        # A damaged file, or another program's, may raise any exception.
        try:
            state = _read(path)
        except Exception:
            continue
        if state["run_id"] != run_id:
            raise UserError(f"{path}: belongs to run {state['run_id']}, not to {run_id}")
        return state | {"path": path}
    if checkpoints:
        raise UserError(f"{checkpoints[0]}: is damaged, or from another version; delete it")
    return None


def drop_damaged(folder: Path, path: Path) -> None:
    """Delete a newest checkpoint that `load_checkpoint` did not return.

    Otherwise the next checkpoint would replace the good previous one by it.
    """
    if path.name == BEFORE and (folder / NEWEST).exists():
        show(f"{folder / NEWEST}: is damaged; goes back to the previous checkpoint")
        (folder / NEWEST).unlink()


def _read(path: Path) -> dict[str, Any]:
    """Return the state after checking the file's digest."""
    with path.open("rb") as file:
        size, digest = path.stat().st_size - DIGEST, hashlib.sha256()
        while block := file.read(min(2**20, max(size - file.tell(), 0))):
            digest.update(block)
        if file.read().decode() != digest.hexdigest():
            raise ValueError("the digest differs")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["format"] != FORMAT:
        raise ValueError("another format")
    return state


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a finished run."""
    for name in (NEWEST, BEFORE):
        (folder / name).unlink(missing_ok=True)
