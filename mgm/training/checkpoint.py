"""Checkpoints: written whole or not at all, two kept while a run goes on, none after it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mgm.errors import UserError
from mgm.results.files import atomic_write

NEWEST, BEFORE = "checkpoint.pt", "checkpoint.before.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the newest checkpoint; the one that was newest is kept beside it.

    Raises:
        UserError: it cannot be written, as on a full disk; the earlier ones stay.
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
        goes_on = (
            "continues from the checkpoint before"
            if newest.exists() or (folder / BEFORE).exists()
            else "starts again"
        )
        raise UserError(
            f"{newest}: cannot be written ({why}; {free:.0f} MB are free); make room and run again, it {goes_on}"
        ) from error


def load_checkpoint(
    folder: Path, run_id: str, show: Callable[[str], None] = print
) -> dict[str, Any] | None:
    """Load the newest checkpoint that can be read, or None. A torn one is deleted, or the next
    would move it over the whole one.

    Raises:
        UserError: the checkpoints are torn, or belong to another run.
    """
    found = [path for path in (folder / NEWEST, folder / BEFORE) if path.exists()]
    for path in found:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            owner = state["run_id"]
        except (
            Exception
        ):  # a torn file, or another program's, fails in many ways; the one before it is whole
            continue
        if owner != run_id:
            raise UserError(
                f"{path}: belongs to run {owner}, not to {run_id}; move it away, or use another --out"
            )
        if path != found[0]:
            show(f"{found[0]}: torn, so {run_id} goes back to the checkpoint before it")
            found[0].unlink()
        return state
    if found:
        raise UserError(
            f"{found[0]}: cannot be read, nor the one before it; delete the checkpoints of {folder.name} to start it again"
        )
    return None


def remove_checkpoints(folder: Path) -> None:
    for name in (NEWEST, BEFORE):
        (folder / name).unlink(missing_ok=True)
