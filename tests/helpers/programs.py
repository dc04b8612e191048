"""This checkout's own programs, as a user calls them."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT, BIN = Path(__file__).parents[2], Path(sys.executable).parent
RECIPES = ROOT / "docs" / "recipes"
ENVIRONMENT = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}


def snakemake(folder: Path, *words: str | Path, cores: int = 2) -> list[str]:
    """Return the command that runs the Snakefile in a folder."""
    where = ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--cores", cores]
    return [str(word) for word in (BIN / "snakemake", *where, *words)]


def run(
    words: Sequence[str | Path], cwd: Path | None = None, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return the result, whatever its exit status."""
    # Fixtures may have set variables since.
    env = os.environ | {"PATH": ENVIRONMENT["PATH"]} | environment
    how = {"cwd": cwd, "env": env, "timeout": timeout}
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, **how)


def recipe(name: str) -> Any:
    """Return a module of docs/recipes."""
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's blocks of code in a language."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [code for name, code in fences if name == language]
