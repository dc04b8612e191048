"""Tests of runs that no table uses: `mgm verify` names them and `mgm pack` leaves them out."""

import json
import tarfile

from typer.testing import CliRunner

from mgm.cli import app
from mgm.report.verify import unwanted
from tests.helpers.fake_results import finish, finish_all, run_of, suite


def test_a_finished_run_under_its_own_id_is_unwanted_and_nothing_else(tmp_path):
    known = suite(seeds=(0,))
    finish_all(tmp_path, known, steps=2)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "spec.json").write_text(json.dumps({"verb": "my own"}))
    old = run_of(suite(seeds=(5,)), "MGM (Dense)")
    # Somebody renamed this run.
    finish(tmp_path, old).rename(tmp_path / "keep-this")
    assert unwanted(known, tmp_path) == []
    finish(tmp_path, old)
    link = run_of(suite(seeds=(6,)), "MGM (Dense)")
    finish(tmp_path / "elsewhere", link)
    (tmp_path / link.run_id).symlink_to(tmp_path / "elsewhere" / link.run_id)
    assert unwanted(known, tmp_path) == [tmp_path / old.run_id]


def test_an_archive_leaves_out_runs_that_no_table_uses(tmp_path):
    folder = tmp_path / "smoke"
    folder.mkdir()
    suite(seeds=(0,)).write(folder)
    used, unused = (run_of(suite(seeds=(seed,)), "MGM (Dense)") for seed in (0, 5))
    for run in (used, unused):
        finish(folder, run)
    told = CliRunner().invoke(
        app, ["pack", "smoke", "--results", str(tmp_path)], catch_exceptions=False
    )
    assert "left out 1 new run" in told.output
    with tarfile.open(tmp_path / "smoke.tar.xz") as archive:
        names = archive.getnames()
    assert f"smoke/{used.run_id}/result.json" in names
    assert not any(unused.run_id in name for name in names)
    assert (folder / unused.run_id / "result.json").exists()
