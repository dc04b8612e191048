"""Results of a study as one archive, `results/NAME.tar.xz`, unpacked on first use.

`results/SHA256SUMS` lists the digest of each
archive, in the format of sha256sum. An unpacked folder stores the digest of its archive, so later
calls read only two small files.
"""

import lzma
import os
import re
import shutil
import tarfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from mgm.console import show
from mgm.errors import UserError
from mgm.reading import file_digest, read_text
from mgm.results import atomic
from mgm.results.lock import folder_lock, has_writer, wait_for_flock

SUMS = "SHA256SUMS"
MARKER = "archive.sha256"
ENDING = ".tar.xz"
# Files that are not archived: weights, checkpoints, and files of a running process.
LEFT_OUT = ("*.safetensors", "checkpoint*", "writer.lock", ".*")


def is_packed(results: Path) -> bool:
    """Return whether an archive contains the folder `results`."""
    return _archive_of(results) is not None


def unpack(results: Path) -> None:
    """Unpack the folder `results` from its archive, unless that was done before.

    Runs of the folder that have a result, a checkpoint or a writer do not change. Without an
    archive, do nothing.

    Raises:
        UserError: the archive is damaged, or its digest is unknown.
    """
    archive = _archive_of(results)
    if archive is None:
        return
    wanted = _read_sums(archive.parent).get(archive.name)
    if _is_unpacked(results, wanted):
        return
    if not wanted:
        raise UserError(
            f"{archive}: has no digest in {archive.parent / SUMS}; if you trust the file, add the"
            f" line that `cd {archive.parent}; sha256sum {archive.name}` prints"
        )
    if (digest := file_digest(archive)) != wanted:
        raise UserError(
            f"{archive}: its SHA-256 is {digest[:12]}..., not {wanted[:12]}... as {SUMS} says;"
            f" restore it with `git checkout {archive}`"
        )
    with _alone(archive, results.name) as temporary:
        if not _is_unpacked(results, wanted):
            show(f"unpacking {archive}, some seconds")
            count = _unpack(archive, wanted, temporary, results)
            show(f"unpacked {count} files from {archive}")


def _is_unpacked(results: Path, digest: str | None) -> bool:
    marker = results / MARKER
    return (
        marker.is_file()
        and marker.read_text().strip() == digest
        and any(results.glob("*/result.json"))
    )


@contextmanager
def _alone(archive: Path, name: str) -> Iterator[Path]:
    """Yield a temporary folder for the folder `name`, while no other process unpacks the archive.

    Delete the folder at the end, and those of killed processes at the start.
    """
    with archive.open("rb") as file:
        # NFS locks only files that are open for writing.
        with suppress(OSError):
            wait_for_flock(file, f"{archive}: waiting for a process that unpacks it")
            for part in archive.parent.glob(".*"):
                if re.fullmatch(rf"\.\d+\.{re.escape(name)}", part.name):
                    shutil.rmtree(part)
        temporary = archive.parent / f".{os.getpid()}.{name}"
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _unpack(archive: Path, digest: str, temporary: Path, results: Path) -> int:
    """Unpack the folder `results` by way of the folder `temporary`. Return its number of files."""
    try:
        _extract(archive, temporary, results.name)
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise UserError(f"{archive}: is not an archive of results ({error})") from None
    new = temporary / results.name
    if not new.is_dir():
        raise UserError(
            f"{archive}: contains no folder {results.name}; give the archive its former name"
        )
    (new / MARKER).write_text(f"{digest}\n")
    if (results / MARKER).exists():
        # The scale belongs to the runs of its archive.
        (results / "scale.json").unlink(missing_ok=True)
    return _move(new, results)


def _archive_of(results: Path) -> Path | None:
    archive = results.parent / f"{results.name}{ENDING}"
    return archive if archive.is_file() else None


def _extract(archive: Path, folder: Path, name: str) -> None:
    """Extract the folder `name` of an archive into `folder`.

    tarfile's `filter="data"` would need Python 3.11.4. As a stream ("|") is never read backwards, a
    member of negative size cannot lead to itself.

    Raises:
        UserError: a member is a link or a device, or its path leads out of the folder.
    """
    with tarfile.open(archive, "r|xz") as tar:
        for member in tar:
            place = PurePosixPath(member.name)
            plain = member.isfile() or member.isdir()
            if not plain or place.is_absolute() or ".." in place.parts:
                raise UserError(
                    f"{archive}: {member.name} is not a regular file inside its folder; restore the"
                    f" archive with `git checkout {archive}`"
                )
            target = folder / place
            if place.parts[:1] != (name,) or member.isdir():
                continue
            source = tar.extractfile(member)
            assert source is not None
            target.parent.mkdir(parents=True, exist_ok=True)
            with source, target.open("wb") as file:
                shutil.copyfileobj(source, file)


def unpack_all(results: Path) -> None:
    """Unpack every archive in the folder `results`."""
    for archive in sorted(results.glob(f"*{ENDING}")):
        unpack(results / archive.name.removesuffix(ENDING))


def pack(results: Path, without: Collection[Path] = ()) -> Path:
    """Write the finished runs of the folder `results` to `results`.tar.xz, and its digest.

    An existing archive is unpacked first, so it keeps its runs and gains the new ones. Equal files
    make an equal archive: names are sorted, and times and owners are left out.

    Args:
        without: folders of runs that are left out.

    Returns:
        The archive.

    Raises:
        UserError: there are no finished runs, or the existing archive is damaged.
    """
    unpack(results)
    files = [
        path
        for result in results.glob("*/result.json")
        if result.parent not in without
        for path in result.parent.iterdir()
        if path.is_file() and not any(path.match(pattern) for pattern in LEFT_OUT)
    ]
    if not files:
        raise UserError(f"{results}: contains no finished runs; run its experiments first")
    # Files of one kind compress better if they follow one another.
    files.sort(key=lambda path: (path.name, path))
    scales = [path for path in [results / "scale.json"] if path.is_file()]
    archive = results.parent / f"{results.name}{ENDING}"
    with (
        atomic.atomic_write(archive) as temporary,
        lzma.open(temporary, "wb", preset=9 | lzma.PRESET_EXTREME) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in [*scales, *files]:
            member = tarfile.TarInfo(path.relative_to(results.parent).as_posix())
            member.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(member, file)
    sums = _read_sums(archive.parent) | {archive.name: file_digest(archive)}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    atomic.write(archive.parent / SUMS, lines)
    atomic.write(results / MARKER, f"{sums[archive.name]}\n")
    return archive


def _move(new: Path, place: Path) -> int:
    """Move the files that `place` lacks from `new`, the marker last. Return their count."""
    count = sum(path.is_file() for path in new.rglob("*")) - 1
    try:
        new.rename(place)
        return count
    except OSError:
        if not place.is_dir():
            raise
    moved = 0
    for path in sorted(new.iterdir(), key=lambda path: path.name == MARKER):
        target = place / path.name
        if path.name == MARKER:
            path.replace(target)
        elif path.is_dir() and target.is_dir():
            if not has_writer(target):
                with folder_lock(target):
                    moved += _complete(target, path)
        elif not target.exists():
            moved += len(list(path.iterdir())) if path.is_dir() else 1
            path.rename(target)
    return moved


def _complete(run: Path, new: Path) -> int:
    """Move files from `new` to a run that has neither result nor checkpoint. Return their count."""
    if (run / "result.json").exists() or any(run.glob("checkpoint*")):
        return 0
    files = sorted(new.iterdir(), key=lambda file: file.name == "result.json")
    for file in files:
        file.replace(run / file.name)
    return len(files)


def _read_sums(folder: Path) -> dict[str, str]:
    """Return the digest of each archive in `folder` by its name."""
    path = folder / SUMS
    lines = read_text(path).splitlines() if path.is_file() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
