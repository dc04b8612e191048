"""Whole files and locks that wait."""

import errno
import os
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from mgm.errors import UserError
from mgm.files import locked, read_json, replacing, write_text

HOLD = """
import sys, time
from pathlib import Path
from mgm.files import locked
with locked(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path, seconds) -> subprocess.Popen:
    words = [sys.executable, "-c", HOLD, str(path), str(seconds)]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    write_text(tmp_path / "file", "old")

    def fail():
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_lock_is_waited_for_and_says_for_whom(tmp_path, capsys):
    holder = hold(tmp_path / "lock", 1.5)
    with locked(tmp_path / "lock", "a run"):
        assert holder.poll() is not None or holder.wait(5) == 0
    assert f"a run: waits for process {holder.pid} on" in capsys.readouterr().err


def test_a_killed_process_holds_no_lock(tmp_path):
    holder = hold(tmp_path / "lock", 60)
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with locked(tmp_path / "lock", "a run"):
        assert time.monotonic() - started < 5


def test_a_file_system_without_locks_is_one_warning(tmp_path, monkeypatch, capsys):
    def refuse(*args, **options):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with locked(tmp_path / "lock", "a run"):
        pass
    [line] = capsys.readouterr().err.splitlines()
    assert "has no locks" in line


def test_half_a_json_file_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json: is not JSON"):
        read_json(tmp_path / "x.json")
