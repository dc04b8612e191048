"""This checkout's own programs, as a user calls them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT, BIN = Path(__file__).parents[2], Path(sys.executable).parent
ENVIRONMENT = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}


def snakemake(folder: Path, *words: str | Path, cores: int = 2) -> list[str]:
    """Return the command that runs the Snakefile in a folder."""
    command = [
        BIN / "snakemake",
        "--snakefile",
        ROOT / "Snakefile",
        "--directory",
        folder,
        "--cores",
        cores,
        *words,
    ]
    return [str(word) for word in command]


def run(
    words: list[str], cwd: Path | None = None, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return the result, whatever its exit status."""
    return subprocess.run(
        words,
        cwd=cwd,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
