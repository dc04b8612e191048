"""One process writes a folder. Another that is asked to says who does, and stops.

The living writer holds a POSIX lock on FOLDER/writer.lock. The kernel drops it with the process,
however it ends, so on one host, and over NFS or Lustre where they carry locks, a dead writer is
never in the way. Children do not inherit it.

Where locks stay on their host (NFS mounted `nolock`) or are not to be had (Lustre mounted without
`flock`), the file itself tells: it holds the writer's host and process, and the writer touches it
every HEARTBEAT_S. Whoever then finds a writer that it cannot judge, one of another host, watches
the file for STALE_S (NFS keeps a file's times for up to 60 s): touched meanwhile it is alive, else
dead. No clocks are compared. What this cannot see, without locks: two that start within the same
moment, and a writer that was frozen for longer than STALE_S.
"""

import errno
import fcntl
import json
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mgm.console import show
from mgm.errors import UserError
from mgm.results.files import naming

HEARTBEAT_S, STALE_S = 10.0, 90.0
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Be the one process that writes `folder`, until the block ends.

    Raises:
        UserError: another process writes it, or it cannot be written at all.
    """
    path, host = folder / "writer.lock", socket.gethostname()
    descriptor, locked = _open(path)
    try:
        before = _read(descriptor)
        if before and (before["host"] != host or not locked) and _is_alive(path, before):
            raise UserError(_refusal(folder, before))
        with naming(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"host": host, "pid": os.getpid()}).encode(), 0)
        ended = threading.Event()
        threading.Thread(target=_heartbeat, args=(path, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            path.unlink(
                missing_ok=True
            )  # while locked: whoever opened it meanwhile sees that it is gone
    finally:
        os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    """The lock's file, open and locked; False: there are no locks here."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); make the folder writable, or choose another"
            ) from None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError as error:
            if error.errno not in NO_LOCKS:
                writer = _read(descriptor)
                os.close(descriptor)
                raise UserError(
                    _refusal(path.parent, writer or {"host": "a host", "pid": "?"})
                ) from None
            locked = False
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor, locked
        os.close(descriptor)  # its writer ended and removed it just now


def _read(descriptor: int) -> dict[str, Any] | None:
    """Host and pid of the writer; None if it ended, or was killed before it wrote them."""
    with suppress(ValueError):
        return json.loads(os.pread(descriptor, 1000, 0))
    return None


def _refusal(folder: Path, writer: dict[str, Any]) -> str:
    return f"{folder}: process {writer['pid']} on {writer['host']} writes here; wait for it, or stop it, and run again"


def _is_alive(path: Path, writer: dict[str, Any]) -> bool:
    """Tell whether the writer touches its file, or removes it, within STALE_S."""
    show(
        f"{path}: of process {writer['pid']} on {writer['host']}; waiting up to {STALE_S:.0f} s to see if it lives"
    )
    first, end = path.stat().st_mtime_ns, time.monotonic() + STALE_S
    while time.monotonic() < end:
        time.sleep(HEARTBEAT_S / 10)
        if not path.exists() or path.stat().st_mtime_ns != first:
            return True
    return False


def _heartbeat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_S):
        with suppress(OSError):
            os.utime(path)


def wait_for_flock(file: int | IO, waiting: str) -> None:
    """Lock a file or folder that is open; say `waiting` where another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        show(waiting)
        fcntl.flock(file, fcntl.LOCK_EX)


def end_with_parent() -> None:
    """For the start of a pool's process:

    end when the parent does, even by SIGKILL, so that no orphan writes on.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
