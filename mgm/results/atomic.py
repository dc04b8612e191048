"""Write files atomically: a reader sees the old file or the new one, never a part of it."""

import csv
import errno
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mgm.errors import FULL, system_error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file, and rename it to `path` when the block ends.

    If the block fails, the temporary file is deleted. Its name has the suffix of `path`, since
    some libraries choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        # A new file has the mode that the umask allows. safetensors writes files that only their
        # owner may read.
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        # Some file systems refuse any change.
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        with naming(temporary), temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        cause = system_error(error)
        if cause and (
            cause.filename == str(temporary)
            # A write to an open file fails without a name.
            or (not cause.filename and cause.errno in (*FULL, errno.EIO))
        ):
            # Name the file that the user asked for. The name of PyAV's errors cannot be set.
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of the file to an OSError of the block.

    An error of a write to an open file has no name.
    """
    try:
        yield
    except OSError as error:
        if error.filename:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write(path: Path, text: str) -> Path:
    """Write `text` to `path` atomically."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
    return path


def remove_parts(folder: Path) -> None:
    """Delete the temporary files of killed writers. No process may be writing to `folder`."""
    for part in folder.iterdir():
        if re.fullmatch(r"\.\d+\..+", part.name):
            part.unlink()


def table_writer(file: IO[str]) -> Any:
    """Return a CSV writer that ends lines in a line feed and quotes carriage returns.

    Python's CSV writer quotes only the characters of its own line end. With "\\n" alone, a carriage
    return in a name would split its row.
    """
    return csv.writer(_LineFeeds(file), lineterminator="\r\n")


def table_text(columns: Iterable[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Return a CSV of these rows. Floats have four decimals."""
    file = io.StringIO()
    table_writer(file).writerows(
        [
            [*columns],
            *([f"{x:.4f}" if isinstance(x, float) else x for x in row] for row in rows),
        ]
    )
    return file.getvalue()


class _LineFeeds:
    """A file that replaces the end of each CSV line by a line feed."""

    def __init__(self, file: IO[str]):
        self.file = file

    def write(self, line: str) -> int:
        return self.file.write(line.removesuffix("\r\n") + "\n")
