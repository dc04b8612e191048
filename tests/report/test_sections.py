"""Controls on the page and in Table 4e."""

from pathlib import Path

import numpy as np
import pytest

from mgm.report.build import build_report
from mgm.report.cells import fill_all, filled_of, gain
from mgm.report.findings import Findings
from mgm.report.page.sections import controls_of
from mgm.results.frame import examine_all
from mgm.results.result import read_result, write_result
from mgm.study.registry import CONTROL_ROWS
from tests.helpers.fake_results import finish, finish_all, registry

KNOWN = registry(seeds=(0,))
COLUMN = "SSv2, linear probe"


@pytest.fixture
def results(tmp_path):
    finish_all(tmp_path / "results", KNOWN)
    return tmp_path / "results"


def test_controls_share_labels_draws_splits_and_groups_with_the_probes():
    [run] = KNOWN.controls
    probe = KNOWN.tables["4e"].cell("No pretraining", COLUMN).runs[0]
    for name in ("data", "clips", "model", "seed", "label_draws", "held_out", "views"):
        assert getattr(run, name) == getattr(probe, name)
    for row in CONTROL_ROWS:
        assert KNOWN.tables["4e"].cell(row, COLUMN).runs == (run,)


def test_controls_are_rows_of_their_own_section_with_intervals(results):
    found = examine_all(results, KNOWN.specs)
    cells = {
        (row.row, row.column): row
        for row in filled_of(KNOWN.tables["4e"], fill_all(Findings(KNOWN, found, Path())))
    }
    control = cells["File facts", COLUMN]
    assert control.estimate.mean == 40
    assert control.estimate.low < 40 < control.estimate.high
    assert ("File facts", "SSv2") not in cells
    ours = cells["MGM (Dense)", COLUMN]
    assert gain(ours, control).mean == pytest.approx(ours.values[0] - 40)


def test_a_control_that_cannot_be_measured_is_not_altered(results):
    [run] = KNOWN.controls
    result = read_result(results / run.run_id)
    del result["metrics"]["vector_mean"]
    write_result(results / run.run_id, result)
    cells = {
        row.row: row
        for row in filled_of(
            KNOWN.tables["4e"],
            fill_all(Findings(KNOWN, examine_all(results, KNOWN.specs), results)),
        )
    }
    assert cells["Mean motion vector, 2 numbers"].status == "not run"
    assert "cannot be measured" in cells["Mean motion vector, 2 numbers"].why
    assert cells["File facts"].status == "run"


def test_the_page_shows_controls_their_intervals_and_a_warning(results, tmp_path):
    text = build_report(KNOWN, results, tmp_path / "reports").read_text()
    section = text.split('<section id="controls">')[1].split("</section>")[0]
    assert "what the file says of itself alone predicts the class: 40 % (chance 8 %)" in section
    assert "not measured: it is the same for all videos" in section
    assert "<small>88.0 to 93.5</small>" in section
    assert "class a has test videos but no training videos" in section.lower()
    found = controls_of(KNOWN, results, examine_all(results, KNOWN.specs))
    assert found["lines"]["Motion-vector histogram, 9 x 9"].mean == 91
    (results / KNOWN.controls[0].run_id / "result.json").unlink()
    text = build_report(KNOWN, results, tmp_path / "reports").read_text()
    section = text.split('<section id="controls">')[1].split("</section>")[0]
    assert KNOWN.controls[0].run_id in section


def test_several_runs_of_controls_have_an_interval_over_seeds(tmp_path):
    known = registry(seeds=(0, 1))
    for seed, run in enumerate(known.controls):
        finish(tmp_path, run)
        path = tmp_path / run.run_id / "arrays.npz"
        arrays = dict(np.load(path))
        arrays["top1_N"][2] = 80 + 10 * seed
        np.savez(path, **arrays)
        result = read_result(tmp_path / run.run_id)
        write_result(tmp_path / run.run_id, {**result, "files": {}})
    found = controls_of(known, tmp_path, examine_all(tmp_path, known.specs))
    one = found["lines"]["Motion-vector histogram, 9 x 9"]
    assert (one.mean, one.n) == (85, 2)
