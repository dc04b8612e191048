"""Write and read the checkpoint of a run in progress. A finished run keeps none."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from mgm.errors import UserError
from mgm.files import replacing
from mgm.results.run import CHECKPOINT

FORMAT = 4  # raise this number when the fields or their meaning change


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint in one step."""
    path = folder / CHECKPOINT
    try:
        with replacing(path) as part, part.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:
        # torch turns an error of a file into one of its own. Others are a GPU's.
        why = error if isinstance(error, OSError) else error.__context__
        if not isinstance(why, OSError):
            raise
        raise UserError(
            f"{path}: cannot be written ({why.strerror}); make room and run again"
        ) from error


def load_checkpoint(folder: Path, run_id: str) -> dict[str, Any] | None:
    """Load a run's checkpoint; None if there is none."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    # A damaged file, or another program's, may raise any exception. torch checks no CRC-32.
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None
        state = torch.load(path, map_location="cpu", weights_only=True)
        known = whole and state["format"] == FORMAT
    except Exception:
        known = False
    if not known:
        raise UserError(f"{path}: is damaged, or from another version; delete it")
    if state["run_id"] != run_id:
        raise UserError(f"{path}: belongs to run {state['run_id']}, not to {run_id}")
    return state
