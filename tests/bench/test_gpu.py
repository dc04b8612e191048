"""Tests of the GPU's benches, at toy size on this CPU.

Every part runs, meets its bounds, and continues where it was stopped.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mgm.spec import BACKBONES, MASKS, Pretrain

BENCH = Path(__file__).parents[2] / "bench" / "gpu.py"


@pytest.mark.slow
def test_every_part_measures_all_its_rows_and_goes_on_where_it_was_stopped(tmp_path):
    def call(*options: str) -> tuple[int, dict[str, dict[str, dict]]]:
        done = subprocess.run(
            [sys.executable, BENCH, "--dry", "--out", tmp_path, *options],
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 3), done.stderr
        return done.returncode, {
            file.stem: dict(map(json.loads, file.read_text().splitlines()))
            for file in tmp_path.glob("*.jsonl")
        }

    # No row starts after 0.1 s.
    status, begun = call("--seconds", "0.1")
    assert status == 3
    status, rows = call()
    assert status == 0
    assert rows.keys() == {"day", "parity", "step", "ladder", "feed", "mini"}
    assert sum("mask" in name for name in rows["parity"]) == len(MASKS)
    for part, found in rows.items():
        assert begun[part].items() <= found.items()
        for name, row in found.items():
            assert "error" not in row, (name, row)
            assert row.get("holds", True), (name, row)
            assert (
                min(row.get("clips_per_s", 1), row.get("busy_percent", 1), row.get("seconds", 1))
                > 0
            )
    # Nothing is measured twice.
    assert call() == (0, rows)


def test_the_page_shows_what_was_measured(tmp_path, monkeypatch):
    """docs/speed.md has the output of `--docs`."""
    monkeypatch.syspath_prepend(BENCH.parent)
    import gpu

    assert gpu.page(tmp_path) in gpu.PAGE.read_text() or "### day" in gpu.PAGE.read_text()
    about = {"chip": "H200", "date": "2026-11-21T09:00", "machine": "here"}
    (tmp_path / "machine.json").write_text(json.dumps(about))
    (tmp_path / "step.jsonl").write_text(json.dumps(["ours", {"clips_per_s": 1000.0}]) + "\n")
    assert "| ours | clips_per_s 1000 |" in gpu.page(tmp_path)


def test_sizes_are_those_of_the_backbones(monkeypatch):
    monkeypatch.syspath_prepend(BENCH.parent)
    import gpu

    for size, name in gpu.NAMES.items():
        spec = gpu.Bench(dry=False).spec(Pretrain, size)
        sizes = [(one.width, one.depth, one.heads) for one in (spec.model, spec.decoder)]
        assert tuple(sizes) == BACKBONES[name]


def test_what_cannot_run_is_a_row_and_the_next_one_goes_on(tmp_path, monkeypatch):
    """Examples are a lack of memory and a missing compiler."""
    monkeypatch.syspath_prepend(BENCH.parent)
    import gpu
    import torch

    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    bench = gpu.Bench(dry=True, peak=1.0)
    monkeypatch.setattr(gpu, "block_compiler", lambda choice, device, show: show("no C++ compiler"))
    works = {
        "full": full,
        "uncompiled": lambda: gpu.ours(bench, bench.spec(Pretrain, "toy"), 2, "compile"),
        "well": lambda: {"holds": True},
    }
    monkeypatch.setitem(gpu.PARTS, "step", lambda bench: iter(works.items()))
    assert gpu.run_part("step", bench, tmp_path, 100)
    rows = dict(map(json.loads, (tmp_path / "step.jsonl").read_text().splitlines()))
    assert rows["full"]["error"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    assert rows["uncompiled"]["error"] == "RuntimeError: no C++ compiler"
    assert rows["well"] == {"holds": True}
