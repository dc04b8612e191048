"""Figures and page of videos with several labels."""

from types import SimpleNamespace

import pytest

from mgm.report.page.sections import by_class
from mgm.spec import OWN
from mgm.study.registry import SHARES
from mgm.study.scales import Dataset
from mgm.study.suite import make_registry
from tests.helpers.fake_results import smoke


def test_no_accuracy_by_class_without_a_single_prediction(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "predictions.csv").write_text("path,labels,walk,talk\na.mp4,walk,0.9,0.1\n")
    row, status = SimpleNamespace(run_ids=("run",)), SimpleNamespace(result={"metrics": {}})
    assert by_class(row, tmp_path, {"run": status}) is None


@pytest.mark.parametrize(("several", "axis"), [(False, "Top-1 accuracy (%)"), (True, "mAP (%)")])
def test_the_axis_of_seeds_names_the_metric_of_its_cells(several, axis):
    own = Dataset(root="videos", digest="0" * 12, several_labels=several)
    scale = smoke((0, 1), ()).model_copy(
        update={"datasets": {OWN: own}, "name": "boxing", "other_masks": False}
    )
    plot = make_registry(scale).plots["4_seeds"]
    assert plot.x == axis
    assert {SHARES[cell.metric] for cell in plot.cells} == {axis}
