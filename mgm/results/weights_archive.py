"""Weights of finished runs in one archive, `results/NAME.weights.tar`.

Archives of results have no weights, and a repository is no place for them. Each result has the
SHA-256 of its weights, so these archives may come from anywhere: only weights of the recorded
digest are put in place.
"""

import shutil
import tarfile
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen

from mgm.errors import UserError
from mgm.reading import file_digest
from mgm.results.archive import unpack
from mgm.results.atomic import atomic_write
from mgm.results.lock import folder_lock
from mgm.results.result import lacks_weights, recorded_digest

WEIGHTS = "weights.safetensors"


def pack_weights(results: Path) -> tuple[Path, int]:
    """Write the weights of the finished runs in the folder `results` to `results`.weights.tar.

    An existing archive keeps its weights. Equal weights make an equal archive.

    Returns:
        The archive, and the number of runs in it.

    Raises:
        UserError: there are no weights, or some differ from their result.
    """
    archive = results.parent / f"{results.name}.weights.tar"
    if archive.exists():
        put_weights(results, str(archive))
    files = [file for file in sorted(results.glob(f"*/{WEIGHTS}")) if recorded_digest(file.parent)]
    if not files:
        raise UserError(f"{results}: no finished run has its weights here; run its experiments")
    with (
        atomic_write(archive) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for file in files:
            _check(file, file.parent)
            member = tarfile.TarInfo(file.relative_to(results.parent).as_posix())
            member.size = file.stat().st_size
            with file.open("rb") as content:
                tar.addfile(member, content)
    return archive, len(files)


def put_weights(results: Path, source: str) -> tuple[int, int]:
    """Put archived weights into the finished runs of the folder `results` that lack theirs.

    Everything else in the archive is passed over.

    Args:
        source: an archive of `pack_weights`, as a file or an address (https://...).

    Returns:
        The number of runs that have got their weights, and of those that still lack theirs.

    Raises:
        UserError: the archive cannot be read, or its weights differ from a run's result.
    """
    unpack(results)
    lacking = {
        f"{results.name}/{run.name}/{WEIGHTS}": run
        for run in results.iterdir()
        if lacks_weights(run)
    }
    count = 0
    try:
        # As a stream ("|"), the archive needs no space of its own.
        with closing(_open(source)) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                run = lacking.get(PurePosixPath(member.name).as_posix())
                content = tar.extractfile(member) if run and member.isfile() else None
                if not run or not content:
                    continue
                with folder_lock(run), atomic_write(run / WEIGHTS) as temporary:
                    with temporary.open("wb") as file:
                        shutil.copyfileobj(content, file)
                    _check(temporary, run)
                count += 1
    except (tarfile.TarError, URLError, EOFError) as error:
        raise UserError(f"{source}: cannot be read as an archive of weights ({error})") from None
    return count, len(lacking) - count


def _open(source: str) -> IO[bytes]:
    if source.startswith(("https://", "http://")):
        return urlopen(source, timeout=60)
    return Path(source).open("rb")


def _check(weights: Path, run: Path) -> None:
    if (digest := file_digest(weights)) != (recorded := recorded_digest(run)):
        raise UserError(
            f"{run / WEIGHTS}: SHA-256 {digest[:12]} differs from its result's {str(recorded)[:12]}"
        )
