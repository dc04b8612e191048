"""The report depends on the result files alone.

A copy without weights gives the same tables.
"""

import shutil

import pytest

from mgm.report.build import build_report
from mgm.report.estimates import read_results
from mgm.report.tables import csv_of
from tests.helpers.fake_results import finish, finish_all, run_of, suite

KNOWN = suite(seeds=(0,))
RUN = run_of(KNOWN, "MGM (Dense)")


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results" / "smoke"
    folder.mkdir(parents=True)
    KNOWN.write(folder)
    return folder


def test_results_without_weights_build_the_same_tables_elsewhere(results, tmp_path):
    finish_all(results, KNOWN)
    # This run failed.
    (results / RUN.run_id / "result.json").unlink()
    (results / RUN.run_id / "error.txt").write_text("out of memory")
    there = tmp_path / "another" / "place" / "smoke"
    shutil.copytree(results, there)
    for folder in results.iterdir():
        if folder.is_dir():
            (folder / "weights.safetensors").write_bytes(b"weights")
            (folder / "checkpoint.pt").write_bytes(b"checkpoint")
    build_report(results, tmp_path / "here")
    build_report(there, tmp_path / "there")
    tables = sorted((tmp_path / "here" / "tables").glob("*.csv"))
    assert {"table4e.csv", "table4a.csv"} <= {path.name for path in tables}
    for path in tables:
        assert path.read_bytes() == (tmp_path / "there" / "tables" / path.name).read_bytes()


@pytest.mark.parametrize("content", [b"exchanged", b"", b"weigh"])
def test_weights_that_were_exchanged_or_cut_are_altered_in_the_report(results, content):
    finish(results, KNOWN.specs[RUN.parent])
    finish(results, RUN)
    weights = results / RUN.parent / "weights.safetensors"
    weights.write_bytes(content)
    assert table_line(results).status == "altered"
    weights.write_bytes(b"weights")
    assert table_line(results).status == "finished"


def table_line(results):
    found = read_results(results, weights=True)["table4e"]
    table = csv_of(found, found.study.views["table4e"]).set_index(["row", "column"])
    return table.loc["MGM (Dense)", "Fine-tuned"]
