"""`make setup` names what is missing, and the next step."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path) -> Path:
    """Clone at a path with a space. Its .venv has Python and a uv that installs nothing."""
    folder = tmp_path / "a clone"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    script(folder / ".venv" / "bin" / "uv", 'echo "cache: $XDG_CACHE_HOME"')
    (tmp_path / "home").mkdir()
    return folder


def script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def setup(clone: Path, *words: str, **names: str) -> subprocess.CompletedProcess[str]:
    path = f"{clone.parent / 'bin'}:{os.environ['PATH']}"
    home = {"HOME": str(clone.parent / "home"), "PATH": path, "LC_ALL": "C"}
    return subprocess.run(
        ["make", "setup", f"PYTHON={sys.executable}", *words],
        cwd=clone,
        env=home | names,
        capture_output=True,
        text=True,
    )


def test_a_path_with_spaces(clone):
    done = setup(clone)
    assert done.returncode == 0, done.stderr
    assert (clone / ".venv" / ".ready").exists()
    assert "activate" in done.stdout.splitlines()[-1]
    assert "Setting up" not in setup(clone).stdout


def test_too_little_disk(clone):
    script(clone.parent / "bin" / "df", 'printf "head\\nx 1 1 7000000 1 /\\n"')
    done = setup(clone)
    assert done.returncode == 2
    assert "less than 8 GB are free" in done.stdout
    assert not (clone / ".venv" / ".ready").exists()


def test_no_network(clone):
    script(clone / ".venv" / "bin" / "uv", "echo 'error: Failed to fetch' >&2; exit 1")
    done = setup(clone)
    assert done.returncode == 2
    assert "run make setup again" in done.stdout.splitlines()[-1]


def test_a_home_that_cannot_be_written(clone):
    """Caches are then in .venv. Here HOME is a file, so not even root can write to it."""
    (clone.parent / "file").touch()
    assert f"cache: {clone}/.venv/.cache" in setup(clone, HOME=str(clone.parent / "file")).stdout
    assert ".venv/.cache" not in setup(clone, "--always-make").stdout


def test_a_python_that_is_not_supported(clone):
    script(clone.parent / "bin" / "old", 'test "$1" = --version && echo Python 3.9.2 || exit 1')
    done = setup(clone, "PYTHON=old")
    assert done.returncode == 2
    assert "Python 3.9.2 is not 3.11 to 3.13" in done.stdout
