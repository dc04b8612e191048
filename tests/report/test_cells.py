"""A cell shows the mean of its own runs, or why it has none."""

from dataclasses import replace

import pytest

from mgm.report.cells import FilledCell, fill_all, filled_of, gain
from mgm.report.findings import Findings
from mgm.report.page.sections import by_class
from mgm.results.frame import examine_all
from mgm.results.result import RunStatus
from mgm.results.statistics import Estimate
from mgm.study.registry import Registry
from tests.helpers.fake_results import finish, finish_all, registry, write_log


def collect(known: Registry, results) -> dict[tuple[str, str], FilledCell]:
    return {
        (row.row, row.column): row
        for row in filled_of(
            known.tables["4e"],
            fill_all(Findings(known, examine_all(results, known.specs), results)),
        )
    }


def cell_runs(known: Registry, row: str, column: str = "SSv2"):
    return next(
        cell.runs for cell in known.tables["4e"].cells if (cell.row, cell.column) == (row, column)
    )


MGM = ("MGM (Dense)", "SSv2")


def test_partial_is_marked_and_counts_what_is_done(tmp_path):
    known = registry()
    runs = cell_runs(known, "MGM (Dense)")
    for run, top1 in zip(runs[:2], (50, 60)):
        finish(tmp_path, run, top1)
    write_log(tmp_path / runs[2].run_id, 3, 30)
    row = collect(known, tmp_path)[MGM]
    assert (row.status, row.estimate.mean, row.estimate.n, row.paper) == (
        "partial",
        pytest.approx(55),
        2,
        67.3,
    )
    assert (row.difference, row.commit) == (pytest.approx(-12.3), "d67827d" + "0" * 33)
    assert "running" in row.why
    assert row.values == (pytest.approx(50), pytest.approx(60), None)


def test_an_altered_parent_takes_the_numbers_of_its_children(tmp_path):
    known = registry()
    finish_all(tmp_path, known, steps=2)
    parent = cell_runs(known, "SMM (Dense)")[0].parent
    (tmp_path / parent / "result.json").write_text("{}")
    altered = {row.row for row in collect(known, tmp_path).values() if row.status == "altered"}
    assert altered == {"SMM (Dense)"}


def test_gain_is_paired_by_seed(tmp_path):
    known = registry()
    for run, top1 in zip(cell_runs(known, "MGM (Dense)"), (50, 60, 70)):
        finish(tmp_path, run, top1)
    # The first seed is not run.
    for run, top1 in zip(cell_runs(known, "No pretraining")[1:], (55, 60)):
        finish(tmp_path, run, top1)
    table = collect(known, tmp_path)
    estimate = gain(table[MGM], table["No pretraining", "SSv2"])
    assert (estimate.mean, estimate.n) == (pytest.approx(7.5), 2)
    assert gain(table["Random Tube", "SSv2"], table[MGM]) is None


def test_a_difference_of_cells_of_other_seeds_is_that_of_the_numbers_shown(tmp_path):
    known = registry(seeds=(0, 1, 2))
    runs = cell_runs(known, "MGM (Dense)")
    for run, top1 in zip(runs, (50, 60, 70)):
        finish(tmp_path, run, top1)
    ours = collect(known, tmp_path)[MGM]
    control = replace(ours, runs=runs[:1], values=(40.0,), estimate=Estimate(40.0, 39.0, 41.0))
    difference = gain(ours, control)
    assert difference.mean == pytest.approx(ours.estimate.mean - 40)
    assert ours.estimate.low - 40 > difference.low > ours.estimate.low - 41


def test_every_label_draw_counts_in_the_accuracy_by_class(tmp_path):
    known = registry(seeds=(0,))
    [run] = cell_runs(known, "MGM (Dense)")
    folder = finish(tmp_path, run)
    (folder / "predictions.csv").write_text("path,label,prediction,prediction\n1,a,a,b\n2,b,b,b\n")
    row = collect(known, tmp_path)[MGM]
    found = by_class(row, tmp_path, {run.run_id: RunStatus("run", "", {"top1": 75.0})})
    assert [(line["name"], line["predictions"], line["accuracy"]) for line in found["lines"]] == [
        ("a", 2, 50.0),
        ("b", 2, 100.0),
    ]
