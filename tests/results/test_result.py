"""A result is accepted only if it is unchanged and belongs to the requested run."""

import json
import os
import time

import pytest

from mgm.errors import UserError
from mgm.reading import file_digest
from mgm.results.result import QUIET_S, examine, log_lines, read_result, rewind_log, write_result
from mgm.spec import Probe, Spec, parse
from tests.helpers.fake_results import finish, suite, write_log


@pytest.fixture(scope="module")
def spec() -> Spec:
    return next(spec for spec in suite().specs.values() if isinstance(spec, Probe) and spec.parent)


def paths_of(fields, prefix=()):
    """Yield the path of every leaf of nested dictionaries."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from paths_of(value, (*prefix, name))
        else:
            yield (*prefix, name)


def spoilt(good: str, path) -> dict:
    """Return a result's fields with another value at `path`."""
    fields = place = json.loads(good)
    *groups, last = path
    for group in groups:
        place = place[group]
    match place[last]:
        case bool(value):
            place[last] = not value
        case int(value) | float(value):
            place[last] = value + 1
        case list(value):
            place[last] = [*value, 1]
        case value:
            place[last] = f"{value}x"
    return fields


def test_no_changed_science_is_believed(tmp_path, spec):
    """A result with one changed field is altered, even if our own code sealed it again.

    The fields are the spec and those that identify the run, its parents, data and files.
    """
    folder = finish(tmp_path, spec)
    good = (folder / "result.json").read_text()
    fields = json.loads(good)
    science = [("spec", *path) for path in paths_of(fields["spec"])]
    science += [
        ("seed",),
        ("parents",),
        ("verb",),
        ("run_id",),
        ("data", "dataset"),
        ("data", "digest"),
        ("files", "predictions.csv"),
    ]
    assert len(science) > 25
    for path in science:
        write_result(folder, spoilt(good, path))
        found = examine(folder, spec)
        assert found.state == "altered", path
        assert found.result is None
        assert found.why


def test_every_field_is_sealed(tmp_path, spec):
    folder = finish(tmp_path, spec)
    good = (folder / "result.json").read_text()
    for path in paths_of(json.loads(good)):
        (folder / "result.json").write_text(json.dumps(spoilt(good, path)))
        assert examine(folder, spec).state == "altered", path
    for name in (fields := json.loads(good)):
        (folder / "result.json").write_text(
            json.dumps({key: value for key, value in fields.items() if key != name})
        )
        assert examine(folder, spec).state == "altered", name


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"seal": 1}', '{"metrics": NaN}'])
def test_garbage_is_altered(tmp_path, spec, text):
    folder = finish(tmp_path, spec)
    (folder / "result.json").write_text(text)
    assert examine(folder, spec).state == "altered"
    with pytest.raises(UserError, match=r"result\.json: "):
        read_result(folder)


def test_edited_or_missing_predictions_and_an_edited_spec_are_altered(tmp_path, spec):
    folder = finish(tmp_path, spec)
    written = (folder / "predictions.csv").read_text()
    (folder / "predictions.csv").write_text("path,label,prediction\na,1,1\n")
    assert "predictions.csv" in examine(folder, spec).why
    (folder / "predictions.csv").unlink()
    assert "predictions.csv" in examine(folder, spec).why
    (folder / "predictions.csv").write_text(written)
    write_result(folder, fields := read_result(folder) | {"files": {}})
    assert "predictions.csv" in examine(folder, spec).why
    write_result(
        folder, fields | {"files": {"predictions.csv": file_digest(folder / "predictions.csv")}}
    )
    assert examine(folder, spec).state == "finished"
    (folder / "spec.json").write_text(
        parse({**spec.model_dump(mode="json"), "seed": 99}, "test").model_dump_json()
    )
    assert examine(folder, spec).state == "altered"


def test_running_failed_and_stopped(tmp_path, spec):
    folder = tmp_path / spec.run_id
    write_log(folder, 12, 30)
    assert examine(folder, spec).state == "running"
    assert "step 12 of 30" in examine(folder, spec).why
    old = time.time() - QUIET_S - 1
    os.utime(folder / "log.jsonl", (old, old))
    os.utime(folder, (old, old))
    assert examine(folder, spec).state == "not run"
    assert "stopped, step 12 of 30" in examine(folder, spec).why
    (folder / "error.txt").write_text("video a.mp4: truncated;\nremove it\n")
    assert (examine(folder, spec).state, examine(folder, spec).why) == (
        "failed",
        "video a.mp4: truncated; remove it",
    )


def test_a_run_without_a_log_is_running_by_its_spec(tmp_path, spec):
    (tmp_path / spec.run_id).mkdir()
    assert examine(tmp_path / spec.run_id, spec).state == "not run"
    (tmp_path / spec.run_id / "spec.json").write_text(spec.model_dump_json())
    assert examine(tmp_path / spec.run_id, spec).state == "running"


def test_a_log_that_was_cut_short_resumed_or_is_not_utf8_reads_clean(tmp_path):
    """Only readable lines count, and only the last line of a step.

    A run that continues deletes the other lines.
    """
    write_log(tmp_path, 3, 30)
    log = tmp_path / "log.jsonl"
    strange = b'\xff\n[]\n{"step": "x"}\n{"step": 2, "loss": 7}\n{"step": 4, "lo\xc3\n'
    log.write_bytes(b'\xff\xfe{"step": 9}\n' + log.read_bytes() + strange)
    assert [(line["step"], line["loss"] == 7) for line in log_lines(tmp_path)] == [
        (1, False),
        (2, True),
        (3, False),
    ]
    rewind_log(tmp_path, 2)
    assert [json.loads(line)["step"] for line in log.read_text(encoding="utf-8").splitlines()] == [
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("metrics", "top1"), 61.0, "top1 is 61.0, and by predictions.csv it is 60"),
        (("metrics", "top1"), True, "metrics.top1"),
        (("metrics", "top1"), 101, "metrics.top1"),
        (("metrics", "outside"), 3.0, "outside is 3.0, and by predictions.csv it is 0"),
        (("metrics", "loss"), False, "metrics.loss"),
        (("n_test",), 10**6, "n_test is 1000000, and the test split has 240 videos"),
        (("n_test",), True, "n_test"),
        (("data", "test"), 10**6, "n_test is 240, and the test split has 1000000 videos"),
        (("data", "train"), -1, "data.train"),
        (("wall_s",), -1.0, "wall_s"),
        (("wall_s",), 1e12, "wall_s"),
        (("threads",), 0, "threads"),
        (("finished",), "2025-01-01T10:00:00+00:00", "before it started"),
    ],
)
def test_a_sealed_number_that_cannot_be_is_not_believed(tmp_path, spec, place, value, why):
    folder = finish(tmp_path, spec)
    fields = read_result(folder)
    *groups, last = place
    inner = fields
    for group in groups:
        inner = inner[group]
    inner[last] = value
    write_result(folder, fields)
    found = examine(folder, spec)
    assert (found.state, found.result) == ("altered", None)
    assert why in found.why


def test_predictions_that_were_cut_and_sealed_are_not_believed(tmp_path, spec):
    folder = finish(tmp_path, spec)
    path = folder / "predictions.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-40]))
    fields = read_result(folder)
    fields["files"]["predictions.csv"] = file_digest(path)
    write_result(folder, fields)
    assert (
        "predictions.csv has 200 rows, and should have 240 of equal length"
        in examine(folder, spec).why
    )
