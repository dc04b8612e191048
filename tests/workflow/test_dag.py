"""Snakemake itself, on a study of a few steps."""

import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from mgm.dag.workflow import Workflow
from mgm.results.run import read_result
from tests.helpers.programs import ENVIRONMENT, run, snakemake
from tests.helpers.tiny_study import tiny_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def call(folder: Path, *words: str, study: str = "tiny", **environment: str):
    """Run `snakemake WORDS` on a study in a folder, to a good end."""
    command = snakemake(folder, *words, "--config", f"study={folder / study}.yaml")
    done = run(command, timeout=600, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def results_of(folder: Path, study: str = "tiny") -> dict[str, int]:
    """Return the runs that are finished, with the times of their files."""
    place = folder / "results" / study
    return {path.parent.name: path.stat().st_mtime_ns for path in place.glob("*/result.json")}


def test_each_way_to_ask_makes_what_it_needs_and_no_more(tmp_path):
    study = Workflow({"study": str(tiny_study(tmp_path))})
    before = {*tmp_path.rglob("*")}
    assert "pretrain" in call(tmp_path, "--dry-run")
    assert {path for path in tmp_path.rglob("*") if ".snakemake" not in path.parts} == before

    parent = next(run_id for run_id in study.batches if run_id.startswith("pretrain"))
    call(tmp_path, "--cores", "2", f"results/tiny/{parent}/result.json")
    made = results_of(tmp_path)
    assert made.keys() == {*study.batches[parent]}
    call(tmp_path, "--until", "pretrain")
    assert {name.split("-")[0] for name in results_of(tmp_path)} == {"pretrain"}
    # A word after --quiet would be a kind of output.
    call(tmp_path, "probes", "--quiet", "all")
    assert {name.split("-")[0] for name in results_of(tmp_path)} == {"pretrain", "probe"}
    call(tmp_path)
    assert results_of(tmp_path).keys() == study.specs.keys()
    assert made.items() <= results_of(tmp_path).items()
    assert "1 of 1 steps" in call(tmp_path)
    assert (tmp_path / "reports" / "tiny" / "index.html").exists()


def test_two_dags_that_share_a_dataset_both_end_well(tmp_path):
    studies = ("one", "two")
    running = []
    for name in studies:
        tiny_study(tmp_path, name, steps=2)
        words = snakemake(tmp_path, "--config", f"study={tmp_path / name}.yaml", cores=1)
        running.append(
            subprocess.Popen(
                words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    for name, process in zip(studies, running):
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        assert len(results_of(tmp_path, name)) == len(
            Workflow({"study": str(tmp_path / f"{name}.yaml")}).specs
        )
    [place] = (tmp_path / "data").iterdir()
    assert (place / "index.json").exists()


def test_one_run_per_gpu(tmp_path):
    """No GPU is needed: CUDA_VISIBLE_DEVICES alone says that there are two."""
    tiny_study(tmp_path, specs_per_job=1)
    call(tmp_path, "--until", "pretrain", "--cores", "8", CUDA_VISIBLE_DEVICES="GPU-a,GPU-b")
    results = [read_result(path.parent) for path in tmp_path.glob("results/tiny/*/result.json")]
    spans = [tuple(map(datetime.fromisoformat, (r.started, r.finished))) for r in results]
    assert max(sum(a <= start < b for a, b in spans) for start, _ in spans) <= 2
