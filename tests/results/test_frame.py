"""Tests of the table of all runs, in memory and from the command line."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.errors import UserError
from mgm.results.frame import frame
from mgm.spec import Data, Finetune, Mask, Measure, Pretrain
from tests.helpers.fake_results import finish, suite

DATA = Data(dataset="ssv2", digest="0123456789ab")
PARENT = Pretrain(data=DATA, mask=Mask(name="tube", ratio=0.9))
CHILD = Finetune(data=DATA, parent=PARENT.run_id, seed=3)


@pytest.fixture
def results(tmp_path):
    finish(tmp_path, PARENT)
    finish(tmp_path, CHILD, top1=60)
    return tmp_path


def test_has_a_row_a_run(results):
    row = frame(results).set_index("run_id").loc[CHILD.run_id]
    expected = {
        "verb": "finetune",
        "dataset": "ssv2",
        "data": "SSv2 stand-in (generated)",
        "backbone": "vit-b",
        "mask": "tube",
        "ratio": 0.9,
        "edge": "grow",
        "guidance": "vectors",
        "epochs": 100,
        "seed": 3,
        "parent": PARENT.run_id,
        "status": "finished",
        "metrics.top1": 60.0,
        "n_test": 240,
        "digest": DATA.digest,
        "commit": "d67827d" + "0" * 33,
        "wall_s": 12.5,
        "device": "cpu",
    }
    assert {name: row[name] for name in expected} == expected
    finish(results, alone := CHILD.model_copy(update={"parent": ""}))
    assert frame(results).set_index("run_id").loc[alone.run_id, "mask"] == "none"


def test_a_run_has_the_mask_of_its_pretraining_through_the_runs_between(results):
    finish(results, grandchild := CHILD.model_copy(update={"parent": CHILD.run_id}))
    assert frame(results).set_index("run_id").loc[grandchild.run_id, "mask"] == "tube"


def test_says_the_status_of_each_run(results):
    (results / "specs").mkdir()
    waiting, failed = Measure(data=DATA, name="saliency"), CHILD.model_copy(update={"seed": 4})
    (results / "specs" / f"{waiting.run_id}.json").write_text(waiting.model_dump_json())
    (results / failed.run_id).mkdir()
    (results / failed.run_id / "spec.json").write_text(failed.model_dump_json())
    (results / failed.run_id / "error.txt").write_text("ssv2: no such dataset")
    broken = results / "pretrain-of-another-tool"
    broken.mkdir()
    (broken / "spec.json").write_text("[]")
    table = frame(results).set_index("run_id")
    assert table.status[[waiting.run_id, failed.run_id, broken.name]].tolist() == [
        "not run",
        "failed",
        "altered",
    ]
    assert table.why[failed.run_id] == "ssv2: no such dataset"
    (results / PARENT.run_id / "result.json").write_text("{}")
    # Its parent is altered, so the origin of its weights is unknown.
    assert frame(results).set_index("run_id").status[CHILD.run_id] == "altered"
    assert frame(results).n_test.isna().all()


def test_is_written_by_the_command(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    words = f"results {results.name} --results {results.parent} --csv {out}/a/runs.csv".split()
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert len(pd.read_csv(out / "a" / "runs.csv")) == len(frame(results))
    assert pd.read_csv(out / "a/runs.csv").shape == frame(results).shape
    with pytest.raises(UserError, match=f"{results / 'absent'}: "):
        frame(results / "absent")


def test_a_run_is_found_by_table_and_row(tmp_path):
    """A table, a row and a stage select a cell's runs, and none of other tables."""
    known = suite()
    for spec in known.specs.values():
        finish(tmp_path, spec)
    runs = frame(tmp_path, known)
    places = {name: runs[name].str.split(" | ", regex=False) for name in ("table", "row")}
    runs = runs.assign(**places).explode(["table", "row"])
    cells: dict[tuple[str, str], set[str]] = {}
    for value in known.values["table4e"]:
        if not (value.control or known.studies["table4e"].rows[value.row].figure_only):
            cells.setdefault((value.row, value.run.stage), set()).add(value.run.run_id)
    for (row, stage), run_ids in cells.items():
        found = runs[(runs.table == "4e") & (runs.row == row) & (runs.verb == stage)]
        assert set(found.run_id) == run_ids
    assert set(runs.table) >= {"4a", "4b", "4e", ""}  # pretrainings fill no cell
    assert set(frame(tmp_path).table) == {""}
