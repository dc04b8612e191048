"""Third-party services that tests run for real.

A test that needs one has its marker, such as `@pytest.mark.mlflow`. If the service is missing,
the test is skipped with one line. With MGM_CI=1 it fails instead. `tests/conftest.py` does this,
and prints the number of tests that used each service.
"""

import os
import shutil
from importlib.util import find_spec

import pytest

SERVICES = ("mlflow", "chromium", "slurm")
# A user's path may lack the folders of daemons.
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"))


def lacking(service: str) -> str:
    """Return the programs and modules that `service` needs and this machine lacks, as text."""
    programs = {"chromium": ("chromium",), "slurm": ("slurmctld", "slurmd", "sbatch", "munged")}
    modules = {"mlflow": ("mlflow",), "chromium": ("playwright",)}
    missing = [name for name in programs.get(service, ()) if not shutil.which(name, path=PATH)]
    missing += [f"Python's {name}" for name in modules.get(service, ()) if not find_spec(name)]
    return ", ".join(missing)


def require(service: str) -> None:
    """Skip the running test if `service` is missing.

    `tests/conftest.py` calls this for marked tests. A fixture may call it too.
    """
    if missing := lacking(service):
        pytest.skip(f"{service} is not here: install {missing}")
