"""`mgm pack` leaves out runs that no table uses."""

import tarfile

from typer.testing import CliRunner

from mgm.cli import app
from tests.helpers.fake_results import finish, run_of, suite


def test_an_archive_leaves_out_runs_that_no_table_uses(tmp_path):
    folder = tmp_path / "smoke"
    folder.mkdir()
    suite(seeds=(0,)).write(folder)
    used, unused = (run_of(suite(seeds=(seed,)), "MGM (Dense)") for seed in (0, 5))
    for run in (used, unused):
        finish(folder, run)
    words = ["pack", "smoke", "--results", str(tmp_path)]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    with tarfile.open(tmp_path / "smoke.tar.xz") as archive:
        names = archive.getnames()
    assert f"smoke/{used.run_id}/result.json" in names
    assert not any(unused.run_id in name for name in names)
    assert (folder / unused.run_id / "result.json").exists()
