"""Whole files and locks that wait."""

import errno
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from filelock import FileLock

from mgm.drawn.sets import encode
from mgm.errors import UserError
from mgm.files import locked, read_json, replacing, write_text
from mgm.results.run import append_log
from tests.helpers.disk import full_disk

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


def test_json_of_other_editors_is_read_and_a_field_that_is_there_twice_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes('\ufeff{"a": {"b": [1]}, "b": 2}'.encode())
    assert read_json(path) == {"a": {"b": [1]}, "b": 2}
    path.write_text('[{"a": {"lr": 1, "steps": 2, "lr": 1}}]')
    with pytest.raises(UserError, match=f"{path}: has lr twice"):
        read_json(path)


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


def test_equal_process_numbers_on_two_hosts_share_no_hidden_name(tmp_path, monkeypatch):
    """Each replaces the file of a shared disk as a whole."""
    with replacing(tmp_path / "file") as one:
        one.write_text("one")
        monkeypatch.setattr("socket.gethostname", lambda: "other")
        write_text(tmp_path / "file", "two")
        assert (tmp_path / "file").read_text() == "two"
    assert (tmp_path / "file").read_text() == "one"
    assert os.listdir(tmp_path) == ["file"]


def frames(path):
    noise = np.random.default_rng(0).integers(0, 256, (9, 96, 64), np.uint8)
    encode(noise, 25, path, "yuv420p")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text(9999 * "x"),
        lambda path: np.savez(path.open("wb"), x=np.zeros(9999)),
        frames,
    ],
    ids=["text", "npz", "mp4"],
)
def test_an_error_of_the_disk_names_the_file(tmp_path, write):
    def replaced(path):
        with replacing(path) as temporary:
            write(temporary)

    with full_disk(), pytest.raises(OSError, match=r"File too large: '.*/x\.mp4'"):
        replaced(tmp_path / "x.mp4")
    assert os.listdir(tmp_path) == []


def test_an_error_of_the_disk_names_a_log(tmp_path):
    with full_disk(), pytest.raises(OSError, match=r"File too large: '.*/log\.jsonl'"):
        append_log(tmp_path, {"step": 9999 * "x"})


def test_an_error_of_the_disk_names_a_lock(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: 9999 * "x")
    wrong = pytest.raises(OSError, match=r"File too large: '.*/lock'")
    with full_disk(), wrong, locked(tmp_path / "lock", "a run"):
        pass


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
