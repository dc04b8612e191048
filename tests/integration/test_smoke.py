"""Tests of the results of `make reproduce`: runs, tables, the page, and that pretraining helps."""

import csv
import shutil
import sqlite3

import numpy as np
import pytest
from scipy import stats

from mgm.results.frame import load, read_csv
from mgm.results.run import log_lines, status
from tests.helpers import programs
from tests.helpers.programs import ROOT, snakemake

pytestmark = pytest.mark.smoke
TABLES = ("1", "2a", "2b", "2c", "2d", "3", "4a", "4b", "4c", "4d", "4e")
# Curves are shown as svg, frames of clips as png.
FIGURES = dict.fromkeys(("1", "4a", "4b"), "svg") | dict.fromkeys("5678", "png")


@pytest.fixture(scope="module")
def published(smoke):
    return load("smoke", smoke.parent)


def probe_of(published, row: str) -> str:
    frame = published.frame
    chosen = frame[(frame.study == "table4e") & (frame.row == row) & (frame.stage == "probe")]
    (run_id,) = chosen.run_id.unique()
    return run_id


def test_every_run_is_finished(published, smoke):
    states = {run: status(smoke / run).state for run in published.specs}
    assert set(states.values()) == {"finished"}, states


def test_tables_figures_and_page_are_in_their_places():
    reports = ROOT / "reports" / "smoke"
    for name in TABLES:
        for ending in ("csv", "md"):
            assert (reports / "tables" / f"table{name}.{ending}").stat().st_size > 0
    for name, kind in FIGURES.items():
        assert (reports / "figures" / f"figure{name}.{kind}").stat().st_size > 0
    assert (reports / "tables/claims.csv").stat().st_size > 0
    table = read_csv(reports / "tables" / "table4e.csv")
    assert table.run_ids.astype(bool).all()
    page = (reports / "index.html").read_text()
    assert all(mask in page for mask in table["Mask"])


def test_mlflow_mirrors_every_run(published):
    with sqlite3.connect(ROOT / "results" / "mlflow.db") as database:
        names = database.execute(
            "select tags.value from tags join runs using (run_uuid) where "
            "tags.key = 'mgm.run' and runs.lifecycle_stage = 'active'"
        ).fetchall()
    assert {name for (name,) in names} >= set(published.specs)


def test_pretraining_learns(published, smoke):
    """The model explains more than 1 % of the loss of predicting zeros."""
    parent = published.specs[probe_of(published, "MGM (Dense)")].parent
    last = [line for line in log_lines(smoke / parent) if "trivial_loss" in line][-10:]
    loss, trivial = (np.mean([line[name] for line in last]) for name in ("loss", "trivial_loss"))
    assert loss < 0.99 * trivial


def test_a_probe_of_pretrained_weights_beats_random_ones(published, smoke):
    """The 95 % interval of MGM's gain over test videos is above zero. No order is tested."""

    def right(row: str) -> np.ndarray:
        with (smoke / probe_of(published, row) / "predictions.csv").open() as file:
            return np.array([line["label"] == line["prediction"] for line in csv.DictReader(file)])

    gain = 100.0 * (right("MGM (Dense)").astype(int) - right("No pretraining"))
    low, _ = stats.norm.interval(0.95, loc=gain.mean(), scale=stats.sem(gain))
    assert low > 0, f"gain {gain.mean():.1f}, interval from {low:.1f}"


def test_with_a_result_deleted_and_no_data_the_report_trains_nothing(published, smoke, tmp_path):
    shutil.copytree(
        smoke, tmp_path / "results" / "smoke", ignore=shutil.ignore_patterns("*.safetensors")
    )
    victim = tmp_path / "results" / "smoke" / probe_of(published, "Random Block")
    (victim / "result.json").unlink()
    done = programs.run(snakemake(tmp_path, "report", cores=1))
    assert done.returncode == 0, done.stderr
    assert "wildcards: run=" not in done.stdout + done.stderr
    assert not (tmp_path / "data").exists()
    table = read_csv(tmp_path / "reports" / "smoke" / "tables" / "masks.csv")
    assert "stopped" in table.to_csv()
