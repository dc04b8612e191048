import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
BENCH = Path(__file__).parents[2] / "bench"
KINDS = ("sources", "copies", "shards")


@pytest.fixture
def short_video(tmp_path) -> Path:
    sys.path.insert(0, str(BENCH))
    try:
        import loader
    finally:
        sys.path.remove(str(BENCH))
    return Path(loader.generate(tmp_path, frames=20)[0])


def run(name, tmp_path, *arguments):
    file = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, BENCH / name, "--repeats", "1", "--json", file, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(file.read_text())
    for row in rows:
        assert {"name", "ours", "peer", "ratio", "goal"} <= row.keys()
        assert min(row["ours"], row["peer"], row["ratio"], row["goal"]) > 0
        assert row["name"] in done.stdout
    return rows


def test_masks_are_all_measured(tmp_path):
    from mgm.masking import MASKS

    rows = run("masks.py", tmp_path, "--batch", "2", "--device", "cpu")
    assert [row["name"] for row in rows] == [f"mask {name} (cpu)" for name in MASKS]


def test_the_loader_reads_what_it_is_given(tmp_path, short_video):
    found = {row["name"]: row for row in run("loader.py", tmp_path, "--videos", short_video)}
    rows = {
        name: {
            full.partition("), ")[2]: row for full, row in found.items() if full.startswith(name)
        }
        for name in KINDS
    }
    peers = {"decord", "torchcodec", "torchcodec's resize"}
    own, theirs = (
        {"without vectors", "FFmpeg alone", "FFmpeg alone, with vectors"},
        {f"against {peer}" for peer in peers},
    )
    assert rows["sources"].keys() == own | theirs
    theirs = {f"{peer} on the sources" for peer in theirs} | {"against mgm on the sources"}
    assert rows["copies"].keys() == own | theirs
    assert rows["shards"].keys() == {"without vectors", "JPEG alone"} | theirs
    for row in rows["sources"].values():
        assert row["ratio"] == pytest.approx(
            row["ours"] / row["peer"], rel=1e-6
        )  # clips a second; one pair is its own median


def test_starting_is_measured_up_to_a_step(tmp_path):
    rows = run("start.py", tmp_path, "--verbs", "pretrain")
    assert [row["name"] for row in rows] == ["mgm --help", "mgm pretrain to its first step"]
    assert rows[0]["ours"] < rows[1]["ours"]


def test_two_processes_are_measured_against_one(tmp_path):
    (row,) = run("ddp.py", tmp_path, "--steps", "1")
    assert row["name"] == "mgm pretrain by 2 processes, against 1"
    assert row["ratio"] == pytest.approx(row["peer"] / row["ours"], rel=1e-6)


def test_copies_are_measured_against_their_sources(tmp_path, short_video):
    rows = run("transcode.py", tmp_path, "--videos", short_video)
    assert len(rows) == 1
    assert rows[0]["ours"] < 14 * 2**0.5


def test_memory_is_measured_over_reads(tmp_path):
    rows = run("memory.py", tmp_path, "--reads", "80", "--frames", "40")
    assert [row["name"].partition("reads")[2] for row in rows] == [
        "",
        ", in a worker",
        ", from shards",
    ]
    assert all(0.5 < row["ours"] < 2 for row in rows)


def test_steps_of_both_are_measured(tmp_path):
    rows = run("step.py", tmp_path, "--ratios", "0.9", "--precisions", "bf16", "--size", "64")
    of_peer = [
        f"step ViT-B, ratio 0.9, bf16, batch 1 (cpu), transformers {attention}"
        for attention in ("eager", "sdpa")
    ]
    assert [row["name"] for row in rows] == [
        *of_peer,
        "step ViT-B, 90 % hidden (cpu), all tokens seen",
    ]


def test_feeding_is_measured_beside_its_prediction(tmp_path):
    (row,) = run("feed.py", tmp_path, "--batch", "1", "--workers", "1", "--frames", "70")
    assert row["name"].startswith("feed a small model (cpu) by 1 workers")
    assert 0 < row["ours"] <= 100 >= row["peer"]
