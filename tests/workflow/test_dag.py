"""Snakemake itself, on a study of a few steps."""

import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from mgm.dag.workflow import Workflow
from mgm.results.run import read_result
from mgm.spec import parents
from tests.helpers.programs import ENVIRONMENT, run, snakemake
from tests.helpers.tiny_study import tiny_study

NOTHING = "Nothing to be done"
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
    assert "to do" in call(tmp_path, "--dry-run").splitlines()[-len(study.expansion.targets) - 1]
    assert {path for path in tmp_path.rglob("*") if ".snakemake" not in path.parts} == before

    # One run, and what it starts from.
    one = next(run_id for run_id, spec in study.specs.items() if getattr(spec, "parent", ""))
    call(tmp_path, f"results/tiny/{one}/result.json")
    made = results_of(tmp_path)
    assert made.keys() == {one, study.specs[one].parent}
    assert NOTHING in call(tmp_path, f"results/tiny/{one}/result.json")
    call(tmp_path, "--until", "pretrain")
    trained = {run_id for run_id in study.specs if run_id.startswith("pretrain")}
    assert results_of(tmp_path).keys() == {one} | trained
    # A word after --quiet would be a kind of output.
    call(tmp_path, "probes", "--quiet", "all")
    probed = {run_id for run_id in study.specs if run_id.startswith("probe")}
    assert results_of(tmp_path).keys() == {one} | trained | probed
    assert (tmp_path / "reports/tiny/tables/probes.csv").exists()
    call(tmp_path)
    assert results_of(tmp_path).keys() == study.specs.keys()
    assert made.items() <= results_of(tmp_path).items()
    # What is there is up to date: all of it, a table, a study, a stage.
    for words in ([], ["probes"], ["--until", "pretrain"], [f"results/tiny/{one}/result.json"]):
        assert NOTHING in call(tmp_path, *words)
    assert "1 of 1 steps" in call(tmp_path, "tiny")
    assert NOTHING in call(tmp_path, "tiny")
    assert (tmp_path / "reports" / "tiny" / "index.html").exists()
    # A result that was deleted is made again, by a target that shows it, and alone.
    before = results_of(tmp_path)
    lost = next(iter(probed))
    shutil.rmtree(tmp_path / "results/tiny" / lost)
    call(tmp_path, "probes")
    after = results_of(tmp_path)
    assert after.pop(lost) != before.pop(lost)
    assert after == before


def test_a_failed_run_holds_up_its_own_children_alone(tmp_path):
    """The first run of a batch fails. Each later call says so, and makes nothing twice."""
    path = tiny_study(tmp_path)
    fields = yaml.safe_load(path.read_text())
    fields["rows"] = {"Bad": {"optim.lr": 1e38}, "Tube": {"mask": "tube"}, "MGM": {}}
    fields["compare"] = []
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    study = Workflow({"study": str(path)})
    bad = next(one for one in study.batches.values() if one[0].startswith("pretrain"))[0]
    assert study.specs[bad].optim.lr == 1e38
    sound = {run for run, spec in study.specs.items() if bad not in (run, *parents(spec))}
    command = snakemake(tmp_path, "--config", f"study={path}")
    for _ in range(2):
        done = run(command, timeout=600)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert results_of(tmp_path).keys() == sound
        assert f"waits for {bad}" in said
        assert f"{bad}: failed: " in said
        assert "no backup" not in said
        assert (tmp_path / "reports/tiny/index.html").exists()
    # Mended, it is made with its children, and nothing else.
    before = results_of(tmp_path)
    fields["rows"]["Bad"] = {"optim.lr": 1e-3}
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    call(tmp_path)
    assert before.items() <= results_of(tmp_path).items()


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
    gpus = {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b", "MGM_CPU": "1"}
    call(tmp_path, "--until", "pretrain", "--cores", "8", **gpus)
    results = [read_result(path.parent) for path in tmp_path.glob("results/tiny/*/result.json")]
    spans = [tuple(map(datetime.fromisoformat, (r.started, r.finished))) for r in results]
    assert max(sum(a <= start < b for a, b in spans) for start, _ in spans) <= 2
