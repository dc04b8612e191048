"""Output files of commands: a file that mgm did not write is never replaced.

Next to its outputs, a command keeps the digest of each in `.mgm.sha256`, in the format of
sha256sum. A file whose digest is not there is the user's, belongs to a run, or was edited.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mgm.errors import UserError
from mgm.reading import file_digest, read_text
from mgm.results.atomic import atomic_write, naming

RECORD = ".mgm.sha256"


def require_own(*paths: Path, force: bool = False) -> None:
    """Check that a command may replace these files, before it computes what goes there.

    Args:
        force: it may replace every file.

    Raises:
        UserError: no command wrote one of them, or it was changed since.
    """
    for path in () if force else paths:
        if path.exists() and file_digest(path) not in _recorded(path.with_name(RECORD)):
            raise UserError(
                f"{path}: exists, and no such command wrote it, or it was edited since; choose "
                "another --out, or replace it by --force"
            )


@contextmanager
def output(path: Path) -> Iterator[Path]:
    """Write a file as `atomic_write` does, and record its digest."""
    with atomic_write(path) as temporary:
        yield temporary
        # The record comes first, so that a killed command knows its file.
        record_output(temporary, path)


def write_output(path: Path, text: str) -> None:
    """Write `text` to `path` as `output` does."""
    with output(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def record_output(file: Path, path: Path) -> None:
    """Record the digest of `file` as that of a command's output at `path`."""
    lines = path.with_name(RECORD)
    if (digest := file_digest(file)) not in _recorded(lines):
        with naming(lines), lines.open("a", encoding="utf-8") as open_lines:
            open_lines.write(f"{digest}  {path.name}\n")


def _recorded(record: Path) -> set[str]:
    """Return the digests in a record."""
    lines = read_text(record).splitlines() if record.is_file() else []
    return {line.partition(" ")[0] for line in lines}
