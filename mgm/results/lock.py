"""Locks on folders and files: one process writes, a second one stops with a message.

The writer of a folder holds a POSIX lock on FOLDER/writer.lock, the writer of a file on FILE.lock.
The kernel releases the lock when the process ends, so a dead writer never blocks another. This
works on one host, and on NFS or Lustre with support for locks. Child processes do not inherit it.

NFS mounted with `nolock`, and Lustre mounted without `flock`, have no locks between hosts. There
the lock file contains the writer's host and process id, and the writer touches it every
HEARTBEAT_S. A second process on another host cannot check the first one, so it watches the file
for STALE_S (NFS caches the times of a file for up to 60 s). If the file was touched, the writer is
alive; otherwise it is dead. No clocks are compared. Two cases are not detected without locks: two
processes that start at the same moment, and a writer that was frozen for longer than STALE_S.
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
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from mgm.console import show
from mgm.errors import UserError
from mgm.results.atomic import naming

HEARTBEAT_S, STALE_S = 10.0, 90.0
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def folder_lock(folder: Path) -> AbstractContextManager[None]:
    """Lock `folder` for this process until the block ends.

    Raises:
        UserError: another process writes to the folder, or it is not writable.
    """
    return _writer_lock(folder / "writer.lock", folder)


def file_lock(file: Path) -> AbstractContextManager[None]:
    """Lock the output `file`, by FILE.lock next to it, until the block ends.

    Raises:
        UserError: another process writes the file, or its folder is not writable.
    """
    with naming(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    return _writer_lock(file.with_name(f"{file.name}.lock"), file)


def has_writer(folder: Path) -> bool:
    """Return whether another process writes to `folder`, without writing there.

    Never ask about a folder that this process has locked: closing its lock file unlocks it.
    """
    path = folder / "writer.lock"
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return _other_writer(path, descriptor, _try_lock(descriptor)) is not None
    finally:
        os.close(descriptor)


@contextmanager
def _writer_lock(path: Path, place: Path) -> Iterator[None]:
    """Hold the lock file `path`. Errors name `place`, the folder or file that it locks."""
    descriptor, lock = _open(path)
    try:
        if other := _other_writer(path, descriptor, lock):
            raise UserError(
                f"{place}: process {other['pid']} on {other['host']} writes here; wait for it or "
                "stop it, then run again"
            )
        with naming(path):
            os.ftruncate(descriptor, 0)
            writer = {"host": socket.gethostname(), "pid": os.getpid()}
            os.pwrite(descriptor, json.dumps(writer).encode(), 0)
        ended = threading.Event()
        threading.Thread(target=_heartbeat, args=(path, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            # The file is still locked: a process that has just opened it will see that it is gone.
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


Lock = Literal["ours", "theirs", "none"]


def _open(path: Path) -> tuple[int, Lock]:
    """Open the lock file and try to lock it. Return its descriptor, and who has the lock."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); make the folder writable, or "
                "choose another"
            ) from None
        lock = _try_lock(descriptor)
        with suppress(FileNotFoundError):
            if lock == "theirs" or os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor, lock
        # Its writer has just ended and removed it.
        os.close(descriptor)


def _try_lock(descriptor: int) -> Lock:
    """Lock an open file. Return who has the lock; none if the file system has no locks."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return "none" if error.errno in NO_LOCKS else "theirs"
    return "ours"


def _other_writer(path: Path, descriptor: int, lock: Lock) -> dict[str, Any] | None:
    """Return the host and process id of a writer that is not this process; None if none lives."""
    writer = None
    # The file is incomplete if its writer has just started, or was killed then.
    with naming(path), suppress(ValueError, RecursionError):
        written = json.loads(os.pread(descriptor, 1000, 0))
        if isinstance(written, dict) and {"host", "pid"} <= written.keys():
            writer = written
    if lock == "theirs":
        return writer or {"host": "a host", "pid": "?"}
    if writer and (writer["host"] != socket.gethostname() or lock == "none"):
        return writer if _is_alive(path, writer) else None
    return None


def _is_alive(path: Path, writer: dict[str, Any]) -> bool:
    """Return whether the writer touches or removes its file within STALE_S."""
    show(
        f"{path}: locked by process {writer['pid']} on {writer['host']}; waiting up to "
        f"{STALE_S:.0f} s to see if that process is alive"
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
    """Lock an open file or folder. Print `waiting` if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        show(waiting)
        fcntl.flock(file, fcntl.LOCK_EX)


def end_with_parent() -> None:
    """End this worker process when its parent ends, even by SIGKILL.

    Otherwise it would go on writing.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
