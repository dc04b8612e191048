"""Checkpoints, written whole or not at all: two while a run goes on, none after it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mgm.errors import UserError
from mgm.results.atomic import atomic_write

NEWEST, BEFORE = "checkpoint.pt", "checkpoint.before.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the newest checkpoint, and keep the one before.

    Raises:
        UserError: it cannot be written, for instance on a full disk. The earlier ones stay.
    """
    newest = folder / NEWEST
    try:
        with atomic_write(newest) as part:
            torch.save(state, part)
            if newest.exists():
                newest.replace(folder / BEFORE)
    except (OSError, RuntimeError) as error:  # torch turns an OSError into a RuntimeError, or not
        why = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        free = shutil.disk_usage(folder).free / 1e6
        kept = newest.exists() or (folder / BEFORE).exists()
        goes_on = "continues from the checkpoint before" if kept else "starts again"
        raise UserError(
            f"{newest}: cannot be written ({why}; {free:.0f} MB are free); "
            f"make room and run again, it {goes_on}"
        ) from error


def load_checkpoint(
    folder: Path, run_id: str, show: Callable[[str], None] = print
) -> dict[str, Any] | None:
    """Load the newest checkpoint that can be read; None if there is no checkpoint.

    A torn one is deleted, or the next save would move it over the whole one.

    Raises:
        UserError: all checkpoints are torn, or one belongs to another run.
    """
    found = [path for path in (folder / NEWEST, folder / BEFORE) if path.exists()]
    for path in found:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            owner = state["run_id"]
        except Exception:  # a torn file, or another program's, fails in many ways
            continue
        if owner != run_id:
            raise UserError(
                f"{path}: belongs to run {owner}, not to {run_id}; "
                "move it away, or use another --out"
            )
        if path != found[0]:
            show(f"{found[0]}: torn, so {run_id} goes back to the checkpoint before it")
            found[0].unlink()
        return state
    if found:
        raise UserError(
            f"{found[0]}: cannot be read, nor the one before it; "
            f"delete the checkpoints of {folder.name} to start it again"
        )
    return None


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run that is done."""
    for name in (NEWEST, BEFORE):
        (folder / name).unlink(missing_ok=True)
