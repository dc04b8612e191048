"""Locks between two processes: one writes, the other is refused until the writer ends."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from mgm.data.prepare import prepare_copies
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.results import lock
from mgm.results.lock import folder_lock
from tests.helpers.writers import HOLD, other_writer

POOL = """
import os, time
from mgm.data.opening import in_processes
def work(_):
    print(os.getpid(), flush=True)
    time.sleep(60)
if __name__ == "__main__":
    list(in_processes(work, [0], 2))
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of tmp_path."""
    with other_writer(tmp_path) as process:
        yield process


def test_a_second_writer_is_told_who_the_first_is_and_a_dead_one_is_not_in_the_way(other, tmp_path):
    # A refused attempt does not free the lock.
    for _ in range(2):
        with (
            pytest.raises(
                UserError, match=rf"^{tmp_path}: process {other.pid} on {socket.gethostname()}"
            ) as error,
            folder_lock(tmp_path),
        ):
            pass
    assert "\n" not in str(error.value)
    other.kill()
    other.wait()
    assert json.loads((tmp_path / "writer.lock").read_text())["pid"] == other.pid
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / "writer.lock").read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"host": 3}', "[" * 999])
def test_a_lock_file_of_other_content_is_not_in_the_way(tmp_path, content):
    (tmp_path / "writer.lock").write_text(content)
    assert not lock.has_writer(tmp_path)
    with folder_lock(tmp_path):
        pass


def test_a_child_that_outlives_the_writer_does_not_hold_the_folder(tmp_path):
    code = HOLD.replace("os.write", "os.fork(); os.write")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert [process.stdout.readline() for _ in range(2)] == [b"1\n"] * 2
        process.kill()
        process.wait()
        with folder_lock(tmp_path):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_nobody_is_refused(other, tmp_path, monkeypatch, number):
    with locks_fail(monkeypatch, number), folder_lock(tmp_path):
        pass
    with locks_fail(monkeypatch, number), (tmp_path / "jobs").open("w") as file:
        lock.wait_for_lock(file.fileno(), "")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.ESTALE])
def test_a_lock_that_fails_names_its_file_and_not_a_writer(tmp_path, monkeypatch, number):
    with (
        locks_fail(monkeypatch, number),
        pytest.raises(OSError, match="lock") as error,
        folder_lock(tmp_path),
    ):
        pass
    assert (error.value.errno, error.value.filename) == (number, str(tmp_path / "writer.lock"))


@contextmanager
def locks_fail(monkeypatch, number):
    """Make every attempt to lock a file fail, as on other file systems."""

    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", fail)
        yield


@pytest.mark.parametrize(
    "write",
    [
        lambda out: generate(
            Synthetic(classes=2, train_per_class=1, test_per_class=1, size=32, frames=12), out
        ),
        lambda out: prepare_copies(lambda source: None, out, lambda *_: None),
    ],
    ids=["drawn", "transcoded"],
)
def test_what_one_process_writes_no_other_does(other, tmp_path, write):
    with pytest.raises(UserError, match=f"process {other.pid} on"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["writer.lock"]


def test_the_processes_of_a_killed_pool_end_with_it(tmp_path):
    (tmp_path / "run.py").write_text(POOL)
    process = subprocess.Popen([sys.executable, str(tmp_path / "run.py")], stdout=subprocess.PIPE)
    assert int(process.stdout.readline()) != process.pid
    process.kill()
    process.wait()
    started = time.monotonic()
    # The pipe ends when no process can write to it any more.
    assert process.stdout.read() == b""
    # The work alone would take 60 s.
    assert time.monotonic() - started < 30
    process.stdout.close()
