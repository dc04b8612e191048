"""Whole files and locks: a reader sees the old file or the new one, never a part of it."""

import csv
import errno
import fcntl
import io
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mgm.console import show
from mgm.errors import UserError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name `path` in a system error of the block, such as a full disk.

    Errors of a file that is open name none, and those of a hidden file name that.
    """
    try:
        yield
    except OSError as error:
        if error.errno and str(error.filename or _hidden(path)) == str(_hidden(path)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden name next to `path`. Rename it to `path` if the block succeeds.

    The hidden name keeps the suffix, since some libraries choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _hidden(path)
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _hidden(path: Path) -> Path:
    """Return a hidden name of this process. Hosts that share a disk have equal process numbers."""
    return path.with_name(f".{os.getpid()}-{socket.gethostname()}.{path.name}")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step. Bytes of names that are not UTF-8 become \\udcNN."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a table to `path` in one step."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def read_text(path: Path) -> str:
    """Return a text file that a user wrote."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not text in UTF-8 ({error}); convert it") from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, with or without a byte order mark."""
    return parse_json(read_text(path), f"{path}:")


def parse_json(text: str, where: str) -> Any:
    """Return the content of JSON. A field that an object has twice is an error at `where`."""

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict[str, Any]()
        for name, value in pairs:
            if name in found:
                raise UserError(f"{where} has {name} twice in one object; remove one")
            found[name] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=fields)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error})") from None


@contextmanager
def locked(path: Path, what: str, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path` until the block ends.

    The kernel frees the lock when its process ends. On a file system without locks, print a warning
    and go on.

    Args:
        what: what the lock guards, for the line that names its holder.
        wait: for another process that holds it. Otherwise that is an error.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            holder = path.read_text() or "another process"
            if not wait:
                raise UserError(
                    f"{what}: {holder} works on it; wait for its end, or stop it"
                ) from None
            show(f"mgm: {what}: waits for {holder}")
            lock.acquire()
        with naming(path):
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        show(f"mgm: {path}: this file system has no locks; run one process at a time")
    try:
        yield
    finally:
        lock.release()


def held(path: Path) -> bool | None:
    """Return whether a process holds the lock file `path`; None if this process cannot tell.

    It needs no right to write. Two processes that ask do not meet each other.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
