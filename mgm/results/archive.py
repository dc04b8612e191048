"""Results of a study as one archive, `results/NAME.tar.xz`, unpacked on first use.

`results/SHA256SUMS` lists the digest of each archive, in the format of sha256sum. An unpacked
folder stores the digest of its archive, so later calls read only two small files.
"""

import io
import lzma
import os
import re
import shutil
import tarfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path, PurePosixPath

from mgm.console import show
from mgm.errors import UserError
from mgm.reading import read_text
from mgm.results import atomic
from mgm.results.lock import folder_lock, has_writer, wait_for_lock

SUMS = "SHA256SUMS"
MARKER = "archive.sha256"
# The folder of the plan, and its files.
PLAN, PLANNED = "plan", ("cells.csv", "specs.json", "study.yaml")
ENDING = ".tar.xz"
# What is archived of a run. Weights, checkpoints and what others put there are not.
ARCHIVED = ("spec.json", "result.json", "log.jsonl", "predictions.csv", "arrays.npz")
MOST = 10**9  # bytes of an unpacked archive; a thousand runs have a tenth of them


def archive_of(results: Path) -> Path:
    return results.parent / f"{results.name}{ENDING}"


def is_packed(results: Path) -> bool:
    """Return whether an archive contains the folder `results`."""
    return archive_of(results).is_file()


def archived_runs(results: Path) -> set[str]:
    """Return the ids of the runs in the folder's archive; none without an archive."""
    if not is_packed(results):
        return set()
    return _runs_in(_read(results))


def _runs_in(files: Collection[str]) -> set[str]:
    return {name.split("/")[0] for name in files if name.endswith("/result.json")}


def unpack(results: Path) -> None:
    """Unpack the folder `results` from its archive, unless that was done before.

    Runs of the folder that have a result, a checkpoint or a writer do not change. Without an
    archive, do nothing.

    Raises:
        UserError: the archive is damaged, or its digest is unknown.
    """
    if not is_packed(results) or _is_unpacked(results):
        return
    with _alone(results) as temporary:
        if _is_unpacked(results):
            return
        show(f"unpacking {archive_of(results)}, some seconds")
        files = _read(results)
        for name, data in files.items():
            path = temporary / name
            with atomic.naming(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        (temporary / MARKER).write_text(f"{_digest(archive_of(results))}\n")
        if (results / MARKER).exists():
            # The plan belongs to the runs of its archive.
            shutil.rmtree(results / PLAN, ignore_errors=True)
        _move(temporary, results)
        show(f"unpacked {len(files)} files from {archive_of(results)}")


def pack(results: Path, runs: Collection[str], without: Collection[str] = ()) -> Path:
    """Write these runs of the folder `results` to its archive, and the archive's digest.

    Runs of the archive stay in it as they are. Equal files make an equal archive: names are sorted,
    and times and owners are left out.

    Args:
        without: ids of runs that are left out, even if they are in the archive.

    Raises:
        UserError: there are no finished runs, or the existing archive is damaged.
    """
    archive = archive_of(results)
    with _alone(results):
        before = _digest(archive) if archive.is_file() else ""
        files = _read(results) if before else {}
        archived = _runs_in(files)
        for run in {*runs} - archived:
            files |= _files_of(results / run)
        files = {name: data for name, data in files.items() if name.split("/")[0] not in without}
        if not _runs_in(files):
            raise UserError(f"{results}: contains no finished runs; run its experiments first")
        for path in (results / PLAN / name for name in PLANNED):
            if path.is_file() and not path.is_symlink():
                files[f"{PLAN}/{path.name}"] = path.read_bytes()
        data = _compress(results.name, files)
        digest = sha256(data).hexdigest()
        # The digest comes first, so that a killed process leaves no archive without its digest.
        _write_sums(archive, before, digest)
        with atomic.atomic_write(archive) as temporary:
            temporary.write_bytes(data)
        _write_sums(archive, digest)
        if not before or _marker(results) == before:
            atomic.write(results / MARKER, f"{digest}\n")
    return archive


def _files_of(run: Path) -> dict[str, bytes]:
    """Return a run's files for the archive by name. A run that goes meanwhile has none.

    Raises:
        UserError: a file is a link, which may lead to any file of this machine.
    """
    files = {}
    for path in (run / name for name in ARCHIVED):
        if run.is_symlink() or path.is_symlink():
            raise UserError(f"{path}: is a link; put the file itself there")
        with suppress(FileNotFoundError):
            files[f"{run.name}/{path.name}"] = path.read_bytes()
    return files if f"{run.name}/result.json" in files else {}


def _compress(folder: str, files: dict[str, bytes]) -> bytes:
    """Return an archive of these files of a folder."""
    buffer = io.BytesIO()
    with (
        lzma.open(buffer, "wb") as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        # Files of one kind compress better if they follow one another.
        for name in sorted(files, key=lambda name: (name.split("/")[-1], name)):
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(files[name])
            try:
                tar.addfile(member, io.BytesIO(files[name]))
            except ValueError as error:
                raise UserError(f"{member.name}: {error}; an archive cannot hold it") from None
    return buffer.getvalue()


def _read(results: Path) -> dict[str, bytes]:
    """Return the files of a folder's archive by their names in the folder.

    Raises:
        UserError: the archive is damaged, its digest is unknown, or `files_in` refuses it.
    """
    archive = archive_of(results)
    known = _read_sums(archive.parent).get(archive.name)
    if not known:
        raise UserError(
            f"{archive}: has no digest in {archive.parent / SUMS}; if you trust the file, add the"
            f" line that `cd {archive.parent}; sha256sum {archive.name}` prints"
        )
    if _digest(archive) not in known:
        raise UserError(
            f"{archive}: its SHA-256 is not the one in {SUMS}; restore it with `git checkout"
            f" {archive}`"
        )
    return files_in(archive.read_bytes(), results.name, str(archive))


def files_in(data: bytes, folder: str, archive: str) -> dict[str, bytes]:
    """Return the files of an archive of a folder, by their names in the folder.

    As a stream ("|") is never read backwards, a member of negative size cannot lead to itself.

    Raises:
        UserError: `data` is no archive of the folder or unpacks to more than `MOST` bytes, or a
            member is a link or a device, or its path leads out of the folder.
    """
    files = {}
    try:
        with lzma.open(io.BytesIO(data)) as compressed:
            plain = compressed.read(MOST + 1)
        if len(plain) > MOST:
            raise UserError(f"{archive}: holds more than {MOST:,} bytes; results have fewer")
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r|") as tar:
            for member in tar:
                place = PurePosixPath(member.name)
                if member.isdir():
                    continue
                outside = place.is_absolute() or ".." in place.parts
                if outside or not member.isfile() or member.size < 0:
                    raise UserError(f"{archive}: {member.name} is not a file inside its folder")
                source = tar.extractfile(member)
                if source and place.parts[:1] == (folder,):
                    files["/".join(place.parts[1:])] = source.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise UserError(f"{archive}: is not an archive of results ({error})") from None
    if not files:
        raise UserError(f"{archive}: contains no folder {folder}; give the archive its former name")
    return files


def _is_unpacked(results: Path) -> bool:
    known = _read_sums(results.parent).get(f"{results.name}{ENDING}", [])
    return _marker(results) in known and any(results.glob("*/result.json"))


def _marker(results: Path) -> str:
    """Return the digest of the archive that a folder was unpacked from; empty if there is none."""
    marker = results / MARKER
    return marker.read_text().strip() if marker.is_file() else ""


@contextmanager
def _alone(results: Path) -> Iterator[Path]:
    """Let one process at a time pack or unpack in a folder. Yield the name of a temporary folder.

    Delete the folder at the end, and what killed processes left at the start.
    """
    parent = results.parent
    parent.mkdir(parents=True, exist_ok=True)
    temporary = parent / f".{os.getpid()}.{results.name}"
    folder = os.open(parent, os.O_RDONLY)
    try:
        # NFS locks only files that are open for writing.
        with suppress(OSError):
            wait_for_lock(folder, f"{parent}: waiting for a process that packs or unpacks there")
            left = re.compile(rf"\.\d+\.({re.escape(results.name)}({ENDING})?|{SUMS})")
            for part in parent.glob(".*"):
                if left.fullmatch(part.name):
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(folder)


def _move(new: Path, place: Path) -> None:
    """Move the files that `place` lacks from `new`, the marker last."""
    try:
        new.rename(place)
        return
    except OSError:
        if not place.is_dir():
            raise
    for path in sorted(new.iterdir(), key=lambda path: path.name == MARKER):
        target = place / path.name
        if path.name == MARKER:
            path.replace(target)
        elif path.is_dir() and target.is_dir():
            if path.name != PLAN and not has_writer(target):
                with folder_lock(target):
                    _complete(target, path)
        elif not target.exists():
            path.rename(target)


def _complete(run: Path, new: Path) -> None:
    """Move files from `new` to a run that has neither result nor checkpoint."""
    if not (run / "result.json").exists() and not any(run.glob("checkpoint*")):
        for file in sorted(new.iterdir(), key=lambda file: file.name == "result.json"):
            file.replace(run / file.name)


def _digest(archive: Path) -> str:
    return sha256(archive.read_bytes()).hexdigest()


def _read_sums(folder: Path) -> dict[str, list[str]]:
    """Return the digests of each archive in `folder`: one, or two while one is replaced."""
    path, sums = folder / SUMS, dict[str, list[str]]()
    for line in read_text(path).splitlines() if path.is_file() else []:
        digest, _, name = line.partition("  ")
        sums.setdefault(name, []).append(digest)
    return sums


def _write_sums(archive: Path, *digests: str) -> None:
    sums = _read_sums(archive.parent) | {archive.name: [digest for digest in digests if digest]}
    lines = [f"{digest}  {name}\n" for name in sorted(sums) for digest in dict.fromkeys(sums[name])]
    atomic.write(archive.parent / SUMS, "".join(lines))
