"""The benches run, on small inputs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.videos import moving_square, write_video

ROOT = Path(__file__).parents[2]


def run(*words) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_readers_are_compared_in_turns(tmp_path):
    pytest.importorskip("decord")
    pytest.importorskip("torchcodec")
    for seed in range(2):
        write_video(tmp_path / f"{seed}.mp4", moving_square(70, 128, 160, seed=seed))
    out = run("bench/peers.py", tmp_path, "--turns", 1)
    assert "2 videos; the store has" in out
    assert out.count("| decord on") == out.count("| torchcodec on") == 2


@pytest.mark.slow
def test_a_step_is_measured_on_a_cpu():
    out = run("bench/step.py", "step", "--tiny", "--batch", 2, "--steps", 2)
    assert "CPU, step, process 0: " in out


@pytest.mark.slow
def test_the_checks_of_a_gpu_pass_at_toy_size_on_a_cpu(data):
    out = run("bench/gpu_day.py", "--tiny", "--index", data)
    assert "FAIL" not in out
    for what in (
        "life of a batch",
        "planes",
        "augmentation",
        "pretraining at 75%",
        "fine-tuning",
        "fed by",
    ):
        assert what in out
