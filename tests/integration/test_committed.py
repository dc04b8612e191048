"""Tests of the committed results: they are those of the current code, and can be shared."""

import json
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

import mgm
from mgm.dag.workflow import Workflow
from mgm.report.verify import verify
from mgm.results.archive import archive_of, is_packed, unpack
from mgm.results.frame import examine_all
from mgm.results.plan import read_plan
from mgm.results.result import examine
from mgm.study import STUDIES
from mgm.study.load import read_studies

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
# A new study has predictions before it has runs.
RAN = sorted(path.stem for path in STUDIES.glob("*.yaml") if is_packed(RESULTS / path.stem))


@pytest.mark.slow
def test_each_run_is_one_of_the_scale_and_believed(tmp_path):
    unpack(RESULTS / "mini")
    specs = Workflow({"scale": "mini"}, results=tmp_path).plan.specs
    done = {path.parent.name for path in RESULTS.glob("mini/*/result.json")}
    assert done <= set(specs)
    assert {examine(RESULTS / "mini" / run_id, specs[run_id]).state for run_id in done} == {
        "finished"
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", RAN)
def test_every_study_is_verified_against_git(name):
    """A change of a recipe, a study or a default must not orphan a committed run."""
    folder = RESULTS / name
    plan = read_plan(folder)
    studies = [*read_studies(folder, plan).values()]
    checks = verify(plan, studies, examine_all(folder, plan.specs), folder)
    assert all(passes for passes, _ in checks), checks


@pytest.mark.slow
@pytest.mark.parametrize("name", RAN)
def test_an_archive_has_the_plan_of_its_folder(name):
    """Otherwise a clone writes other pages than this checkout."""
    unpack(RESULTS / name)
    with tarfile.open(archive_of(RESULTS / name)) as archive:
        packed = archive.extractfile(f"{name}/plan/cells.csv").read()
    assert packed == (RESULTS / name / "plan" / "cells.csv").read_bytes()


@pytest.mark.slow
def test_the_archive_holds_code_lock_results_and_page(tmp_path):
    subprocess.run(
        ["make", "archive", "NAME=mini", f"ARCHIVE={tmp_path}/mgm.tar.gz"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    with tarfile.open(tmp_path / "mgm.tar.gz") as archive:
        names = set(archive.getnames())
    wanted = {
        "mgm/mgm/cli/base.py",
        "mgm/requirements.lock",
        "mgm/.zenodo.json",
        "mgm/results/cells.csv",
        "mgm/reports/mini/index.html",
    }
    assert wanted <= names
    # Results have no weights; the small models in weights/ belong to the code.
    assert {Path(name).parts[1] for name in names if name.endswith(".safetensors")} <= {"weights"}


def test_what_is_said_of_the_software_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation, zenodo = (
        yaml.safe_load((ROOT / "CITATION.cff").read_text()),
        json.loads((ROOT / ".zenodo.json").read_text()),
    )
    assert mgm.__version__ == citation["version"] == zenodo["version"]
    assert project["license"] == citation["license"] == zenodo["license"]
    assert citation["title"] == zenodo["title"]
    assert [author["name"] for author in citation["authors"]] == [
        creator["name"] for creator in zenodo["creators"]
    ]
    assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", zenodo["related_identifiers"][0]["identifier"])
