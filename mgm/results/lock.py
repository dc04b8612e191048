"""Locks on folders and files: one process writes, a second one stops with a message.

The writer of a folder holds FOLDER/writer.lock, the writer of a file FILE.lock (`filelock`). The
kernel releases the lock when the process ends, so a dead writer never blocks another. This works on
one host, and on NFS or Lustre with support for locks. Child processes do not inherit it. On a file
system without locks, nobody is refused.
"""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout, lock_descriptor

from mgm.console import show
from mgm.errors import UserError
from mgm.reading import read_json
from mgm.results.atomic import naming

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def folder_lock(folder: Path) -> AbstractContextManager[None]:
    """Lock `folder` for this process until the block ends.

    Raises:
        UserError: another process writes to the folder.
        OSError: it is not writable.
    """
    return _writer_lock(folder / "writer.lock", folder)


def file_lock(file: Path) -> AbstractContextManager[None]:
    """Lock the output `file`, by FILE.lock next to it, until the block ends.

    Raises:
        UserError: another process writes the file.
        OSError: its folder is not writable.
    """
    return _writer_lock(file.with_name(f"{file.name}.lock"), file)


def has_writer(folder: Path) -> bool:
    """Return whether a process writes to `folder`, without writing there."""
    with suppress(OSError), (folder / "writer.lock").open("r+b") as file:
        return not lock_descriptor(file.fileno(), blocking=False)
    return False


@contextmanager
def _writer_lock(path: Path, place: Path) -> Iterator[None]:
    """Hold the lock file `path`. Errors name `place`, the folder or file that it locks."""
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(path, blocking=False, fallback_to_soft=False))
        except Timeout:
            other = _writer_in(path)
            raise UserError(
                f"{place}: process {other['pid']} on {other['host']} writes here; wait for it or "
                "stop it, then run again"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise OSError(error.errno, error.strerror, str(path)) from error
        with naming(path):
            path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        try:
            yield
        finally:
            # The file is still locked: a process that has just opened it will see that it is gone.
            path.unlink(missing_ok=True)


def _writer_in(path: Path) -> dict[str, Any]:
    """Return the host and process id in a lock file."""
    # The file is incomplete if its writer has just started.
    with suppress(UserError, OSError):
        written = read_json(path)
        if isinstance(written, dict) and {"host", "pid"} <= written.keys():
            return written
    return {"host": "a host", "pid": "?"}


def wait_for_lock(descriptor: int, waiting: str) -> None:
    """Lock an open file or folder. Print `waiting` if another process holds the lock."""
    try:
        if not lock_descriptor(descriptor, blocking=False):
            show(waiting)
            lock_descriptor(descriptor)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
