"""Locks on folders and files: one process writes, a second one stops with a message.

The writer of a folder holds a POSIX lock on FOLDER/writer.lock, the writer of a file on FILE.lock.
The kernel releases the lock when the process ends, so a dead writer never blocks another. This
works on one host, and on NFS or Lustre with support for locks. Child processes do not inherit it.
On a file system without locks, nobody is refused.
"""

import errno
import fcntl
import json
import multiprocessing
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mgm.console import show
from mgm.errors import UserError
from mgm.results.atomic import naming

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
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _writer_lock(path: Path, place: Path) -> Iterator[None]:
    """Hold the lock file `path`. Errors name `place`, the folder or file that it locks."""
    descriptor, free = _open(path)
    try:
        if not free:
            other = _writer_in(descriptor)
            raise UserError(
                f"{place}: process {other['pid']} on {other['host']} writes here; wait for it or "
                "stop it, then run again"
            )
        with naming(path):
            os.ftruncate(descriptor, 0)
            writer = {"host": socket.gethostname(), "pid": os.getpid()}
            os.pwrite(descriptor, json.dumps(writer).encode(), 0)
        try:
            yield
        finally:
            # The file is still locked: a process that has just opened it will see that it is gone.
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    """Open the lock file and try to lock it. Return its descriptor, and whether it was free."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); make the folder writable, or "
                "choose another"
            ) from None
        free = _try_lock(descriptor)
        with suppress(FileNotFoundError):
            if not free or os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor, free
        # Its writer has just ended and removed it.
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock an open file. Return whether it was free, which it always is without locks."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in NO_LOCKS
    return True


def _writer_in(descriptor: int) -> dict[str, Any]:
    """Return the host and process id in a lock file."""
    # The file is incomplete if its writer has just started.
    with suppress(ValueError, RecursionError):
        written = json.loads(os.pread(descriptor, 1000, 0))
        if isinstance(written, dict) and {"host", "pid"} <= written.keys():
            return written
    return {"host": "a host", "pid": "?"}


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
