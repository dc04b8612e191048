"""The mask ablation on own videos from shards alone: the masks are those of the files, and all of it runs without them."""

import json
from pathlib import Path

import pytest

from tests.helpers import programs
from tests.helpers.own_videos import own_videos, small_scale
from tests.helpers.programs import run

pytestmark = pytest.mark.slow


def snakemake(here: Path, name: str, videos: str, *more: str) -> dict[str, list[dict]]:
    """{mask: its pretraining's log} of a DAG."""
    config = ("scale=scale.yaml", f"name={name}", f"videos={videos}")
    done = run(programs.snakemake(here, "--quiet", "all", *more, "--config", *config, "--", "table4e"), timeout=500)
    logs = "".join(path.read_text() for path in (here / "logs").rglob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    found = {}
    for log in (here / "results" / name).glob("pretrain-*/log.jsonl"):
        spec = json.loads((log.parent / "spec.json").read_text())
        found[spec["mask"]["name"]] = [json.loads(line) for line in log.read_text().splitlines()]
    return found


def test_the_mask_ablation_runs_from_shards_with_the_masks_of_the_files(tmp_path):
    own_videos(tmp_path / "videos", tmp_path / "drawn", train=6, test=2)
    small_scale(tmp_path, factor=12, specs_per_job=8)
    files = snakemake(tmp_path, "files", "videos", "--until", "pretrain")
    prepare = ["mgm", "prepare", "folder", "--source", "videos", "--out", "data/mine", "--shards", "--short-side", "64"]
    assert run(prepare, cwd=tmp_path).returncode == 0
    (tmp_path / "videos").rename(tmp_path / "away")
    shards = snakemake(tmp_path, "shards", "data/mine")
    assert list((tmp_path / "results" / "shards").glob("finetune-*/result.json"))
    assert {"tube", "mgm"} <= files.keys() == shards.keys()
    for mask, log in files.items():
        there, here = ({line["step"]: line for line in lines if "loss" in line} for lines in (log, shards[mask]))
        steps = sorted(there.keys() & here.keys())  # how often a line is written goes by the clock
        assert len(steps) >= 3
        assert ("coverage" in there[steps[0]]) == mask.startswith("mgm"), mask
        for step in steps:  # how much of the motion is hidden, bit for bit; pixels went through JPEG
            assert there[step].get("coverage") == here[step].get("coverage"), (mask, step)
            assert there[step]["loss"] == pytest.approx(here[step]["loss"], rel=0.1), (mask, step)
