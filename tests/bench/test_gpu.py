"""The GPU's benches, at toy size on this CPU: every part runs, holds what it promises, and continues where it was stopped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
BENCH = Path(__file__).parents[2] / "bench" / "gpu.py"


def rows_of(out: Path, part: str, *options: str) -> list[dict]:
    done = subprocess.run([sys.executable, BENCH, "--dry", "--part", part, "--out", out, *options], capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr
    file = out / f"{part}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("part", ["parity", "step", "ladder"])
def test_a_part_measures_every_row_and_continues(tmp_path, part):
    first = rows_of(tmp_path, part, "--seconds", "0")
    assert len(first) <= 1  # no row is started late
    rows = rows_of(tmp_path, part)
    assert len(rows) > 4
    assert not [row for row in rows if "error" in row]
    assert all(row.get("holds", True) for row in rows)
    assert all(row.get("clips_per_s", 1) > 0 for row in rows)
    assert rows_of(tmp_path, part) == rows  # nothing is measured twice
    assert all(row["name"] in (tmp_path / f"{part}.md").read_text() for row in rows)


def test_without_a_gpu_it_says_so(tmp_path):
    import torch

    if torch.cuda.is_available():
        return
    done = subprocess.run([sys.executable, BENCH, "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("bench/gpu.py: no CUDA device here")
    assert len(done.stderr.strip().splitlines()) == 1
