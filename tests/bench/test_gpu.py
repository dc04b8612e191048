"""The GPU's benches, at toy size on this CPU: every part runs, holds what it promises, and continues where it was stopped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
BENCH = Path(__file__).parents[2] / "bench" / "gpu.py"


def rows_of(out: Path, part: str, *options: str) -> dict[str, dict]:
    done = subprocess.run([sys.executable, BENCH, "--dry", "--part", part, "--out", out, *options], capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr
    file = out / f"{part}.jsonl"
    return dict(map(json.loads, file.read_text().splitlines())) if file.exists() else {}


@pytest.mark.parametrize("part", ["parity", "step", "ladder"])
def test_a_part_measures_every_row_and_continues(tmp_path, part):
    first = rows_of(tmp_path, part, "--seconds", "0")
    assert len(first) <= 1  # no row is started late
    rows = rows_of(tmp_path, part)
    assert len(rows) > 4
    assert not [row for row in rows.values() if "error" in row]
    assert all(row.get("holds", True) for row in rows.values())
    assert all(row.get("clips_per_s", 1) > 0 for row in rows.values())
    assert rows_of(tmp_path, part) == rows  # nothing is measured twice
    assert all(name in (tmp_path / f"{part}.md").read_text() for name in rows)


def test_without_a_gpu_it_says_so(tmp_path):
    import torch

    if torch.cuda.is_available():
        return
    done = subprocess.run([sys.executable, BENCH, "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("bench/gpu.py: no CUDA device here")
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_page_shows_every_row_and_says_what_is_not_measured(tmp_path, monkeypatch):
    """docs/speed.md holds what `--docs` writes: today's rows, by the results that are committed with it, which are none."""
    monkeypatch.syspath_prepend(BENCH.parent)
    import gpu

    assert gpu.page(tmp_path) in gpu.PAGE.read_text() or "No GPU has been measured yet" not in gpu.PAGE.read_text()
    tasks = [task for part in ("parity", "step", "ladder", "feed") for task, _ in gpu.PARTS[part](gpu.Bench(dry=False))]
    assert all(task in gpu.PAGE.read_text() for task in tasks)
    (tmp_path / "machine.json").write_text(json.dumps({"chip": "H200", "date": "2026-11-21T09:00", "machine": "here"}))
    (tmp_path / "step.jsonl").write_text(json.dumps(["ViT-B, pretraining at 0.75, ours compile", {"clips_per_s": 1000.0}]) + "\n")
    measured = gpu.page(tmp_path)
    assert "| ViT-B, pretraining at 0.75, ours compile | clips_per_s 1000 |" in measured
    assert measured.count("not measured") == len(tasks) - 1


def test_what_cannot_run_is_a_row_and_the_next_one_goes_on(tmp_path, monkeypatch):
    """Out of memory, and no compiler."""
    monkeypatch.syspath_prepend(BENCH.parent)
    import gpu
    import torch

    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    bench = gpu.Bench(dry=True)
    monkeypatch.setattr(gpu, "block_compiler", lambda choice, device, show: show("no C++ compiler"))
    works = {"full": full, "uncompiled": lambda: gpu.wraps(bench, "compile"), "well": lambda: {"holds": True}}
    monkeypatch.setitem(gpu.PARTS, "step", lambda bench: iter(works.items()))
    assert gpu.run_part("step", bench, tmp_path, 100)
    rows = dict(map(json.loads, (tmp_path / "step.jsonl").read_text().splitlines()))
    assert rows["full"]["error"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    assert rows["uncompiled"]["error"] == "RuntimeError: no C++ compiler"
    assert rows["well"] == {"holds": True}
