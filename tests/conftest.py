"""Skips are for users' machines: with MGM_CI=1 a skipped test is a failed one."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("MGM_CI") == "1" and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"MGM_CI=1, but this was skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def smoke() -> Path:
    """The results of the smoke DAG."""
    folder = ROOT / "results" / "smoke"
    if not (ROOT / "reports" / "smoke" / "index.html").exists():
        pytest.skip("needs results/smoke; run `make reproduce` first")
    return folder
