"""Accuracy by class against predictions whose counts are known."""

import pytest

from mgm.report.cells import rows
from mgm.report.page import classes
from mgm.report.page.classes import by_class
from mgm.results.frame import examine_all
from tests.helpers.fake_results import finish, registry


def classes_of(tmp_path):
    """Two runs of 240 predictions of 12 classes: the first 60 and 120 are right, the others say
    the next class."""
    known = registry()
    cell = next(cell for cell in known.tables["4e"].cells if cell.row == "MGM (Dense)")
    for run, top1 in zip(cell.runs[:2], (25.0, 50.0)):
        finish(tmp_path, run, top1, videos=240)
    found = examine_all(tmp_path, known.specs)
    return by_class(
        next(row for row in rows(known, found)["4e"] if row.runs == cell.runs), tmp_path, found
    )


def test_predictions_of_all_runs_are_counted_by_class(tmp_path):
    found = classes_of(tmp_path)
    assert found.runs == 2
    assert len(found.lines) == 12
    for line in found.lines:
        assert (line.predictions, line.accuracy) == (40, pytest.approx(37.5))
        assert line.confused_with == str((int(line.name) + 1) % 12)
        assert line.confused == pytest.approx(62.5)
    assert found.matrix["3"]["3"] == pytest.approx(37.5)
    assert found.matrix["3"]["4"] == pytest.approx(62.5)
    assert sum(found.matrix["3"].values()) == pytest.approx(100)


def test_many_classes_have_no_matrix(tmp_path, monkeypatch):
    monkeypatch.setattr(classes, "LARGEST_MATRIX", 11)
    found = classes_of(tmp_path)
    assert found.matrix == {}
    assert len(found.lines) == 12


def test_without_predictions_there_is_none(tmp_path):
    assert by_class(None, tmp_path, {}) is None
