import errno
import os
import subprocess
import sys

import av
import pytest
import torch
from safetensors import SafetensorError

from mgm.errors import UserError, as_user_error
from mgm.reading import file_digest, read_json
from mgm.results import atomic
from mgm.results.atomic import atomic_write
from mgm.results.result import append_log

DIES_WHILE_IT_WRITES = """
import os, sys, pathlib
from mgm.results import atomic
os.replace = lambda *_: os._exit(9)
atomic.write(pathlib.Path(sys.argv[1]), "new")
"""


def test_what_a_killed_writer_leaves_is_hidden_and_goes_alone(tmp_path):
    atomic.write(tmp_path / "result.json", "old")
    (tmp_path / ".mine").touch()
    assert (
        subprocess.run(
            [sys.executable, "-c", DIES_WHILE_IT_WRITES, tmp_path / "result.json"], check=False
        ).returncode
        == 9
    )
    assert (tmp_path / "result.json").read_text() == "old"
    assert len(list(tmp_path.glob(".*.result.json"))) == 1
    atomic.remove_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "result.json"]


def test_a_writer_that_fails_leaves_the_old_file_alone(tmp_path):
    atomic.write(tmp_path / "a.npz", "old")

    def fail():
        with atomic_write(tmp_path / "a.npz") as temporary:
            assert temporary.suffix == ".npz"
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused_and_hangs_no_reader(tmp_path, make):
    make(tmp_path / "result.json")
    for read in (read_json, file_digest):
        with pytest.raises(UserError, match=r"result\.json: "):
            read(tmp_path / "result.json")


@pytest.mark.parametrize("text", ['{"a": 1e999}', "[" * 10**5, '{"a": NaN}', "{", "\udc80"])
def test_what_is_not_json_is_one_line(tmp_path, text):
    (tmp_path / "result.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"result\.json: "):
        read_json(tmp_path / "result.json")


def test_what_the_system_refuses_is_one_line(tmp_path):
    """A full disk is reported in one line, also if PyTorch wraps the error.

    So is a file in the place of a folder. A bug of mgm keeps its traceback.
    """
    with pytest.raises(RuntimeError) as full:
        torch.save({"a": torch.zeros(10**6)}, "/dev/full")
    for error in (full.value, OSError(errno.ENOSPC, "No space left on device", "/x/y")):
        assert "No space left on device" in str(as_user_error(error))
    (tmp_path / "file").touch()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mgm",
            "new-spec",
            "pretrain",
            "--out",
            tmp_path / "file" / "a.yaml",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert str(tmp_path / "file") in done.stderr
    assert done.stderr.count("\n") == 1
    assert as_user_error(ValueError("ours")) is None
    done = subprocess.run(
        [sys.executable, "-m", "mgm", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("mgm ")


def test_a_failed_write_names_the_file_that_was_asked_for(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match="No space") as full,
        atomic_write(tmp_path / "out.csv"),
        open("/dev/full", "w", buffering=1) as file,
    ):
        file.write("x\n")  # libraries report a full disk without a name
    with pytest.raises(OSError, match="directory") as folder, atomic_write(tmp_path) as temporary:
        temporary.write_text("x")
    assert str(as_user_error(full.value)).startswith(f"{tmp_path / 'out.csv'}: No space left")
    assert str(as_user_error(folder.value)).startswith(f"{tmp_path}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "write",
    [
        lambda: torch.save({"a": torch.zeros(10**6)}, "/dev/full"),
        # What PyAV raises. The name in it cannot be set.
        lambda: av.error.err_check(-errno.ENOSPC),
    ],
)
def test_a_full_disk_under_a_library_names_the_file_that_was_asked_for(tmp_path, write):
    atomic.write(tmp_path / "out", "old")
    with pytest.raises(OSError, match="No space") as full, atomic_write(tmp_path / "out"):
        write()
    assert full.value.filename == str(tmp_path / "out")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_a_failed_write_of_weights_is_the_systems_error_with_the_file(tmp_path, number):
    with pytest.raises(OSError, match="out") as failed, atomic_write(tmp_path / "out"):
        raise SafetensorError(f"I/O error: {os.strerror(number)} (os error {number})")
    assert (failed.value.errno, failed.value.filename) == (number, str(tmp_path / "out"))


def test_a_failed_flush_names_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: fail(errno.EINVAL))
    with pytest.raises(OSError, match="out") as failed:
        atomic.write(tmp_path / "out", "new")
    assert failed.value.filename == str(tmp_path / "out")


def fail(number):
    raise OSError(number, os.strerror(number))


def test_a_failed_append_names_its_file(tmp_path):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space") as full:
        append_log(tmp_path, {"step": 1})
    assert str(as_user_error(full.value)) == f"{tmp_path}/log.jsonl: No space left on device"
