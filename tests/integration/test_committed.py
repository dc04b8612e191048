"""Tests of the committed results of mini.

They are those of the current scale and code, and can be shared: page, crate, archive.
"""

import json
import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import mgm
from mgm.dag.study import Workflow
from mgm.paper import STUDIES
from mgm.paper.suite import registry_of
from mgm.reading import file_digest
from mgm.report.cells import cells
from mgm.report.crate import write_crate
from mgm.report.findings import read_findings
from mgm.report.verify import verify
from mgm.results.archive import is_packed, unpack
from mgm.results.frame import frame
from mgm.results.result import examine
from tests.helpers.rocrate import findings

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
# A new study has predictions before it has runs.
RAN = sorted(path.stem for path in STUDIES.glob("*.yaml") if is_packed(RESULTS / path.stem))


def test_each_run_is_one_of_the_scale_and_believed(tmp_path):
    unpack(RESULTS / "mini")
    specs = Workflow({"scale": "mini"}, results=tmp_path).registry.specs
    done = {path.parent.name for path in RESULTS.glob("mini/*/result.json")}
    assert done <= set(specs)
    assert {examine(RESULTS / "mini" / run_id, specs[run_id]).state for run_id in done} == {"run"}


@pytest.mark.slow
@pytest.mark.parametrize("name", RAN)
def test_each_run_of_a_study_is_one_of_its_runs_and_believed(name):
    """A change of a recipe, a study or a default must not orphan a committed run."""
    registry = registry_of(RESULTS / name)
    done = {path.parent.name for path in (RESULTS / name).glob("*/result.json")}
    assert done
    assert done <= set(registry.specs)
    states = {examine(RESULTS / name / run_id, registry.specs[run_id]).state for run_id in done}
    assert states == {"run"}


@pytest.mark.slow
@pytest.mark.parametrize("name", RAN)
def test_every_study_is_verified_against_git(name):
    lines, failed = verify(read_findings(RESULTS / name), RESULTS / name)
    assert not failed, lines


@pytest.fixture(scope="module")
def shown():
    """Table cells of a fresh clone."""
    shown = cells(registry_of(RESULTS / "mini"), RESULTS / "mini")
    probes = shown[(shown.table == "4e") & (shown.column == "SSv2, linear probe")]
    assert (probes[probes.metric == "top1"].n > 0).all()
    return shown


@pytest.fixture(scope="module")
def crate(tmp_path_factory) -> Path:
    """Unpacked crate of mini. Its report is made from the committed results."""
    folder = tmp_path_factory.mktemp("crate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        write_crate(
            registry_of(RESULTS / "mini"),
            RESULTS / "mini",
            folder / "reports/mini",
            folder / "mini.zip",
        )
    with zipfile.ZipFile(folder / "mini.zip") as file:
        file.extractall(folder / "crate")
    return folder / "crate"


# This makes a whole report, and the validator takes 10 s.
@pytest.mark.slow
def test_their_crate_is_a_valid_workflow_run_crate(crate, monkeypatch):
    assert findings(crate, monkeypatch) == []


@pytest.mark.slow
def test_every_cell_is_followed_in_the_crate_to_its_runs(crate, shown):
    """A cell is linked to its results, and results to the actions that wrote them.

    Actions are linked to spec, data, software and the parent's weights.
    """
    entities = {
        entity["@id"]: entity
        for entity in json.loads((crate / "ro-crate-metadata.json").read_text())["@graph"]
    }
    # The action of the whole workflow also lists the results of the others.
    actions = [
        entity
        for entity in entities.values()
        if entity["@type"] == "CreateAction" and entity["@id"] != "#workflow"
    ]
    writers = {written: action for action in actions for written in links(action, "result")}
    followed = 0
    for cell in shown[shown.n > 0].itertuples():
        name = f"table{cell.table}/{cell.row}/{cell.column}"
        entity = next(entity for entity in entities.values() if entity.get("name") == name)
        assert entity["value"] == pytest.approx(cell.ours, abs=1e-4)
        assert entity["@id"] in links(
            entities[f"reports/mini/tables/table{cell.table}.csv"], "about"
        )
        done = {
            run_id
            for run_id in cell.run_ids.split()
            if (RESULTS / "mini" / run_id / "result.json").exists()
        }
        assert {Path(result).parent.name for result in links(entity, "isBasedOn")} == done
        for result in links(entity, "isBasedOn"):
            action, told = writers[result], json.loads((crate / result).read_text())
            inputs = links(action, "object")
            assert file_digest(crate / result) == entities[result]["sha256"]
            assert f"results/mini/{told['run_id']}/spec.json" in inputs
            assert f"#data-{told['data']['dataset']}-{told['data']['digest']}" in inputs
            assert told["commit"] in entities[links(action, "instrument")[0]]["softwareVersion"]
            for parent, digest in told.get("parents_sha256", {}).items():
                assert entities[f"#weights-{parent}"]["sha256"] == digest
                assert writers[f"#weights-{parent}"]["@id"] == f"#{parent}"
            followed += 1
    assert followed >= 41 / 2


def links(entity: dict, name: str) -> list[str]:
    held = entity.get(name, [])
    return [linked["@id"] for linked in (held if isinstance(held, list) else [held])]


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
        "mgm/results/mini/scale.json",
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


def test_archived_runs_on_real_videos_are_not_called_generated():
    for name in ("real-clips", "gestures"):
        assert set(frame(RESULTS / name).kind) == {"own"}
    assert set(frame(RESULTS / "guidance").kind) == {"generated"}
