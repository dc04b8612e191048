"""Write and read checkpoints. A run in progress keeps two, and a finished run keeps none."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mgm.errors import UserError
from mgm.results.atomic import atomic_write

NEWEST, BEFORE = "checkpoint.pt", "checkpoint.before.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the newest checkpoint, and keep the previous one."""
    newest = folder / NEWEST
    try:
        with atomic_write(newest) as part:
            torch.save(state, part)
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
    folder: Path, run_id: str, show: Callable[[str], None] = print
) -> dict[str, Any] | None:
    """Load the newest checkpoint that can be read; None if there is no checkpoint.

    A damaged newest checkpoint is deleted. Otherwise the next save would replace the good previous
    one by it.
    """
    checkpoints = [path for path in (folder / NEWEST, folder / BEFORE) if path.exists()]
    for path in checkpoints:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            owner = state["run_id"]
        # A damaged file, or another program's file, may raise any exception.
        except Exception:
            continue
        if owner != run_id:
            raise UserError(f"{path}: belongs to run {owner}, not to {run_id}")
        if path != checkpoints[0]:
            show(f"{checkpoints[0]}: is damaged, so {run_id} goes back to the previous checkpoint")
            checkpoints[0].unlink()
        return state
    if checkpoints:
        raise UserError(
            f"{checkpoints[0]}: all {len(checkpoints)} checkpoints are damaged; delete them"
        )
    return None


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a finished run."""
    for name in (NEWEST, BEFORE):
        (folder / name).unlink(missing_ok=True)
