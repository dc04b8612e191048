"""The files of a run's folder: what counts as its result, and its state."""

import json
import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest

from mgm.errors import UserError
from mgm.files import held, locked
from mgm.results.run import (
    CHECKPOINT,
    LOCK,
    WEIGHTS,
    append_log,
    claimed,
    log_lines,
    read_result,
    rewind_log,
    status,
    write_result,
)
from mgm.spec import Data, Pretrain, Probe
from tests.helpers.fake_results import finish, result_of, write_log

SPEC = Probe(data=Data(dataset="ssv2", digest="0123456789ab"))


def test_a_result_is_read_as_it_was_written(tmp_path):
    assert read_result(tmp_path / SPEC.run_id) is None
    assert status(tmp_path / SPEC.run_id).state == "not run"
    folder = finish(tmp_path, SPEC, top1=61.25)
    result = read_result(folder)
    assert result.metrics["top1"] == 61.25
    assert result.run_id == SPEC.run_id
    assert status(folder).state == "finished"
    assert [path.name for path in folder.glob(".*")] == []


def test_a_metric_that_is_not_finite_is_not_written(tmp_path):
    fields = result_of(SPEC, metrics={"top1": float("nan")})
    with pytest.raises(UserError, match="metrics.top1"):
        write_result(tmp_path / SPEC.run_id, fields)
    assert not (tmp_path / SPEC.run_id).exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace('"commit"', '"comit"'),
        lambda text: text.replace('"top1": 60.0', '"top1": "many"'),
        lambda text: text.replace('"top1": 60.0', '"top1": NaN'),
        lambda text: text.replace(SPEC.run_id, "probe-vitb-ssv2-random-00000000"),
    ],
)
def test_a_damaged_result_is_the_state_of_its_run_and_names_its_file(tmp_path, damage):
    path = finish(tmp_path, SPEC) / "result.json"
    path.write_text(damage(path.read_text()))
    found = status(path.parent)
    assert found.state == "damaged"
    assert str(path) in found.why
    assert "\n" not in found.why


def test_a_run_that_holds_its_lock_is_running_and_one_that_does_not_has_stopped(tmp_path):
    folder = tmp_path / SPEC.run_id
    with locked(folder / LOCK, "the run"):
        write_log(folder, 3, 30)
        (folder / "spec.json").write_text(SPEC.model_dump_json())
        assert (status(folder).state, status(folder).why) == ("running", "step 3 of 30")
    found = status(folder)
    assert found.state == "stopped"
    assert "step 3 of 30" in found.why
    (folder / "error.txt").write_text("no memory\n")
    assert (status(folder).state, status(folder).why) == ("failed", "no memory")
    # It is run again.
    with locked(folder / LOCK, "the run"):
        assert status(folder).state == "running"


def test_a_run_whose_weights_are_gone_is_finished_but_for_its_children(tmp_path):
    spec = Pretrain(data=SPEC.data)
    folder = finish(tmp_path, spec)
    assert [status(folder, weights).state for weights in (False, True)] == ["finished", "stopped"]
    (folder / WEIGHTS).touch()
    assert status(folder, weights=True).state == "finished"
    # A probe has none.
    assert status(finish(tmp_path, SPEC), weights=True).state == "finished"


@pytest.mark.parametrize(("done", "left"), [(True, set()), (False, {CHECKPOINT})])
def test_whoever_claims_a_run_removes_what_a_killed_process_has_left(tmp_path, done, left):
    """The checkpoint of a run that is not finished continues it."""
    folder = finish(tmp_path, SPEC)
    if not done:
        (folder / "result.json").unlink()
    before = {path.name for path in folder.iterdir()}
    for name in (CHECKPOINT, ".4242.checkpoint.pt", ".17.predictions.csv"):
        (folder / name).touch()
    with claimed(folder) as now:
        assert now.state == ("finished" if done else "running")
        assert held(folder / LOCK)
    assert {path.name for path in folder.iterdir()} == before | left | {LOCK}


def asked_by_a_reader(folder) -> str:
    """Return a run's state for a user whom permissions bind: root becomes another one."""

    def ask(results) -> None:
        if os.geteuid() == 0:
            os.setuid(65534)
        results.put(status(folder).state)

    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=ask, args=(results,))
    process.start()
    process.join(30)
    return results.get(timeout=30)


def test_a_user_who_may_only_read_sees_a_run_as_it_is_or_as_unknown():
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        folder = Path(place, SPEC.run_id)
        write_log(folder, 3, 30)
        (folder / "spec.json").write_text(SPEC.model_dump_json())
        # The owner may not write either, so that the test does not need root.
        folder.chmod(0o555)
        assert asked_by_a_reader(folder) == "stopped"
        folder.chmod(0o755)
        with locked(folder / LOCK, "the run"):
            (folder / LOCK).chmod(0o444)
            folder.chmod(0o555)
            assert asked_by_a_reader(folder) == "running"
        (folder / LOCK).chmod(0o000)
        assert asked_by_a_reader(folder) == "unknown"
        folder.chmod(0o000)
        assert asked_by_a_reader(folder) == "unknown"
        folder.chmod(0o755)


def test_a_log_leaves_out_half_lines_and_keeps_the_last_of_a_step(tmp_path):
    for step in (1, 2, 3, 2):
        append_log(tmp_path, {"step": step, "loss": float(step + 10)})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in log_lines(tmp_path)] == [1, 2, 3]
    rewind_log(tmp_path, 2)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
