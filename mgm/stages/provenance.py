"""Where a result comes from: the weights it started from, the commit, the machine."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from mgm.errors import UserError
from mgm.models.weights_file import weights_digest
from mgm.results.result import recorded_digest, versions
from mgm.training import collectives


def verified_weights(run: Path) -> tuple[Path, str]:
    """The weights in a run's folder, and their digest.

    Raises:
        UserError: there are none, or they are not those that the run's result, or the name of
            weights from elsewhere, says.
    """
    path = run / "weights.safetensors"
    digest = weights_digest(path)
    wanted = run.name[-8:] if run.name.startswith("external-") else recorded_digest(run)
    if wanted and not digest.startswith(wanted):
        raise UserError(
            f"{path}: its SHA-256 is {digest[:12]}, the run wrote {wanted[:12]}; restore it, or delete {run} and run it again"
        )
    return path, digest


def provenance() -> dict[str, Any]:
    """Code and machine of this process, for a result."""
    commit, dirty = git_commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version(), **versions("torch", "av", "numpy")},
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": collectives.world_size(),
    }


def git_commit() -> tuple[str, bool]:
    """The commit of the code that runs, and whether tracked files differ from it, committed results
    aside; empty when it is no checkout.
    """
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel") or "/").resolve() != root.resolve():
            return "", False
        return git("rev-parse", "HEAD"), bool(
            git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
        )
    except FileNotFoundError:  # no git here
        return "", False
