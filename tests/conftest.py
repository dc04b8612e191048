"""Count skipped tests and services. On users' machines tests may be skipped.

With MGM_CI=1 a skipped test fails. The last line counts the tests that used each service.
"""

import gc
import os
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests.helpers.services import SERVICES, require

# Hypothesis draws the same examples on every call, so a commit that passed passes again. For new
# examples: pytest --hypothesis-profile=random. A busy machine keeps no deadline.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.register_profile("random", derandomize=False, deadline=None)
settings.load_profile("fixed")

ROOT = Path(__file__).parents[1]
REPORTED = Counter[str]()

# Seed of what tests draw. Another one must pass too: MGM_TEST_SEED=7 make test.
SEED = int(os.environ.get("MGM_TEST_SEED", "0"))

# By default, garbage collection takes a tenth of the tests' time.
gc.set_threshold(20_000)

# Two threads for models of this size wait for each other longer than they compute. Programs that
# tests start inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Files of tests need not survive a power failure. Waiting for the disk takes a minute.
os.fsync = lambda _: None


def _services(item) -> list[str]:
    return [service for service in SERVICES if item.get_closest_marker(service)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    for service in _services(item):  # before any fixture starts the service
        require(service)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.services = _services(item) if report.when == "call" and not report.skipped else []
    if report.skipped and os.environ.get("MGM_CI") == "1" and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = (
            "failed",
            f"MGM_CI=1, but this was skipped: {report.longrepr}",
        )
    return report


def pytest_runtest_logreport(report):
    REPORTED.update(
        getattr(report, "services", [])
    )  # xdist hands the workers' reports to the process that prints


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(
        "services: " + ", ".join(f"{service} {REPORTED[service]}" for service in SERVICES)
    )


@pytest.fixture(autouse=True)
def no_leaked_state():
    """Seed the global generators, so that no test draws by what ran before it.

    A test that leaves a file in the repository fails.
    """
    before = {*os.listdir(ROOT)}
    random.seed(SEED)
    np.random.seed(SEED)
    # A test of what works without PyTorch does not import it.
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)
    yield
    # Tools that run meanwhile have hidden files.
    left = [name for name in {*os.listdir(ROOT)} - before if not name.startswith(".")]
    assert not left, f"left in the repository: {left}"


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator of a test's random values."""
    return np.random.default_rng(SEED)


@pytest.fixture(scope="session")
def smoke() -> Path:
    """Return the results of the smoke DAG."""
    folder = ROOT / "results" / "smoke"
    if not (ROOT / "reports" / "smoke" / "index.html").exists():
        pytest.skip("needs results/smoke; run `make reproduce` first")
    return folder


@pytest.fixture(scope="module")
def cpu():
    """Hide GPUs from a module's tests, and from the processes that they start.

    Two processes need two GPUs, and the sums of one are not those of a CPU.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr("torch.cuda.is_available", lambda: False)
        yield


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """Return the folder of a small prepared set, which tests leave as it is."""
    from tests.helpers.small_runs import small_set

    folder = tmp_path_factory.mktemp("data")
    small_set(folder)
    return folder


@pytest.fixture(scope="session")
def data(small) -> Path:
    """Return the same, where a module has no data of its own."""
    return small
