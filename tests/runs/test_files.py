import subprocess
import sys

from mgm.runs import files as atomic

DIES_WHILE_IT_WRITES = """
import os, sys, pathlib
from mgm.runs import files as atomic
os.replace = lambda *_: os._exit(9)
atomic.write(pathlib.Path(sys.argv[1]), "new")
"""


def test_what_a_killed_writer_leaves_is_hidden_and_goes_alone(tmp_path):
    atomic.write(tmp_path / "result.json", "old")
    (tmp_path / ".mine").touch()
    assert subprocess.run([sys.executable, "-c", DIES_WHILE_IT_WRITES, tmp_path / "result.json"], check=False).returncode == 9
    assert (tmp_path / "result.json").read_text() == "old"
    assert len(list(tmp_path.glob(".*.result.json"))) == 1
    atomic.remove_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "result.json"]
