"""The programs of others that tests run for real. A test that needs one is marked so:
`@pytest.mark.postgres`.

Where the program is missing, a user's machine skips the test with one line and CI (MGM_CI=1) fails
it; `tests/conftest.py` does both, and prints at the end how many tests each service really served.
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

SERVICES = ("mlflow", "postgres", "chromium", "slurm")
PATH = os.pathsep.join(
    (os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin")
)  # daemons are off a user's path


def postgres_bin() -> Path | None:
    """Where PostgreSQL's initdb and postgres are:

    on the path, or Debian's newest, which it keeps off it.
    """
    found = shutil.which("initdb")
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    return Path(found).parent if found else debian[-1].parent if debian else None


def lacking(service: str) -> str:
    """What `service` needs and this machine lacks; empty: nothing."""
    programs = {
        "mlflow": (),
        "postgres": (),
        "chromium": ("chromium",),
        "slurm": ("slurmctld", "slurmd", "sbatch", "munged"),
    }[service]
    modules = {
        "mlflow": ("mlflow",),
        "postgres": ("psycopg2",),
        "chromium": ("playwright",),
        "slurm": (),
    }[service]
    missing = [name for name in programs if not shutil.which(name, path=PATH)]
    missing += [f"Python's {name}" for name in modules if not find_spec(name)]
    if service == "postgres" and not postgres_bin():
        missing.append("initdb (Debian: apt-get install postgresql)")
    return ", ".join(missing)


def require(service: str) -> None:
    """Skip the test that runs, unless `service` is here.

    A marked test has this done for it; a fixture may ask for itself.
    """
    if missing := lacking(service):
        pytest.skip(f"{service} is not here: install {missing}")
