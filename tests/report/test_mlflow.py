"""MLflow shows what is in the files, after any number of syncs."""

import contextlib
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mgm.errors import UserError
from mgm.reading import file_digest
from mgm.report.mlflow.sync import default_uri, follow, register, sync
from mgm.results.result import read_result, write_result
from mgm.spec import Probe
from tests.helpers.fake_results import DIGEST, draw_arrays, finish, registry, write_log
from tests.helpers.mirrored import content

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Bytes of an MLflow database with empty tables. Making them takes seconds."""
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


CHILD = KNOWN.tables["4e"].cell("MGM (Dense)", "SSv2").runs[0]
PARENT = KNOWN.specs[CHILD.parent]


@pytest.fixture
def pair(place):
    """Results folder with a finetuned run and its parent, mirrored to MLflow."""
    finish(place, PARENT, steps=5)
    finish(place, CHILD, top1=60, steps=5)
    assert counts(sync(KNOWN, place)) == (2, 0, 0)
    return place


def mirrored(place):
    from mlflow import MlflowClient

    client = MlflowClient(default_uri(place))
    experiment = client.get_experiment_by_name("smoke")
    return client, {
        run.data.tags["mgm.run"]: run for run in client.search_runs([experiment.experiment_id])
    }


def is_level(place, template, known=None):
    """Return whether MLflow has what a sync to an empty database writes."""
    fresh = place.parent / "fresh.db"
    fresh.write_bytes(template)
    sync(known or KNOWN, place, f"sqlite:///{fresh}")
    return content(place, default_uri(place)) == content(place, f"sqlite:///{fresh}")


def last_step(place, run):
    return max(
        metric.step
        for metric in mirrored(place)[0].get_metric_history(run.info.run_id, "train/loss")
    )


def counts(summary):
    return summary.created, summary.updated, summary.unchanged


def test_a_run_its_parent_its_curve_and_its_cell(place):
    finish(place, PARENT, steps=20)
    finish(place, CHILD, top1=60, steps=5)
    assert counts(sync(KNOWN, place)) == (2, 0, 0)
    client, runs = mirrored(place)
    run = runs[CHILD.run_id]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/top1"] == pytest.approx(60)
    assert run.info.run_name == "mgm, seed 0, 60.0 %, finetune"
    assert run.data.params["optim.lr"] == json.dumps(CHILD.optim.lr)
    assert run.data.params["clips.sampling"] == "stride"
    tags = run.data.tags
    assert "4e" in tags["table"].split("; ")
    assert "MGM (Dense)" in tags["row"].split("; ")
    assert "SSv2" in tags["column"].split("; ")
    assert (tags["verb"], tags["seed"], tags["dirty"]) == ("finetune", "0", "false")
    assert (tags["parents"], tags["commit"]) == (
        PARENT.run_id,
        read_result(place / CHILD.run_id)["commit"],
    )
    assert tags["mlflow.parentRunId"] == runs[PARENT.run_id].info.run_id
    history = client.get_metric_history(runs[PARENT.run_id].info.run_id, "train/loss")
    assert [metric.step for metric in sorted(history, key=lambda metric: metric.step)] == list(
        range(1, 21)
    )
    # The run's first table is 4a.
    assert runs[PARENT.run_id].data.tags["row"].startswith("ViT-B")

    def found(query):
        found = client.search_runs([run.info.experiment_id], query)
        return {run.data.tags["mgm.run"] for run in found}

    cell = "tags.`table.4e` LIKE '%MGM (Dense) / SSv2%'"
    assert found(cell) == {PARENT.run_id, CHILD.run_id}
    assert found(f"{cell} AND tags.verb = 'finetune' AND tags.status = 'finished'") == {
        CHILD.run_id
    }
    assert found(f"tags.mlflow.parentRunId = '{runs[PARENT.run_id].info.run_id}'") == {CHILD.run_id}
    assert found("tags.`table.4e` LIKE '%Random%'") == set()


def test_artefacts_are_small_and_weights_are_copied_on_demand(place, tmp_path, template):
    finish(place, PARENT, steps=3)
    finish(place, CHILD, steps=3)
    draw_arrays(place, KNOWN)
    weights = place / PARENT.run_id / "weights.safetensors"
    weights.write_bytes(b"weights")
    result = read_result(place / PARENT.run_id)
    write_result(place / PARENT.run_id, {**result, "weights_sha256": file_digest(weights)})
    sync(KNOWN, place)
    client, runs = mirrored(place)

    def files(run_id):
        return {file.path for file in client.list_artifacts(runs[run_id].info.run_id)}

    assert files(PARENT.run_id) == {"spec.json", "result.json", "masks.png"}
    assert files(CHILD.run_id) == {"spec.json", "result.json"}
    tags = runs[PARENT.run_id].data.tags
    assert (tags["weights.path"], tags["weights.sha256"]) == (
        f"smoke/{PARENT.run_id}/weights.safetensors",
        file_digest(weights),
    )
    assert sync(KNOWN, place, weights=True).weights == 1
    assert "weights.safetensors" in files(PARENT.run_id)
    assert sync(KNOWN, place, weights=True).weights == 0
    assert is_level(place, template)
    weights.write_bytes(b"other weights")
    finish(place, PARENT, steps=4)
    with pytest.raises(UserError, match=r"weights\.safetensors: "):
        sync(KNOWN, place, weights=True)


@pytest.mark.usefixtures("pair")
def test_a_second_sync_changes_nothing_and_a_changed_result_is_updated(place, template):
    """New times of unchanged files, as in a fresh clone, update nothing."""
    database = place.parent / "mlflow.db"
    before = database.read_bytes()
    assert counts(sync(KNOWN, place)) == (0, 0, 2)
    for file in (place / CHILD.run_id).iterdir():
        os.utime(file, (1e9, 1e9))
    assert counts(sync(KNOWN, place)) == (0, 0, 2)
    assert database.read_bytes() == before
    finish(place, CHILD, top1=70, steps=5)
    assert counts(sync(KNOWN, place)) == (0, 1, 1)
    _, runs = mirrored(place)
    assert len(runs) == 2
    assert runs[CHILD.run_id].data.metrics["test/top1"] == pytest.approx(70)
    # A run that is deleted in MLflow is created again.
    mirrored(place)[0].delete_run(runs[CHILD.run_id].info.run_id)
    assert counts(sync(KNOWN, place)) == (1, 0, 1)
    # An empty database gets all runs.
    database.write_bytes(template)
    assert counts(sync(KNOWN, place)) == (2, 0, 0)
    assert is_level(place, template)


@pytest.mark.parametrize("size", [60, 100_000])
def test_a_torn_database_is_one_line_within_seconds(place, size):
    finish(place, PARENT, steps=5)
    sync(KNOWN, place)
    path = place.parent / "mlflow.db"
    path.write_bytes(path.read_bytes()[:size])
    started = time.monotonic()
    with pytest.raises(UserError, match=f"tracker {default_uri(place)}: "):
        sync(KNOWN, place)
    assert time.monotonic() - started < 40  # MLflow itself retries for 106 s


def test_a_training_run_grows_in_place(place):
    write_log(place / PARENT.run_id, 4, 9)
    sync(KNOWN, place)
    client, runs = mirrored(place)
    first = runs[PARENT.run_id].info
    assert first.status == "RUNNING"
    client.set_tag(first.run_id, "reviewed", "yes")  # a user's tags stay
    client.set_tag(first.run_id, "table.9z", "a cell of another registry")
    write_log(place / PARENT.run_id, 7, 9)
    assert counts(sync(KNOWN, place)) == (0, 1, 0)
    finish(place, PARENT, steps=9)
    assert counts(sync(KNOWN, place)) == (0, 1, 0)
    run = client.get_run(first.run_id)
    assert (run.info.status, run.data.tags["reviewed"], "table.9z" in run.data.tags) == (
        "FINISHED",
        "yes",
        False,
    )
    assert len(client.get_metric_history(first.run_id, "train/loss")) == 9
    # The run starts again, with another curve.
    write_log(place / PARENT.run_id, 3, 9)
    (place / PARENT.run_id / "result.json").unlink()
    sync(KNOWN, place)
    _, runs = mirrored(place)
    assert runs[PARENT.run_id].info.run_id != first.run_id


@pytest.mark.usefixtures("pair")
def test_failed_and_altered_runs_show_as_such_without_a_result_and_so_do_their_children(place):
    other = next(
        spec for spec in KNOWN.specs.values() if spec.stage == "pretrain" and spec is not PARENT
    )
    write_result(place / PARENT.run_id, {**read_result(place / PARENT.run_id), "seed": 5})
    (place / other.run_id).mkdir()
    (place / other.run_id / "error.txt").write_text("out of memory")
    assert counts(sync(KNOWN, place)) == (1, 2, 0)
    _, runs = mirrored(place)
    assert {run_id: (run.info.status, run.data.tags["status"]) for run_id, run in runs.items()} == {
        **dict.fromkeys((PARENT.run_id, CHILD.run_id), ("FAILED", "altered")),
        other.run_id: ("FAILED", "failed"),
    }
    assert runs[CHILD.run_id].data.metrics == {}
    assert runs[other.run_id].data.tags["why"] == "out of memory"


class Killed(BaseException):
    pass


CALLS = (
    *("create_run", "log_batch", "log_artifacts", "set_terminated", "update_run", "delete_tag"),
    *("log_inputs", "create_logged_model", "finalize_logged_model", "log_outputs", "delete_run"),
)


@pytest.mark.slow
def test_a_sync_that_ends_anywhere_is_made_level_by_the_next(place, monkeypatch, template):
    """A sync may end after any call to the tracker. One of its runs is in training.

    A sync does not clean up, so an exception has the same effect as SIGKILL.
    """
    from mlflow import MlflowClient

    def until(last):
        """Let `last` calls to the tracker through; raise Killed at the next."""
        left = iter(range(last))

        def watched(call):
            def watching(*args, **kwargs):
                if next(left, None) is None:
                    raise Killed
                return call(*args, **kwargs)

            return watching

        for name in CALLS:
            patch.setattr(MlflowClient, name, watched(getattr(MlflowClient, name)))

    write_log(place / PARENT.run_id, 4, 9)
    sync(KNOWN, place)
    write_log(place / PARENT.run_id, 7, 9)
    finish(place, CHILD, steps=3)
    before = (place.parent / "mlflow.db").read_bytes()
    for last in range(40):
        (place.parent / "mlflow.db").write_bytes(before)
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            until(last)
            sync(KNOWN, place)
            assert last >= 8  # two runs need at least 8 calls
            return
        sync(KNOWN, place)
        assert is_level(place, template), last
        assert counts(sync(KNOWN, place)) == (0, 0, 2)
    raise AssertionError("a sync of two runs makes more calls than this test ends it at")


def test_children_follow_a_parent_that_is_mirrored_anew(place, template):
    finish(place, CHILD, steps=3)
    sync(KNOWN, place)
    assert "mlflow.parentRunId" not in mirrored(place)[1][CHILD.run_id].data.tags  # no parent yet
    # Each time the parent has another curve, and so another run in MLflow.
    for steps in (3, 4):
        finish(place, PARENT, steps=steps)
        write_log(place / PARENT.run_id, steps, 20 + steps)
        (place / PARENT.run_id / "log.jsonl").write_text(
            (place / PARENT.run_id / "log.jsonl").read_text().replace("0.4", f"0.{steps}")
        )
        sync(KNOWN, place)
        _, runs = mirrored(place)
        assert runs[CHILD.run_id].data.tags["mlflow.parentRunId"] == runs[PARENT.run_id].info.run_id
    assert is_level(place, template)


def test_a_stopped_run_is_no_longer_running(place):
    write_log(place / PARENT.run_id, 4, 9)
    sync(KNOWN, place)
    for path in (place / PARENT.run_id / "log.jsonl", place / PARENT.run_id):
        os.utime(path, (1e9, 1e9))
    assert counts(sync(KNOWN, place)) == (0, 1, 0)
    run = mirrored(place)[1][PARENT.run_id]
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "stopped")
    # The run continues.
    write_log(place / PARENT.run_id, 6, 9)
    sync(KNOWN, place)
    again = mirrored(place)[1][PARENT.run_id]
    assert (again.info.run_id, again.info.status, last_step(place, again)) == (
        run.info.run_id,
        "RUNNING",
        6,
    )


def test_half_written_foreign_and_edited_files(place, template):
    """Foreign files are ignored, and an incomplete result is altered. Neither stops a sync."""
    finish(place, CHILD, steps=3)
    result = (place / CHILD.run_id / "result.json").read_text()
    (place / CHILD.run_id / "result.json").write_text(result[:200])
    (place / "another-run").mkdir()
    (place / "another-run/result.json").write_bytes(b"\xff\x00")
    write_log(place / PARENT.run_id, 3, 9)
    lines = (
        {"step": "7"},
        {"step": 1e400},
        {"step": 2**70},
        [4],
        {"step": 4, "loss": "low", "lr": None, "time": "noon"},
    )
    with (place / PARENT.run_id / "log.jsonl").open("ab") as log:
        log.write(b"\xff\xfe\n" + b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        log.write(b'{"step": 5, "loss": NaN, "time": 1e300}\n{"step": 6, "lo')
    sync(KNOWN, place)
    _, runs = mirrored(place)
    assert set(runs) == {PARENT.run_id, CHILD.run_id}
    assert (runs[CHILD.run_id].data.tags["status"], runs[CHILD.run_id].data.metrics) == (
        "altered",
        {},
    )
    assert (runs[PARENT.run_id].info.status, last_step(place, runs[PARENT.run_id])) == (
        "RUNNING",
        5,
    )
    assert is_level(place, template)
    (place / CHILD.run_id / "result.json").write_text(result)
    sync(KNOWN, place)
    assert mirrored(place)[1][CHILD.run_id].data.tags["status"] == "finished"


@pytest.mark.slow
def test_follow_mirrors_a_training_run_until_all_are_finished(place, capsys, template):
    """The registry has two runs: a parent in training, and its child, which comes later."""
    known = registry(seeds=(0,))
    known.specs = {run.run_id: run for run in (PARENT, CHILD)}
    known.tables, known.figures = {}, {}

    def work():
        for done in range(1, 6):
            write_log(place / PARENT.run_id, done, 5)
            for _ in range(600):  # until it is mirrored
                time.sleep(0.1)
                with sqlite3.connect(place.parent / "mlflow.db") as database:
                    if database.execute("SELECT max(step) FROM metrics").fetchone() == (done,):
                        break
        finish(place, PARENT, steps=5)
        finish(place, CHILD, steps=5)

    threading.Thread(target=work, daemon=True).start()
    follow(known, place, every=0.1)
    assert is_level(place, template, known)
    assert len(capsys.readouterr().out.splitlines()) > 2
    client, runs = mirrored(place)
    # View type 3 includes deleted runs: the parent kept its MLflow run while it grew.
    assert len(client.search_runs([runs[PARENT.run_id].info.experiment_id], run_view_type=3)) == 2


def test_weights_are_models_with_their_metrics_datasets_and_parents(place, template):
    """A finetuned run's metrics belong to its own model, a probe's to its parent's model.

    No weights are copied.
    """
    probe = next(spec for spec in KNOWN.specs.values() if isinstance(spec, Probe) and spec.parent)
    probed = KNOWN.specs[probe.parent]
    for spec in dict.fromkeys([PARENT, CHILD, probed, probe]):
        finish(place, spec, top1=60, steps=3)
        result = read_result(place / spec.run_id)
        if spec is not probe:
            result |= {"weights_sha256": file_digest(place / spec.run_id / "spec.json")}
        # A pretraining run writes no metrics.
        if spec is PARENT:
            result |= {"metrics": {}}
        write_result(place / spec.run_id, result)
    sync(KNOWN, place)
    client, runs = mirrored(place)

    def models():
        found = client.search_logged_models([runs[CHILD.run_id].info.experiment_id])
        return {model.name: model for model in found}

    made = models()
    assert made.keys() == {PARENT.run_id, CHILD.run_id, probed.run_id}
    model = made[CHILD.run_id]
    assert (model.status, model.source_run_id, model.model_type) == (
        "READY",
        runs[CHILD.run_id].info.run_id,
        "finetune",
    )
    assert model.tags["weights.sha256"] == read_result(place / CHILD.run_id)["weights_sha256"]
    assert model.params["optim.lr"] == json.dumps(CHILD.optim.lr)
    metric = next(metric for metric in model.metrics if metric.key == "test/top1")
    assert (metric.value, metric.dataset_digest, metric.run_id) == (
        60,
        DIGEST,
        runs[CHILD.run_id].info.run_id,
    )
    run = client.get_run(runs[CHILD.run_id].info.run_id)
    assert [one.model_id for one in run.inputs.model_inputs] == [made[PARENT.run_id].model_id]
    assert [one.dataset.digest for one in run.inputs.dataset_inputs] == [DIGEST]
    assert [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
    assert ("test/top1", runs[probe.run_id].info.run_id) in {
        (metric.key, metric.run_id) for metric in made[probed.run_id].metrics
    }
    assert is_level(place, template)

    lines = [register(place, default_uri(place), [CHILD.run_id]) for _ in range(2)]
    assert lines[0] == lines[1]
    assert [
        version.source for version in client.search_model_versions(f"name = '{CHILD.run_id}'")
    ] == [model.artifact_location]
    with pytest.raises(UserError, match=probe.run_id):
        register(place, default_uri(place), [probe.run_id])

    result = read_result(place / PARENT.run_id)
    write_result(place / PARENT.run_id, {**result, "weights_sha256": "e" * 64})
    write_result(
        place / CHILD.run_id,
        {**read_result(place / CHILD.run_id), "parents_sha256": {PARENT.run_id: "e" * 64}},
    )
    sync(KNOWN, place)
    assert models().keys() == made.keys()
    assert models()[PARENT.run_id].model_id != made[PARENT.run_id].model_id
    run = client.get_run(mirrored(place)[1][CHILD.run_id].info.run_id)
    assert [one.model_id for one in run.inputs.model_inputs] == [models()[PARENT.run_id].model_id]
    assert is_level(place, template)
    assert not list(place.parent.rglob("*.safetensors"))


@pytest.mark.slow
def test_a_dashboard_is_served_while_it_is_filled_and_ends_with_its_process(pair):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        "from tests.helpers.fake_results import registry; "
        "from mgm.report.mlflow.sync import serve; "
        "serve(registry(seeds=(0,)), Path(sys.argv[2]), int(sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(pair), str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        line = next(line for line in serving.stderr if "workflowType" in line)
        assert f"http://127.0.0.1:{port}/#/experiments/" in line
        with socket.create_connection(("127.0.0.1", port)):
            pass
        serving.terminate()
        serving.communicate(timeout=60)
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port)):
        pass


@pytest.mark.parametrize("uri", ["http://[", "postgresql://a:b", "sqlite://a:b@c:d/e"])
def test_an_ill_formed_address_is_one_line(tmp_path, uri):
    finish(tmp_path, PARENT)
    with pytest.raises(UserError, match=f"tracker {re.escape(uri)}: "):
        sync(KNOWN, tmp_path, uri)
