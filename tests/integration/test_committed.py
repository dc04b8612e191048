"""The results of mini that come with the repository are those of the scale and the code as they stand."""

from pathlib import Path

from mgm.dag.study import Workflow
from mgm.experiments.suite import registry_of
from mgm.report.cells import cells
from mgm.runs.result import examine

RESULTS = Path(__file__).parents[2] / "results"


def test_each_run_is_one_of_the_scale_and_believed(tmp_path):
    specs = Workflow({"scale": "mini"}, results=tmp_path).registry.specs
    done = {path.parent.name for path in RESULTS.glob("mini/*/result.json")}
    assert done <= set(specs)
    assert {examine(RESULTS / "mini" / run_id, specs[run_id]).state for run_id in done} == {"run"}


def test_a_fresh_clone_shows_them():
    shown = cells(registry_of(RESULTS / "mini"), RESULTS / "mini")
    probes = shown[(shown.table == "4e") & (shown.column == "SSv2, linear probe")]
    assert len(probes) == 7
    assert (probes.n > 0).all()
