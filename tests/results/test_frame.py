"""The plan's files, and the table of its numbers joined with the runs'."""

import pandas as pd
import pytest

from mgm.errors import UserError
from mgm.results.frame import read_frame
from mgm.results.plan import read_plan
from mgm.results.result import read_result, write_result
from mgm.spec import parents
from tests.helpers.fake_results import finish_all, run_of, suite

KNOWN = suite(seeds=(0, 1))


@pytest.fixture
def results(tmp_path):
    KNOWN.write(tmp_path)
    return tmp_path


def test_a_plan_is_read_as_it_was_written(results):
    assert read_plan(results) == KNOWN
    seen = set[str]()
    for run_id, spec in read_plan(results).specs.items():
        assert {*parents(spec)} <= seen
        seen.add(run_id)


def test_a_frame_has_a_row_per_number_with_its_run_and_its_state(results):
    finish_all(results, KNOWN)
    lost = run_of(KNOWN, "Random Tube")
    (results / lost.run_id / "result.json").unlink()
    frame = read_frame(results)
    assert len(frame) == sum(bool(cell.metric) for cell in KNOWN.cells)
    rows = frame[frame.study.eq("table4e") & frame.row.eq("Random Tube") & frame.seed.eq(0)]
    rows = rows.set_index("column")
    assert rows.state["Fine-tuned"] != "finished"
    assert pd.isna(rows.value["Fine-tuned"])
    assert rows.state["Linear probe"] == "finished"
    assert rows.value["Linear probe"] > 0
    assert rows.pretraining.nunique() == 1
    assert "table4e" in rows.views["Fine-tuned"].split()
    ratio = frame[frame.row == "MGM at ratio 0.6"].iloc[0]
    assert (ratio["ratio"], ratio.views) == (0.6, "figure4a")
    assert frame[frame.row == "No pretraining"]["ratio"].isna().all()


def test_runs_that_start_from_an_altered_run_are_altered(results):
    finish_all(results, KNOWN)
    child = run_of(KNOWN, "Random Tube")
    (results / child.parent / "result.json").write_text("{}")
    frame = read_frame(results).set_index("run_id")
    assert frame.state[child.run_id] == "altered"


def test_a_number_that_a_result_lacks_is_altered(tmp_path):
    known = suite(seeds=(0,), datasets=("ssv2", "k400"))
    known.write(results := tmp_path)
    finish_all(results, known)
    run = known.specs[next(cell.run_id for cell in known.cells if cell.metric == "saliency")]
    result = read_result(results / run.run_id)
    write_result(results / run.run_id, result | {"metrics": {"loss": 1.0}})
    frame = read_frame(results)
    row = frame[frame.run_id == run.run_id].iloc[0]
    assert row.state == "altered"
    assert "metrics.saliency" in row.why


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("cells.csv", lambda text: text.replace("Random Tube", "MGM (Dense)", 1)),
        ("cells.csv", lambda text: text[: len(text) // 2]),
        ("specs.json", lambda text: text[: len(text) // 2]),
        ("specs.json", lambda text: text.replace('"ratio":0.75', '"ratio":0.5', 1)),
        ("specs.json", lambda text: "[]"),
        ("specs.json", lambda text: text.replace('"cells": "', '"cells": "0')),
    ],
)
def test_a_plan_that_is_cut_or_edited_is_one_line(results, name, change):
    path = results / "plan" / name
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match="plan") as error:
        read_plan(results)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_plan_names_the_command_that_writes_one(tmp_path):
    with pytest.raises(UserError, match="snakemake --cores 1 report"):
        read_plan(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path / 'absent'}: no such folder"):
        read_plan(tmp_path / "absent")
