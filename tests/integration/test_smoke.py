"""Tests of the results of `make reproduce`: runs, tables, the page, and that pretraining helps."""

import csv
import itertools
import shutil
import sqlite3
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from mgm.dag.workflow import Workflow
from mgm.report.tables import COLUMNS
from mgm.results.plan import read_plan
from mgm.results.result import examine, last_losses, learnt_nothing, log_lines
from tests.helpers import programs
from tests.helpers.fake_results import run_of
from tests.helpers.programs import ROOT, snakemake

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def suite(smoke):
    return read_plan(smoke)


def test_every_run_is_done_and_believed(suite, smoke):
    states = {run_id: examine(smoke / run_id, spec).state for run_id, spec in suite.specs.items()}
    assert set(states.values()) == {"finished"}, states


def test_the_results_are_those_of_the_scale_as_it_stands(suite):
    """Results of another configuration would make every test below meaningless."""
    assert list(suite.specs) == list(Workflow({}, results=ROOT / "results").plan.specs)


TABLES = ("1", "2a", "2b", "2c", "2d", "3", "4a", "4b", "4c", "4d", "4e")
# Curves are shown as svg, frames of clips as png.
FIGURES = dict.fromkeys(("1", "4a", "4b", "5_coverage"), "svg") | dict.fromkeys("5678", "png")


def test_tables_figures_and_page_are_in_their_places():
    reports = ROOT / "reports" / "smoke"
    for name, ending in itertools.product((*TABLES, "measured"), ("csv", "md", "tex")):
        assert (reports / "tables" / f"table{name}.{ending}").stat().st_size > 0
    for name, kind in FIGURES.items():
        assert (reports / "figures" / f"figure{name}.{kind}").stat().st_size > 0
    assert (reports / "figures" / "order.svg").stat().st_size > 0
    assert (reports / "index.md").stat().st_size > 0
    with (reports / "tables" / "table4e.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert {(row["status"], row["n"]) for row in rows} == {("finished", "1")}
    with (reports / "tables" / "table1.csv").open() as file:
        first = list(csv.DictReader(file))
    assert {(row["status"], row["n"]) for row in first} == {("finished", "1"), ("quoted", "0")}
    tested = [row for row in first if row["column"] == "Fine-tuned"]
    assert sum(row["status"] == "finished" for row in tested) == 15
    page = (reports / "index.html").read_text()
    assert all(row["row"] in page for row in rows)


def test_mlflow_mirrors_every_run(suite):
    with sqlite3.connect(ROOT / "results" / "mlflow.db") as database:
        names = database.execute(
            "select tags.value from tags join runs using (run_uuid) "
            "join experiments using (experiment_id) where tags.key = 'mgm.run' "
            "and experiments.name = 'smoke' and runs.lifecycle_stage = 'active'"
        ).fetchall()
    assert {name for (name,) in names} >= set(suite.specs)


def test_pretraining_learns(suite, smoke):
    probe = run_of(suite, "MGM (Dense)", "Linear probe")
    assert not learnt_nothing(*last_losses(log_lines(smoke / probe.parent)))


def test_a_probe_of_pretrained_weights_beats_random_ones(suite, smoke):
    """The 95 % interval of MGM's gain is above zero. No order of the masks is tested.

    The interval is over test videos.
    """

    def right(row: str) -> np.ndarray:
        run = run_of(suite, row, "Linear probe")
        with (smoke / run.run_id / "predictions.csv").open() as file:
            return np.array([line["label"] == line["prediction"] for line in csv.DictReader(file)])

    gain = 100.0 * (right("MGM (Dense)").astype(int) - right("No pretraining"))
    low, _ = stats.norm.interval(0.95, loc=gain.mean(), scale=stats.sem(gain))
    assert low > 0, f"gain {gain.mean():.1f}, interval from {low:.1f}"


def test_with_a_result_deleted_and_no_data_the_report_trains_nothing(smoke, tmp_path):
    shutil.copytree(
        smoke, tmp_path / "results" / "smoke", ignore=shutil.ignore_patterns("*.safetensors")
    )
    victim = run_of(read_plan(smoke), "Random Block")
    (tmp_path / "results" / "smoke" / victim.run_id / "result.json").unlink()
    done = programs.run(snakemake(tmp_path, "report", cores=1))
    assert done.returncode == 0, done.stderr
    # All rules that train or prepare have the wildcard `job`.
    assert "wildcards: job=" not in done.stdout + done.stderr
    assert not (tmp_path / "data").exists()
    with (tmp_path / "reports" / "smoke" / "tables" / "table4e.csv").open() as file:
        statuses = [row["status"] for row in csv.DictReader(file)]
    assert Counter(statuses)["finished"] == len(statuses) - 1
