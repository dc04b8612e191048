"""The files of a run's folder: what counts as its result, and its state."""

import json

import pytest

from mgm.errors import UserError
from mgm.files import locked
from mgm.results.run import (
    LOCK,
    append_log,
    log_lines,
    read_result,
    rewind_log,
    status,
    write_result,
)
from mgm.spec import Data, Probe
from tests.helpers.fake_results import finish, result_of, write_log

SPEC = Probe(data=Data(dataset="ssv2", digest="0123456789ab"))


def test_a_result_is_read_as_it_was_written(tmp_path):
    assert read_result(tmp_path / SPEC.run_id) is None
    assert status(tmp_path / SPEC.run_id, SPEC).state == "not run"
    folder = finish(tmp_path, SPEC, top1=61.25)
    result = read_result(folder)
    assert result.metrics["top1"] == 61.25
    assert result.run_id == SPEC.run_id
    assert status(folder, SPEC).state == "finished"
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
def test_a_damaged_result_is_not_run_and_names_its_file(tmp_path, damage):
    path = finish(tmp_path, SPEC) / "result.json"
    path.write_text(damage(path.read_text()))
    found = status(path.parent, SPEC)
    assert found.state == "not run"
    assert str(path) in found.why
    assert "\n" not in found.why


def test_a_run_that_holds_its_lock_is_running_and_one_that_stopped_is_not(tmp_path):
    folder = tmp_path / SPEC.run_id
    with locked(folder / LOCK, "the run"):
        write_log(folder, 3, 30)
        (folder / "spec.json").write_text(SPEC.model_dump_json())
        assert (status(folder, SPEC).state, status(folder, SPEC).why) == ("running", "step 3 of 30")
    found = status(folder, SPEC)
    assert found.state == "not run"
    assert "step 3 of 30" in found.why
    (folder / "error.txt").write_text("no memory\n")
    assert (status(folder, SPEC).state, status(folder, SPEC).why) == ("failed", "no memory")


def test_a_log_leaves_out_half_lines_and_keeps_the_last_of_a_step(tmp_path):
    for step in (1, 2, 3, 2):
        append_log(tmp_path, {"step": step, "loss": float(step + 10)})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in log_lines(tmp_path)] == [1, 2, 3]
    rewind_log(tmp_path, 2)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
