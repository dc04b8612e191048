"""The page of videos with several labels."""

from types import SimpleNamespace

from mgm.report.page.sections import by_class


def test_no_accuracy_by_class_without_a_single_prediction(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "predictions.csv").write_text("path,labels,walk,talk\na.mp4,walk,0.9,0.1\n")
    row, status = SimpleNamespace(run_ids=("run",)), SimpleNamespace(result={"metrics": {}})
    assert by_class(row, tmp_path, {"run": status}) is None
