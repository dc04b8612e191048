"""Write files that are either the old one or the new one, never half of one."""

import csv
import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to write; sync it and rename it to `path` when the block
    ends, delete it when the block fails.

    The temporary name keeps the suffix, which some libraries go by.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary) or (
            error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT)
        ):
            error.filename, error.filename2 = str(path), None  # the name that a user gave
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give the system's error the name of the file that the block writes, which a write to an open
    file lacks.
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write(path: Path, text: str) -> Path:
    """Write `text` to `path`, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
    return path


def remove_parts(folder: Path) -> None:
    """Delete the temporary files of killed writers from a folder that no one writes to now."""
    for part in folder.iterdir():
        if re.fullmatch(r"\.\d+\..+", part.name):
            part.unlink()


def table_writer(file: IO[str]) -> Any:
    """Return a CSV writer whose lines end in a line feed and which quotes carriage returns.

    Python's own quotes only the characters of its line end, so that a carriage return in a name
    would split its row for every reader.
    """
    return csv.writer(_LineFeeds(file), lineterminator="\r\n")


class _LineFeeds:
    """Take whole CSV lines and end them in a line feed."""

    def __init__(self, file: IO[str]):
        self.file = file

    def write(self, line: str) -> int:
        return self.file.write(line.removesuffix("\r\n") + "\n")
