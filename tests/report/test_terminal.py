"""Tests of `mgm trace`, `mgm diff`, `mgm clean` and what `mgm pack` leaves out."""

import json
import os
import tarfile

import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.errors import UserError
from mgm.report.terminal import clean, diff, trace, unwanted
from tests.helpers.fake_results import (
    DIGEST,
    WEIGHTS_SHA256,
    finish,
    finish_all,
    registry,
    smoke,
    write_log,
)
from tests.helpers.writers import other_writer


def runs_of(known, row: str, column: str = "SSv2"):
    return known.tables["4e"].cell(row, column).runs


def test_a_cell_is_traced_to_data_commit_and_weights(tmp_path):
    known = registry()
    for run in runs_of(known, "MGM (Dense)"):
        finish(tmp_path, known.specs[run.parent])
        finish(tmp_path, run, top1=60.0)
    text = trace(known, tmp_path, "table4e/mgm (dense)/ssv2")
    assert text.startswith(
        "table4e/MGM (Dense)/SSv2: 60.0 from 3 of 3 runs, run; the paper has 67.3\n"
    )
    first = runs_of(known, "MGM (Dense)")[0]
    block = text.split("\n\n")[1].splitlines()
    assert block[0].strip() == first.run_id
    facts = {
        line.split()[0]: " ".join(line.split()[1:])
        for line in block[1 : block.index(f"  starts from {first.parent}")]
    }
    assert facts == {
        "state": "run",
        "spec": f"{first.hash} {tmp_path / first.run_id / 'spec.json'}",
        "top1": "60",
        "seed": "0",
        "commit": "d67827d" + "0" * 33,
        "data": f"ssv2 {DIGEST}",
        "weights": WEIGHTS_SHA256 + ", file missing",
        "log": str(tmp_path / first.run_id / "log.jsonl"),
    }
    assert all(run.run_id in text and run.parent in text for run in runs_of(known, "MGM (Dense)"))


def test_names_in_part_and_in_full(tmp_path):
    known = registry()

    def told(wanted):
        return [
            line.split(":")[0]
            for line in trace(known, tmp_path, wanted).splitlines()
            if line.startswith(("table", "figure"))
        ]

    both = ["SSv2", "SSv2, linear probe"]
    assert told("table4e/mgm") == [f"table4e/MGM (Dense)/{column}" for column in both]
    # This is not a mask's name, so it matches part of the rows' names.
    assert told("table4e/mgm (") == [
        f"table4e/{row}/{column}" for row in ("MGM (Sparse)", "MGM (Dense)") for column in both
    ]
    assert told("table4e/MGM (Dense)") == [f"table4e/MGM (Dense)/{column}" for column in both]
    # A full name selects one column, although it is part of the other's name.
    assert told("table4e/mgm (dense)/SSv2") == ["table4e/MGM (Dense)/SSv2"]
    assert told("table4e/mgm (dense)/probe") == ["table4e/MGM (Dense)/SSv2, linear probe"]
    assert told("figure4a/0.9") == ["figure4a/0.9/SSv2"]
    assert told("figure5") == ["figure5"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("table9/mgm", "table9: "),
        ("table4e/foo", "table4e: .*'foo'.*MGM"),
        ("table4e/mgm/k400", "table4e: .*'k400'.*SSv2"),
        ("table4e", r"table4e: .* \d+ cells"),
    ],
)
def test_nothing_or_too_much(tmp_path, wanted, message):
    with pytest.raises(UserError, match=message):
        trace(registry(), tmp_path, wanted)


def test_two_runs_differ_in_these_fields(tmp_path):
    known, results = registry(), tmp_path / "smoke"
    mgm, tube = (
        known.specs[runs_of(known, row)[0].parent] for row in ("MGM (Dense)", "Random Tube")
    )
    for spec in (mgm, tube):
        finish(results, spec)
    text = diff(tmp_path, mgm.run_id, str(results / tube.run_id))
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}
    assert text.splitlines()[0].split() == [mgm.run_id, tube.run_id]
    assert lines == {
        "state": ["run", "run"],
        "mask.name": ["mgm", "tube"],
        "mask.ratio": ["0.75", "0.9"],
        "mask.cells": ["max", "centre"],
        "metrics.loss": ["0.5", "0.5"],
    }


def test_no_such_run_and_two_of_it(tmp_path):
    known = registry()
    run = runs_of(known, "MGM (Dense)")[0]
    with pytest.raises(UserError, match="nothing-1: "):
        diff(tmp_path, "nothing-1", "nothing-2")
    for name in ("a", "b"):
        finish(tmp_path / name, run)
    with pytest.raises(UserError, match=f"{run.run_id}: "):
        diff(tmp_path, run.run_id, run.run_id)


def everything(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_clean_deletes_what_nothing_wants_and_nothing_else(tmp_path):
    known = registry(seeds=(0,))
    finish_all(tmp_path, known, steps=2)
    (tmp_path / "scale.json").write_text("{}")
    mine = tmp_path / "notes"
    mine.mkdir()
    (mine / "spec.json").write_text(json.dumps({"verb": "my own"}))
    renamed = tmp_path / "keep-this"
    old = runs_of(registry(seeds=(5,)), "MGM (Dense)")[0]
    # Somebody renamed this run.
    finish(renamed.parent, old).rename(renamed)
    elsewhere = tmp_path / "elsewhere"
    finish(elsewhere, old)
    kept = everything(tmp_path)
    finish(tmp_path, old)
    link = tmp_path / runs_of(registry(seeds=(6,)), "MGM (Dense)")[0].run_id
    link.symlink_to(elsewhere / old.run_id)
    kept.add(link.name)
    live = runs_of(registry(seeds=(7,)), "MGM (Dense)")[0]
    write_log(tmp_path / live.run_id, 3, 30)
    (tmp_path / live.run_id / "spec.json").write_text(live.model_dump_json())
    kept |= {f"{live.run_id}{rest}" for rest in ("", "/log.jsonl", "/spec.json")}
    silent = runs_of(registry(seeds=(8,)), "MGM (Dense)")[0]
    write_log(tmp_path / silent.run_id, 3, 30)
    (tmp_path / silent.run_id / "spec.json").write_text(silent.model_dump_json())
    kept |= {f"{silent.run_id}{rest}" for rest in ("", "/log.jsonl", "/spec.json")}

    with other_writer(tmp_path / silent.run_id):
        for path in (tmp_path / silent.run_id / "log.jsonl", tmp_path / silent.run_id):
            os.utime(path, (0, 0))
        assert unwanted(known, tmp_path) == {
            tmp_path / old.run_id: False,
            tmp_path / live.run_id: True,
            tmp_path / silent.run_id: True,
        }
        before = everything(tmp_path)
        text = clean(known, tmp_path, delete=False)
        assert f"{tmp_path / live.run_id}  (running: kept)" in text
        assert text.endswith("MB; add --yes to delete them")
        assert everything(tmp_path) == before
        assert "deleted 1 run that" in clean(known, tmp_path, delete=True)
        assert everything(tmp_path) == kept | {f"{silent.run_id}/writer.lock"}


def test_clean_on_the_command_line_takes_names_of_results_alone(tmp_path):
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "scale.json").write_text(smoke(seeds=(0,)).model_dump_json())
    old = runs_of(registry(seeds=(5,)), "MGM (Dense)")[0]
    for name in ("smoke", "other"):
        finish(tmp_path / name, old)

    def call(*words):
        return (
            CliRunner()
            .invoke(app, ["clean", *words, "--results", str(tmp_path)], catch_exceptions=False)
            .output
        )

    with pytest.raises(UserError, match=r"scale\.json: "):
        call("other", "--yes")
    for name in ("smoke/..", ".."):
        with pytest.raises(UserError, match=f"^{name}: "):
            call(name, "--yes")
    assert old.run_id in call("smoke")
    assert "deleted 1 run that" in call("smoke", "--yes")
    assert [(tmp_path / name / old.run_id).exists() for name in ("smoke", "other")] == [False, True]


def test_an_archive_leaves_out_runs_that_no_table_uses(tmp_path):
    folder = tmp_path / "smoke"
    folder.mkdir()
    (folder / "scale.json").write_text(smoke(seeds=(0,)).model_dump_json())
    used, unused = (runs_of(registry(seeds=(seed,)), "MGM (Dense)")[0] for seed in (0, 5))
    for run in (used, unused):
        finish(folder, run)
    told = CliRunner().invoke(
        app, ["pack", "smoke", "--results", str(tmp_path)], catch_exceptions=False
    )
    assert "left out 1 run" in told.output
    with tarfile.open(tmp_path / "smoke.tar.xz") as archive:
        names = archive.getnames()
    assert f"smoke/{used.run_id}/result.json" in names
    assert not any(unused.run_id in name for name in names)
    assert (folder / unused.run_id / "result.json").exists()
