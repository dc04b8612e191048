"""A marked test without its service is skipped with one line, failed in CI, and counted nowhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MARKED = """import pytest

@pytest.fixture
def started():
    raise AssertionError("a fixture must not start before the service is known to be here")

@pytest.mark.{service}
def test_marked({fixture}):
    pass
"""


def run(folder: Path, service: str, fixture: str, **environment: str) -> subprocess.CompletedProcess:
    (folder / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (folder / "test_it.py").write_text(MARKED.format(service=service, fixture=fixture))
    options = f"-c {ROOT}/pyproject.toml --rootdir {folder} -o pythonpath={ROOT} -rs"
    command = [sys.executable, "-m", "pytest", *options.split(), str(folder)]
    kept = {name: value for name, value in os.environ.items() if name != "MGM_CI"}
    return subprocess.run(command, cwd=folder, env=kept | environment, capture_output=True, text=True)


def test_a_service_that_is_here_is_counted(tmp_path):
    done = run(tmp_path, "mlflow", "")
    assert (done.returncode, "services: mlflow 1, postgres 0, chromium 0, slurm 0" in done.stdout) == (0, True), done.stdout


@pytest.mark.parametrize(("in_ci", "status", "outcome"), [("0", 0, "1 skipped"), ("1", 1, "1 error")])
def test_a_missing_service_is_skipped_here_and_fails_in_ci(tmp_path, in_ci, status, outcome):
    done = run(tmp_path, "slurm", "started", PATH=str(tmp_path), MGM_CI=in_ci)
    assert (done.returncode, outcome in done.stdout) == (status, True), done.stdout
    assert "slurm is not here: install " in done.stdout
    assert "services: mlflow 0, postgres 0, chromium 0, slurm 0" in done.stdout
