"""Kill the whole DAG at random moments and run it again.

Its files are bit-equal to those of an undisturbed run.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mgm.reading import file_digest
from tests.helpers.own_videos import own_study
from tests.helpers.programs import ENVIRONMENT, snakemake

KILLS = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Folder with own videos and a scale of few steps."""
    folder = tmp_path_factory.mktemp("chaos")
    own_study(folder, factor=8, specs_per_job=4, train=12)
    return folder


def start(place: Path, here: Path, *words: str) -> subprocess.Popen:
    """Start `snakemake` in its own session, so that a kill reaches all its processes."""
    here.mkdir(exist_ok=True)
    command = snakemake(here, "--config", f"study={place / 'mine.yaml'}", *words)
    return subprocess.Popen(
        command,
        stderr=(here / "said").open("a"),
        stdout=subprocess.DEVNULL,
        env=ENVIRONMENT,
        start_new_session=True,
    )


def kept(here: Path) -> list[Path]:
    """Return the weights and predictions that there are."""
    runs = here / "results" / "mine"
    return [*runs.glob("*/weights.safetensors"), *runs.glob("*/predictions.csv")]


def outcome(here: Path) -> dict[str, object]:
    """Return the digests of all weights and predictions. The page must be there."""
    assert (here / "reports" / "mine" / "index.html").exists()
    results = here / "results" / "mine"
    return {str(path.relative_to(results)): file_digest(path) for path in kept(here)}


@pytest.mark.slow
def test_the_dag_killed_at_random_moments_ends_with_the_same_weights(place, tmp_path):
    whole, here, draw = tmp_path / "whole", tmp_path / "killed", random.Random(0)
    started = time.monotonic()
    assert start(place, whole).wait() == 0, (whole / "said").read_text()
    lasts, files = time.monotonic() - started, len(kept(whole))
    for part in range(KILLS):
        process = start(place, here)
        # Kills come by progress, not by time alone, so that work is left on any machine.
        while process.poll() is None and len(kept(here)) < files * part / (KILLS + 1):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, lasts / 8))
        assert process.poll() is None, (
            "the DAG ended before the kill: " + (here / "said").read_text()
        )
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(place, here).wait() == 0, (here / "said").read_text()
    assert outcome(here) == outcome(whole)
