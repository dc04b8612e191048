"""What MLflow shows is what the files say, however often they are mirrored."""

import json
import socket
import sqlite3
import time

import pytest
from fake_results import finish, registry, write_log

from mgm.errors import UserError
from mgm.report.mlflow import default_uri, sync
from mgm.report.result import read_result, write_result


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A tracker's file with its tables made once: making them takes seconds."""
    path = tmp_path_factory.mktemp("tracker") / "mlflow.db"
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path.read_bytes()


@pytest.fixture
def place(tmp_path, template, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/smoke").mkdir(parents=True)
    (tmp_path / "results/mlflow.db").write_bytes(template)
    return tmp_path / "results/smoke"


KNOWN = registry(seeds=(0,))


def lineage():
    """A finetuned run of MGM (Dense) and its parent."""
    run = next(cell.runs[0] for cell in KNOWN.tables["4e"].cells if (cell.row, cell.column) == ("MGM (Dense)", "SSv2"))
    return KNOWN.specs[run.parent], run


def mirrored(place):
    from mlflow import MlflowClient

    client = MlflowClient(default_uri(place))
    experiment = client.get_experiment_by_name("smoke")
    return client, {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def counts(summary):
    return summary.created, summary.updated, summary.unchanged


def test_a_run_its_parent_its_curve_and_its_cell(place):
    parent, child = lineage()
    finish(place, parent, steps=20)
    finish(place, child, top1=60, steps=5)
    assert counts(sync(KNOWN, place)) == (2, 0, 0)
    client, runs = mirrored(place)
    run = runs[child.run_id]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/top1"] == pytest.approx(60)
    assert run.data.params["optim.lr"] == json.dumps(child.optim.lr)
    assert run.data.params["clips.sampling"] == "stride"
    tags = run.data.tags
    assert "4e" in tags["table"].split("; ")
    assert "MGM (Dense)" in tags["row"].split("; ")
    assert "SSv2" in tags["column"].split("; ")
    assert (tags["verb"], tags["seed"], tags["dirty"]) == ("finetune", "0", "false")
    assert (tags["parents"], tags["commit"]) == (parent.run_id, read_result(place / child.run_id)["commit"])
    assert tags["mlflow.parentRunId"] == runs[parent.run_id].info.run_id
    history = client.get_metric_history(runs[parent.run_id].info.run_id, "train/loss")
    assert [metric.step for metric in sorted(history, key=lambda metric: metric.step)] == list(range(1, 21))
    assert runs[parent.run_id].data.tags["row"].startswith("ViT-B")  # of Table 4a, the first that it stands in


def test_a_second_sync_changes_nothing_and_a_changed_result_is_updated(place):
    parent, child = lineage()
    finish(place, parent, steps=5)
    finish(place, child, top1=60, steps=5)
    sync(KNOWN, place)
    before = (place.parent / "mlflow.db").read_bytes()
    assert counts(sync(KNOWN, place)) == (0, 0, 2)
    assert (place.parent / "mlflow.db").read_bytes() == before
    finish(place, child, top1=70, steps=5)
    assert counts(sync(KNOWN, place)) == (0, 1, 1)
    _, runs = mirrored(place)
    assert len(runs) == 2
    assert runs[child.run_id].data.metrics["test/top1"] == pytest.approx(70)
    assert counts(sync(KNOWN, place)) == (0, 0, 2)


def test_a_training_run_grows_in_place(place):
    parent, _ = lineage()
    write_log(place / parent.run_id, 4, 9)
    sync(KNOWN, place)
    client, runs = mirrored(place)
    first = runs[parent.run_id].info
    assert first.status == "RUNNING"
    write_log(place / parent.run_id, 7, 9)
    assert counts(sync(KNOWN, place)) == (0, 1, 0)
    finish(place, parent, steps=9)
    assert counts(sync(KNOWN, place)) == (0, 1, 0)
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(first.run_id, "train/loss")) == 9
    write_log(place / parent.run_id, 3, 9)  # started anew: another curve
    (place / parent.run_id / "result.json").unlink()
    sync(KNOWN, place)
    _, runs = mirrored(place)
    assert runs[parent.run_id].info.run_id != first.run_id


def test_failed_and_altered_runs_show_as_such_without_a_result(place):
    parent, child = lineage()
    finish(place, child, steps=5)
    write_result(place / child.run_id, {**read_result(place / child.run_id), "seed": 5})
    (place / parent.run_id).mkdir()
    (place / parent.run_id / "error.txt").write_text("out of memory")
    sync(KNOWN, place)
    _, runs = mirrored(place)
    assert runs[child.run_id].data.metrics == {}
    assert {run_id: (run.info.status, run.data.tags["state"]) for run_id, run in runs.items()} == {
        child.run_id: ("FAILED", "altered"),
        parent.run_id: ("FAILED", "failed"),
    }
    assert runs[parent.run_id].data.tags["why"] == "out of memory"


def test_an_interrupted_sync_is_completed(place):
    parent, _ = lineage()
    finish(place, parent, steps=5)
    sync(KNOWN, place)
    with sqlite3.connect(place.parent / "mlflow.db") as database:
        database.execute("DELETE FROM tags WHERE key = 'mgm.digest'")  # the last thing that is written
    assert counts(sync(KNOWN, place)) == (0, 1, 0)
    assert len(mirrored(place)[1]) == 1


def test_nothing_to_mirror_makes_no_tracker_work(tmp_path):
    assert counts(sync(KNOWN, tmp_path / "results/smoke")) == (0, 0, 0)


def test_a_tracker_that_is_down_or_broken_is_one_line(place, tmp_path):
    finish(place, lineage()[0], steps=5)
    (tmp_path / "broken.db").write_text("this is no database, and it is longer than a header " * 10)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "file").write_text("")
    for uri in (f"sqlite:///{tmp_path}/broken.db", f"sqlite:///{tmp_path}/file/mlflow.db", f"http://127.0.0.1:{port}", "nonsense://x"):
        started = time.monotonic()
        with pytest.raises(UserError, match=r"^tracker .*; nothing is lost, .* sync again when the tracker is up$") as raised:
            sync(KNOWN, place, uri)
        assert "\n" not in str(raised.value)
        assert time.monotonic() - started < 60
