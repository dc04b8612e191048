"""MLflow shows what is in the files, after any number of copies."""

import contextlib
import json
import multiprocessing
import os
import posixpath
import re
import shutil
import time

import pandas as pd
import pytest

from mgm.errors import UserError
from mgm.files import locked
from mgm.report import mlflow
from mgm.report.mlflow import folders, sync
from mgm.report.page import Report
from mgm.results.frame import load
from mgm.results.frozen import freeze
from mgm.results.run import LOCK
from mgm.study.expand import expand
from tests.helpers.browser import chromium
from tests.helpers.fake_results import finish, finish_all, of_paper, smoke, write_log
from tests.helpers.tracking import Server

pytestmark = pytest.mark.mlflow
SCALE = smoke((0,))
STUDIES = of_paper("table4e")
KNOWN = expand(STUDIES, SCALE)
CHILD = next(spec for spec in KNOWN.specs.values() if spec.stage == "finetune" and spec.parent)
PARENT = KNOWN.specs[CHILD.parent]


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Bytes of an MLflow database without runs. Making its tables takes seconds."""
    path = tmp_path_factory.mktemp("tracker") / "mlflow.db"
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path.read_bytes()


@pytest.fixture
def place(tmp_path, empty):
    """Return a results folder, next to an empty tracker."""
    folder = tmp_path / "results/made"
    begin(folder)
    (folder.parent / "mlflow.db").write_bytes(empty)
    return folder


def begin(folder):
    folder.mkdir(parents=True)
    freeze(folder, STUDIES, SCALE, KNOWN)


def shown(folder, uri=""):
    """Return a client, and the runs that MLflow has by run id, of the experiment's all folders."""
    from mlflow import MlflowClient

    client = MlflowClient(uri or f"sqlite:///{folder.parent}/mlflow.db")
    experiment = client.get_experiment_by_name(folder.name)
    runs = client.search_runs([experiment.experiment_id])
    return client, {run.data.tags["mgm.run"]: run for run in runs}


def counts(folder, uri=""):
    line = sync(folder, uri)
    return tuple(map(int, re.findall(r"(\d+) (?:created|updated|unchanged)", line)))


def content(folder):
    """Return what a reader sees of each run: its status, numbers and curves."""
    client, runs = shown(folder)
    return {
        run_id: (
            run.info.status,
            run.data.metrics,
            run.data.params,
            {
                key: text
                for key, text in run.data.tags.items()
                if key in ("study", "table4e: Fine-tuned", "status")
            },
            [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")],
        )
        for run_id, run in runs.items()
    }


def test_a_run_has_its_curve_and_numbers_named_by_their_column(place):
    finish(place, PARENT, steps=20)
    finish(place, CHILD, top1=0.0, steps=5)
    assert counts(place) == (2, 0, 0)
    assert counts(place) == (0, 0, 2)
    client, runs = shown(place)
    run, parent = runs[CHILD.run_id], runs[PARENT.run_id]
    assert run.info.status == "FINISHED"
    # A number of zero is a number.
    assert run.data.metrics["Fine-tuned top-1"] == 0.0
    assert run.data.params["optim.lr"] == str(CHILD.optim.lr)
    assert run.data.tags["table4e: Fine-tuned"] in STUDIES[0].rows
    assert {"study", "seed", "status", "commit"} <= run.data.tags.keys()
    assert run.info.start_time < run.info.end_time
    history = client.get_metric_history(parent.info.run_id, "train/loss")
    assert sorted(point.step for point in history) == [*range(1, 21)]


def test_a_run_that_grows_stays_the_same_run(place):
    write_log(place / PARENT.run_id, 4, 9)
    (place / PARENT.run_id / "spec.json").write_text(PARENT.model_dump_json())
    with locked(place / PARENT.run_id / LOCK, PARENT.run_id):
        sync(place)
    first = shown(place)[1][PARENT.run_id]
    assert first.info.status == "RUNNING"
    finish(place, PARENT, steps=9)
    assert counts(place) == (0, 1, 0)
    client, runs = shown(place)
    assert runs[PARENT.run_id].info.run_id == first.info.run_id
    assert runs[PARENT.run_id].info.status == "FINISHED"
    assert runs[PARENT.run_id].data.tags["why"] == ""
    history = client.get_metric_history(first.info.run_id, "train/loss")
    assert sorted(point.step for point in history) == [*range(1, 10)]


def test_a_run_that_is_begun_anew_has_its_new_curve_and_one_that_is_gone_goes(place):
    finish(place, PARENT, steps=20)
    finish(place, CHILD, steps=5)
    sync(place)
    shutil.rmtree(place / PARENT.run_id)
    shutil.rmtree(place / CHILD.run_id)
    finish(place, PARENT, steps=3)
    log = place / PARENT.run_id / "log.jsonl"
    log.write_text(log.read_text().replace('"time": 1', '"time": 2'))
    assert counts(place) == (1, 0, 0)
    client, runs = shown(place)
    [run] = runs.values()
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in history) == [1, 2, 3]


def test_an_experiment_that_is_renamed_or_deleted_is_found(place):
    finish(place, PARENT, steps=3)
    sync(place)
    client, _ = shown(place)
    [own] = client.search_experiments(filter_string="name = 'made'")
    client.rename_experiment(own.experiment_id, "mine")
    assert counts(place) == (0, 0, 1)
    client.delete_experiment(own.experiment_id)
    finish(place, CHILD, steps=3)
    assert counts(place) in [(1, 0, 1), (2, 0, 0)]
    assert client.get_experiment(own.experiment_id).lifecycle_stage == "active"


def test_a_name_that_mlflow_refuses_is_made_valid(place):
    for name in ("../x", "a/b", ".", "x" * 400, "ok"):
        cells = pd.DataFrame([{"metric": "top1", "column": name, "row": "", "control": False}])
        [_, (written, value)] = mlflow._shown({"top1": 1.0}, CHILD, cells)
        assert value == 1.0
        assert posixpath.normpath(written) == written
        assert len(written) <= 250
        assert "/" not in written


def follow(monkeypatch, place, *turns, **words):
    """Follow a folder's results, with a turn in each pause, until none is left."""
    left = iter(turns)

    def sleep(_):
        next(left, interrupt)()

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        mlflow.follow(place.parent, **words)


def test_nothing_is_copied_while_nothing_changes(place, monkeypatch):
    finish(place, PARENT, steps=3)
    copies = []
    monkeypatch.setattr(
        mlflow, "sync", lambda *words: copies.append(words) or "0 created, 0 updated"
    )
    follow(monkeypatch, place, dict, lambda: finish(place, CHILD, steps=3), dict)
    assert len(copies) == 2


def test_two_people_share_a_tracker_and_touch_only_their_own_runs(place, tmp_path):
    mine, uri = place, f"sqlite:///{place.parent}/mlflow.db"
    theirs = tmp_path / "elsewhere" / place.name
    begin(theirs)
    finish(mine, PARENT, steps=3)
    finish(theirs, PARENT, steps=3)
    assert counts(mine, uri) == counts(theirs, uri) == (1, 0, 0)
    assert counts(mine, uri) == counts(theirs, uri) == (0, 0, 1)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(place.name).experiment_id
    assert len(client.search_runs([experiment])) == 2


def test_a_copied_folder_has_runs_of_its_own_and_a_moved_one_keeps_its_runs(place, tmp_path, capfd):
    """The copy lacks a run, and the other one has another number."""
    uri = f"sqlite:///{place.parent}/mlflow.db"
    finish(place, PARENT, steps=3)
    finish(place, CHILD, top1=50.0, steps=3)
    assert counts(place, uri) == (2, 0, 0)
    copy = tmp_path / "laptop" / place.name
    shutil.copytree(place, copy)
    shutil.rmtree(copy / PARENT.run_id)
    finish(copy, CHILD, top1=40.0, steps=3)
    capfd.readouterr()
    assert counts(copy, uri) == (1, 0, 0)
    assert f"{copy}: is a copy of {place}" in capfd.readouterr().err
    assert counts(copy, uri) == (0, 0, 1)
    assert "copy" not in capfd.readouterr().err
    (tmp_path / "moved").mkdir()
    moved = place.rename(tmp_path / "moved" / place.name)
    assert counts(moved, uri) == (0, 0, 2)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(moved.name).experiment_id
    runs = client.search_runs([experiment])
    assert sorted(run.data.metrics.get(mlflow.ACCURACY, 0.0) for run in runs) == [0.0, 40.0, 50.0]


def test_a_copy_that_is_killed_anywhere_is_completed_by_the_next(place, empty, monkeypatch):
    class Killed(BaseException):
        pass

    from mlflow import MlflowClient

    def killed_after(last, patch):
        left = iter(range(last))

        def watched(call):
            def watching(*args, **kwargs):
                if next(left, None) is None:
                    raise Killed
                return call(*args, **kwargs)

            return watching

        for name in ("create_run", "log_batch", "set_terminated"):
            patch.setattr(MlflowClient, name, watched(getattr(MlflowClient, name)))

    finish(place, PARENT, steps=3)
    finish(place, CHILD, steps=3)
    sync(place)
    whole = content(place)
    for last in range(40):
        (place.parent / "mlflow.db").write_bytes(empty)
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            killed_after(last, patch)
            sync(place)
            assert last >= 6  # two runs need three calls each
            return
        sync(place)
        assert content(place) == whole, last
    raise AssertionError("a copy of two runs makes more calls than this test ends it at")


def test_a_second_copy_waits_for_the_first(place):
    finish(place, PARENT, steps=3)
    other = multiprocessing.get_context("spawn").Process(target=sync, args=(place,))
    with locked(place.parent / "mlflow.lock", "test"):
        other.start()
        time.sleep(6)
        assert other.is_alive()
    other.join(60)
    assert other.exitcode == 0
    assert counts(place) == (0, 0, 1)


def test_a_study_that_begins_later_is_followed(place, monkeypatch):
    lines = []
    monkeypatch.setattr(mlflow, "show", lines.append)
    later = place.parent / "later"

    def begins():
        begin(later)
        finish(later, PARENT, steps=3)

    follow(monkeypatch, place, begins)
    assert [folder.name for folder in folders(place.parent)] == ["later", "made"]
    assert any("later: " in line and "1 created" in line for line in lines)


def follow_addresses(place, monkeypatch):
    """Return the lines that say where runs are, and what each shows, of the folder `place`."""
    lines = []
    monkeypatch.setattr(mlflow, "show", lines.append)
    monkeypatch.setattr(mlflow, "_wait_for", lambda server: None)
    follow(monkeypatch, place, server="http://here")
    client, _ = shown(place)
    tags = client.get_experiment_by_name(place.name).tags
    views = {key: json.loads(tags[key]) for key in tags if key.startswith(mlflow.SHARED)}
    addresses = [line for line in lines if "open http://here/#/" in line]
    return addresses, {key.removeprefix(mlflow.SHARED): view for key, view in views.items()}


def test_each_folder_has_an_address_and_the_newest_is_the_last(place, monkeypatch):
    finish(place, CHILD, top1=40.0, steps=3)
    older = place.parent / "older"
    begin(older)
    os.utime(finish(older, PARENT, steps=3) / "result.json", (0, 0))
    addresses, views = follow_addresses(place, monkeypatch)
    assert [line.partition(":")[0] for line in addresses] == [str(older), str(place)]
    _, runs = shown(place)
    [run] = runs.values()
    assert f"/#/experiments/{run.info.experiment_id}/runs" in addresses[-1]
    view = views[addresses[-1].rpartition("=")[2]]
    known = {f"tags.`{key}`" for key in run.data.tags} | {
        f"metrics.`{key}`" for key in run.data.metrics
    }
    assert {*view["selectedColumns"], view["orderByKey"]} <= known


def grouped(client, experiment, view):
    """Return what MLflow's page shows of a view: the mean of each group that it averages."""
    found = client.search_runs([experiment], view["searchFilter"])
    assert view["groupBy"]["aggregateFunction"] == "average"
    [key] = (one["groupByData"] for one in view["groupBy"]["groupByKeys"])
    table = pd.DataFrame(
        [
            (run.data.tags[key], run.data.metrics["top-1 accuracy"])
            for run in found
            if "top-1 accuracy" in run.data.metrics
        ],
        columns=["row", "mean"],
    )
    return table.groupby("row")["mean"].mean().to_dict()


def test_the_groups_of_each_address_are_the_numbers_of_the_page(tmp_path, empty, monkeypatch):
    """Studies share runs under other names, and some have several datasets."""
    studies, scale = of_paper("table3", "table4", "table4e"), smoke((0, 1))
    known, folder = expand(studies, scale), tmp_path / "results/made"
    folder.mkdir(parents=True)
    freeze(folder, studies, scale, known)
    (folder.parent / "mlflow.db").write_bytes(empty)
    stages = {run_id: spec.stage for run_id, spec in known.specs.items()}
    tests = [run_id for run_id in stages if stages[run_id] in ("finetune", "probe")]
    # One is not finished.
    finish_all(folder, {run_id: known.specs[run_id] for run_id in tests[1:]}, steps=1)
    [address], views = follow_addresses(folder, monkeypatch)
    client, _ = shown(folder)
    experiment = client.get_experiment_by_name("made").experiment_id
    assert views[address.rpartition("=")[2]] == views["table3"]
    numbers = Report(load("made", folder.parent), tmp_path / "reports").numbers
    numbers = numbers[~numbers.control & numbers["mean"].notna() & (numbers.metric == "top1")]
    for study, own in numbers.groupby("study", sort=False):
        places = [of for _, of in own.groupby(["dataset", "column"], sort=False)]
        means = [dict(zip(of.row, of["mean"])) for of in places]
        keys = [key for key in views if key.rpartition("-")[0] == study]
        seen = [grouped(client, experiment, views[key]) for key in (study, *keys)]
        assert len(seen) == len(means)
        for one in means:
            assert any(one == pytest.approx(other) for other in seen), (study, one)
        first = client.search_runs([experiment], views[study]["searchFilter"])
        assert {stages[run.data.tags["mgm.run"]] for run in first} == {"finetune"}


def test_states_of_runs_that_are_not_finished(place):
    other = next(
        spec for spec in KNOWN.specs.values() if spec.stage == "pretrain" and spec != PARENT
    )
    (place / other.run_id).mkdir()
    (place / other.run_id / "spec.json").write_text(other.model_dump_json())
    (place / other.run_id / "error.txt").write_text("out of memory")
    folder = finish(place, PARENT, steps=3)
    (folder / "result.json").write_text('{"run_id": ')
    sync(place)
    states = {key: run.data.tags["status"] for key, run in shown(place)[1].items()}
    assert states == {other.run_id: "failed", PARENT.run_id: "damaged"}
    runs = {key: run.info for key, run in shown(place)[1].items()}
    assert {run.status for run in runs.values()} == {"FAILED"}
    # No run lasts longer than its log.
    assert all(0 <= run.end_time - run.start_time < 1e6 for run in runs.values())


def test_a_tracker_that_does_not_work_is_one_line_within_seconds(place):
    uri = "http://me:s3cr:et@127.0.0.1:9"
    started = time.monotonic()
    with pytest.raises(UserError, match="nothing is lost") as error:
        sync(place, uri)
    assert "s3cr" not in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 60  # MLflow itself retries for 106 s


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back(place, tmp_path, capfd):
    server = Server(tmp_path / "server", f"sqlite:///{tmp_path}/server.db")
    try:
        finish(place, PARENT, steps=5)
        assert counts(place, server.uri) == (1, 0, 0)
        # The bar of our own is all that is printed.
        printed = capfd.readouterr()
        assert printed.out == ""
        assert len(printed.err.splitlines()) == 1
        server.kill()
        with pytest.raises(UserError, match="nothing is lost"):
            sync(place, server.uri)
        server.start()
        finish(place, CHILD, steps=5)
        assert counts(place, server.uri) == (1, 0, 1)
        _, runs = shown(place, server.uri)
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
    finally:
        server.kill()


# The text of each row of MLflow's table, whose cells stand in three parts of the page.
ROWS = """() => [...document.querySelectorAll('.ag-row')].reduce((texts, row) => {
    const at = row.getAttribute('row-index');
    return {...texts, [at]: `${texts[at] ?? ''} ${row.innerText}`};
}, {})"""
# Whether it has as many rows, and as many of them are means.
READY = f"""([rows, means]) => {{
    const texts = Object.values(({ROWS})());
    return texts.length === rows && texts.filter(t => t.includes('(average)')).length === means;
}}"""


@pytest.mark.chromium
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_browser_opens_the_address_and_shows_each_rows_mean(tmp_path, monkeypatch):
    """docs/run-the-paper.md describes this view, and its one click."""
    place = tmp_path / "results/made"
    begin(place)
    two = expand(STUDIES, smoke((0, 1)))
    freeze(place, STUDIES, smoke((0, 1)), two)
    tests = [spec for spec in two.specs.values() if spec.stage == "finetune" and spec.parent]
    number_of = {spec.run_id: 30.0 + 5 * number for number, spec in enumerate(tests)}
    for spec in tests:
        finish(place, spec, top1=number_of[spec.run_id], steps=1)
    cells = two.cells[two.cells.run_id.isin([*number_of])]
    means = cells.assign(mean=cells.run_id.map(number_of)).groupby("row")["mean"].mean()
    server = Server(tmp_path / "server", f"sqlite:///{tmp_path}/results/mlflow.db")
    lines = []
    monkeypatch.setattr(mlflow, "show", lines.append)
    try:
        follow(monkeypatch, place, server=server.uri)
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(600_000)
            page.goto(lines[-1].partition("open ")[2], wait_until="commit")
            page.wait_for_function(READY, arg=[len(means), len(means)])
            shown = [*page.evaluate(ROWS).values()]
            for row, mean in means.items():
                [text] = [text for text in shown if f"Group: {row}\n" in text]
                assert f"{mean:g} (average)" in text
            page.locator(".ag-row [role=button]").first.click()
            page.wait_for_function(READY, arg=[len(means) + 2, len(means)])
    finally:
        server.kill()
