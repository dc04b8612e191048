"""MLflow shows what is in the files, after any number of syncs."""

import contextlib
import json
import os
import re
import socket
import time

import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.dag.workflow import Workflow
from mgm.errors import UserError
from mgm.report.mlflow import _names, default_uri, sync
from mgm.results.frame import examine_all, frame_of
from mgm.results.result import read_result, write_result
from tests.helpers.fake_results import finish, run_of, suite, write_log
from tests.helpers.mirrored import content
from tests.helpers.services import require
from tests.helpers.tracking import Postgres, Server

pytestmark = pytest.mark.mlflow
KNOWN = suite(seeds=(0,))
CHILD = run_of(KNOWN, "MGM (Dense)")
PARENT = KNOWN.specs[CHILD.parent]


class Killed(BaseException):
    pass


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
    place = tmp_path / "results/smoke"
    place.mkdir(parents=True)
    KNOWN.write(place)
    (place.parent / "mlflow.db").write_bytes(template)
    return place


def runs_of(place):
    from mlflow import MlflowClient

    client = MlflowClient(default_uri(place))
    experiment = client.get_experiment_by_name("smoke")
    return client, {
        run.data.tags["mgm.run"]: run for run in client.search_runs([experiment.experiment_id])
    }


def counts(place, uri=""):
    return tuple(map(int, re.findall(r"(\d+) (?:created|updated|unchanged)", sync(place, uri))))


def is_level(place, template):
    """Return whether MLflow has what a sync to an empty database writes."""
    fresh = place.parent / "fresh.db"
    fresh.write_bytes(template)
    sync(place, f"sqlite:///{fresh}")
    return content(place, default_uri(place)) == content(place, f"sqlite:///{fresh}")


def test_a_run_its_parent_its_curve_and_its_cell(place):
    finish(place, PARENT, steps=20)
    finish(place, CHILD, top1=60, steps=5)
    assert counts(place) == (2, 0, 0)
    client, runs = runs_of(place)
    run, parent = runs[CHILD.run_id], runs[PARENT.run_id]
    assert run.info.status == "FINISHED"
    # One of the rows that the run belongs to.
    assert re.fullmatch(r"MGM \(.+\) / seed 0 / Fine-tuned", run.info.run_name)
    assert len({one.info.run_name for one in runs.values()}) == len(runs)
    assert run.data.metrics["test/top1"] == pytest.approx(60)
    assert run.data.params["optim.lr"] == json.dumps(CHILD.optim.lr)
    assert run.data.params["start.mask"] == "mgm"
    tags = run.data.tags
    assert (tags["stage"], tags["dirty"]) == ("finetune", "False")
    assert tags["commit"] == read_result(place / CHILD.run_id)["commit"]
    assert tags["mlflow.parentRunId"] == parent.info.run_id
    history = client.get_metric_history(parent.info.run_id, "train/loss")
    assert sorted(point.step for point in history) == list(range(1, 21))
    for query, found in {
        "tags.cells LIKE '%MGM (Dense) / Fine-tuned%'": {PARENT.run_id, CHILD.run_id},
        "tags.stage = 'finetune' AND tags.status = 'finished'": {CHILD.run_id},
        "tags.cells LIKE '%Random%'": set(),
    }.items():
        shown = client.search_runs([run.info.experiment_id], query)
        assert {one.data.tags["mgm.run"] for one in shown} == found


def test_every_run_of_a_suite_has_a_name_of_its_own(tmp_path):
    plan = Workflow({"scale": "smoke"}, results=tmp_path).plan
    names = _names(frame_of(plan, examine_all(tmp_path, plan.specs)), plan)
    assert names.keys() == plan.specs.keys()
    assert len({*names.values()}) == len(names)


def test_without_a_name_every_result_is_an_experiment(place):
    from mlflow import MlflowClient

    for name in ("smoke", "mine"):
        (place.parent / name).mkdir(exist_ok=True)
        KNOWN.write(place.parent / name)
        finish(place.parent / name, PARENT, steps=2)
    done = CliRunner().invoke(app, ["sync"])
    assert done.exit_code == 0, done.output
    found = MlflowClient(default_uri(place)).search_experiments()
    assert {one.name for one in found} >= {"smoke", "mine"}


def test_a_question_mark_in_a_path_makes_no_database_elsewhere(place, tmp_path):
    moved = tmp_path / "a?b" / "smoke"
    place.parent.rename(moved.parent)
    with pytest.raises(UserError, match="--uri"):
        sync(moved)
    assert list(tmp_path.iterdir()) == [moved.parent]
    assert counts(moved, f"sqlite:///{tmp_path}/own.db?timeout=9") == (0, 0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a?b", "own.db"]


def test_a_changed_run_is_written_again_with_its_children(place, template):
    finish(place, PARENT, steps=5)
    finish(place, CHILD, top1=60, steps=5)
    sync(place)
    before = (place.parent / "mlflow.db").read_bytes()
    for file in (place / CHILD.run_id).iterdir():
        os.utime(file, (1e9, 1e9))
    assert counts(place) == (0, 0, 2)
    assert (place.parent / "mlflow.db").read_bytes() == before
    finish(place, CHILD, top1=70, steps=5)
    assert counts(place) == (0, 1, 1)
    finish(place, PARENT, steps=6)
    assert counts(place) == (0, 2, 0)
    client, runs = runs_of(place)
    assert runs[CHILD.run_id].data.tags["mlflow.parentRunId"] == runs[PARENT.run_id].info.run_id
    assert runs[CHILD.run_id].data.metrics["test/top1"] == pytest.approx(70)
    # A run that is deleted in MLflow is created again.
    client.delete_run(runs[CHILD.run_id].info.run_id)
    assert counts(place) == (1, 0, 1)
    assert is_level(place, template)


def test_states_of_runs_that_are_not_finished(place, template):
    write_log(place / PARENT.run_id, 4, 9)
    sync(place)
    run = runs_of(place)[1][PARENT.run_id]
    assert (run.info.status, run.data.metrics["train/loss"]) == ("RUNNING", 0.4 + 1.5 / 2)
    for path in (place / PARENT.run_id / "log.jsonl", place / PARENT.run_id):
        os.utime(path, (1e9, 1e9))
    sync(place)
    run = runs_of(place)[1][PARENT.run_id]
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "stopped")
    pretrained = [spec for spec in KNOWN.specs.values() if spec.stage == "pretrain"]
    other = next(spec for spec in pretrained if spec is not PARENT)
    finish(place, PARENT)
    finish(place, CHILD)
    write_result(place / PARENT.run_id, {**read_result(place / PARENT.run_id), "seed": 5})
    (place / other.run_id).mkdir()
    (place / other.run_id / "error.txt").write_text("out of memory")
    sync(place)
    shown = {
        run_id: (run.info.status, run.data.tags["status"], run.data.metrics)
        for run_id, run in runs_of(place)[1].items()
    }
    assert shown[PARENT.run_id] == shown[CHILD.run_id] == ("FAILED", "altered", {})
    assert shown[other.run_id][:2] == ("FAILED", "failed")
    assert is_level(place, template)


def test_half_written_and_foreign_files(place, template):
    (place / "another-run").mkdir()
    (place / "another-run/result.json").write_bytes(b"\xff\x00")
    write_log(place / PARENT.run_id, 3, 9)
    lines = ({"step": "7"}, {"step": 1e400}, [4], {"step": 4, "loss": "low", "time": "noon"})
    with (place / PARENT.run_id / "log.jsonl").open("ab") as log:
        log.write(b"\xff\xfe\n" + b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        log.write(b'{"step": 5, "loss": NaN, "time": 1e300}\n{"step": 6, "lo')
    sync(place)
    client, runs = runs_of(place)
    history = client.get_metric_history(runs[PARENT.run_id].info.run_id, "train/loss")
    assert (set(runs), max(point.step for point in history)) == ({PARENT.run_id}, 5)
    assert is_level(place, template)


@pytest.mark.parametrize("size", [60, 100_000])
def test_a_torn_database_is_one_line_within_seconds(place, size):
    path = place.parent / "mlflow.db"
    path.write_bytes(path.read_bytes()[:size])
    started = time.monotonic()
    with pytest.raises(UserError, match=f"tracker {default_uri(place)}: "):
        sync(place)
    assert time.monotonic() - started < 40  # MLflow itself retries for 106 s


@pytest.mark.parametrize("uri", ["http://[", "postgresql://a:b", "sqlite://a:b@c:d/e"])
def test_an_ill_formed_address_is_one_line(place, uri):
    with pytest.raises(UserError, match=f"tracker {re.escape(uri.replace('b@', '***@'))}: "):
        sync(place, uri)


def test_a_database_that_does_not_answer_is_one_line_without_its_password(place):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"postgresql://me:s3cr:et@127.0.0.1:{unused.getsockname()[1]}/db"
        started = time.monotonic()
        with pytest.raises(UserError, match=r"tracker postgresql://me:\*\*\*@127") as error:
            sync(place, uri)
    assert "s3cr" not in str(error.value)
    assert time.monotonic() - started < 30  # MLflow itself retries for 111 s


def test_a_first_sync_that_is_killed_while_tables_are_made_stops_no_later_one(place, monkeypatch):
    from mlflow import MlflowClient

    database = place.parent / "mlflow.db"
    database.unlink()
    finish(place, PARENT)
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(
            MlflowClient, "search_experiments", lambda self: (_ for _ in ()).throw(Killed)
        )
        sync(place)
    assert not database.exists()
    assert counts(place) == (1, 0, 0)


def test_a_run_that_grew_gets_its_new_lines_and_stays_the_same_run(place, template):
    write_log(place / PARENT.run_id, 4, 9)
    sync(place)
    first = runs_of(place)[1][PARENT.run_id].info.run_id
    write_log(place / PARENT.run_id, 7, 9)
    assert counts(place) == (0, 1, 0)
    finish(place, PARENT, steps=9)
    assert counts(place) == (0, 1, 0)
    client, runs = runs_of(place)
    run = runs[PARENT.run_id]
    assert (run.info.run_id, run.info.status) == (first, "FINISHED")
    history = client.get_metric_history(first, "train/loss")
    assert sorted(point.step for point in history) == list(range(1, 10))
    assert is_level(place, template)


def killed_after(last: int, patch) -> None:
    """Let `last` calls to the tracker through, and raise Killed at the next.

    A sync does not clean up, so this has the same effect as SIGKILL.
    """
    from mlflow import MlflowClient

    left = iter(range(last))

    def watched(call):
        def watching(*args, **kwargs):
            if next(left, None) is None:
                raise Killed
            return call(*args, **kwargs)

        return watching

    for name in ("create_run", "log_batch", "set_terminated", "set_tag", "delete_run"):
        patch.setattr(MlflowClient, name, watched(getattr(MlflowClient, name)))


@pytest.mark.slow
def test_a_sync_that_is_killed_anywhere_is_made_level_by_the_next(place, monkeypatch, template):
    write_log(place / PARENT.run_id, 4, 9)
    sync(place)
    write_log(place / PARENT.run_id, 7, 9)
    finish(place, CHILD, steps=3)
    before = (place.parent / "mlflow.db").read_bytes()
    for last in range(40):
        (place.parent / "mlflow.db").write_bytes(before)
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            killed_after(last, patch)
            sync(place)
            assert last >= 8  # two runs need at least 8 calls
            return
        sync(place)
        assert is_level(place, template), last
        assert counts(place) == (0, 0, 2)
    raise AssertionError("a sync of two runs makes more calls than this test ends it at")


@pytest.mark.slow
@pytest.mark.postgres
def test_a_server_on_postgresql_that_is_killed_and_comes_back(place, tmp_path, template):
    require("postgres")
    cluster = Postgres()
    server = Server(tmp_path / "server", cluster.uri)
    try:
        finish(place, PARENT, steps=5)
        finish(place, CHILD, steps=5)
        assert counts(place, server.uri) == (2, 0, 0)
        server.kill()
        with pytest.raises(UserError, match="nothing is lost"):
            sync(place, server.uri)
        cluster.stop()
        cluster.start()
        server.start()
        finish(place, CHILD, top1=70, steps=5)
        assert counts(place, server.uri) == (0, 1, 1)
        sync(place)
        assert content(place, server.uri) == content(place, default_uri(place))
    finally:
        server.kill()
        cluster.stop()
        cluster.temporary.cleanup()
