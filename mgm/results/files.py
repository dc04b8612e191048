"""Files that are either the old one or the new one, never half of one;

and reading that never hangs.
"""

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgm.errors import UserError


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


def regular(path: Path) -> Path:
    """Return `path` if it is a regular file or a link to one. A FIFO or a device would hang its
    reader.

    Raises:
        UserError: it is something else.
        FileNotFoundError: it is not there.
    """
    path.stat()
    if not path.is_file():
        raise UserError(
            f"{path}: is {'a folder' if path.is_dir() else 'a pipe or a device'}, not a file; move it away, or name another"
        )
    return path


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: it is no regular file, cannot be read, or is not JSON that every program reads
            alike (NaN and 1e999 are not).
        FileNotFoundError: it is not there.
    """
    try:
        return json.loads(
            regular(path).read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite
        )
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no number, or too large a one")
    return number
