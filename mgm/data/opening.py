"""Find, open and check the files of a dataset.

A file that can be read becomes a `Video`. The others are listed with their reasons.
"""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

from mgm.console import track
from mgm.data.index import Video, below
from mgm.errors import FULL, UserError
from mgm.processes import end_with
from mgm.results.atomic import naming

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # microseconds of CPU per period, of a container
CHUNK = 64  # files that a process opens between two reports
# Raise this number when a change of the code gives the same file another row.
_VERSION = 5
# Folders that file servers, cameras and photo programs write next to videos: previews of them, and
# deleted or older ones.
NOT_VIDEOS = {
    *("@eadir", "#recycle", "#snapshot", ".@__thumb", "@recycle", "@recently-snapshot"),
    *("$recycle.bin", "system volume information", "__macosx", "lost+found"),
    *("thumbnails", ".thumbnails", "_thumbs", ".thumbs", ".previews", "thmbnl"),
}


def is_preview(folder: str) -> bool:
    """Return whether a folder has a name of `NOT_VIDEOS`."""
    return folder.lower() in NOT_VIDEOS


def skipped(folder: Path) -> str:
    """Return why a folder of `NOT_VIDEOS` is left out, and how many files it has."""
    count = sum(len(files) for _, _, files in os.walk(folder))
    return f"is a folder of previews or deleted files; {count:,} files are left out"


def files_below(root: Path, folder: str = "") -> tuple[list[str], list[tuple[str, str]]]:
    """List the files below a folder, without hidden ones and previews (`NOT_VIDEOS`).

    Links are followed, and each folder is read once.

    Returns:
        The paths below `root` of all files in `folder`, and (path, reason) of those that cannot be
        used.
    """
    names, unusable, seen = [], list[tuple[str, str]](), set()

    def failed(error: OSError) -> None:
        unusable.append((below(error.filename, root), f"cannot be listed ({error.strerror})"))

    for at, folders, files in os.walk(root / folder, onerror=failed, followlinks=True):
        if os.path.realpath(at) in seen:
            unusable.append((below(at, root), "leads to a folder that was read already"))
            folders.clear()
            continue
        seen.add(os.path.realpath(at))
        previews = [Path(at, name) for name in sorted(filter(is_preview, folders))]
        unusable += [(below(str(path), root), skipped(path)) for path in previews]
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not is_preview(name)
        )
        for name in (below(os.path.join(at, file), root) for file in files if file[0] != "."):
            if any("\udc80" <= letter <= "\udcff" for letter in name):
                unusable.append((ascii(name)[1:-1], "has a name that is not UTF-8"))
            else:
                names.append(name)
    return names, unusable


def cores() -> int:
    """Return how many cores this process may use, by its affinity and its container's quota."""
    allowed = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    # The quota is "max" without a limit, and then no number.
    with suppress(OSError, ValueError):
        quota, period = map(int, CPU_MAX.read_text().split())
        allowed = min(allowed, max(quota // period, 1))
    return allowed


def in_processes(work: Callable[[Any], Any], tasks: Sequence[Any], processes: int) -> Iterator[Any]:
    """Yield `work(task)` of each task, in the order in which they finish.

    With `processes` 1, the work is done in this process.
    """
    if processes == 1:
        yield from map(work, tasks)
        return
    # A worker whose parent was killed would go on writing.
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=end_with,
        initargs=(os.getpid(), signal.SIGKILL),
    )
    try:
        for future in as_completed([pool.submit(work, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, perhaps for lack of memory; run again with fewer --processes"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def open_all(
    root: Path, names: Sequence[str], checked: Path | None = None
) -> tuple[dict[str, Video], list[tuple[str, str]]]:
    """Open the videos at `names` below the root.

    More than a few are opened by one process per core.

    Args:
        checked: a file that keeps the facts of opened videos. A later call opens only the other
            videos, those with another size or time, and those that could not be read.

    Returns:
        {name: its row of an index, without label, split and group}, and (name, reason) of the
        videos that cannot be read.
    """
    known = _read_checked(root, checked) if checked and checked.is_file() else {}
    with ThreadPoolExecutor(8) as pool:
        marks = dict(zip(names, pool.map(partial(_mark, root), names)))
    results: dict[str, Video | str | None] = {name: known.get(mark) for name, mark in marks.items()}
    unknown = [name for name, video in results.items() if video is None]
    chunks = [unknown[start : start + CHUNK] for start in range(0, len(unknown), CHUNK)]
    opened = in_processes(partial(_open_some, root), chunks, min(cores(), max(len(chunks) // 2, 1)))

    def reported() -> Iterator[tuple[str, Video | str]]:
        for chunk in opened:
            if checked:
                checked.parent.mkdir(parents=True, exist_ok=True)
                with naming(checked), checked.open("a", encoding="utf-8") as file:
                    for name, video in chunk.items():
                        if isinstance(video, Video):
                            # The line break ends a line that a killed process left unfinished.
                            row = [*_mark(root, name), astuple(video)[1:]]
                            file.write(f"\n{json.dumps(row)}\n")
            yield from chunk.items()

    many = len(chunks) > 1
    results |= track(reported(), "opening videos", len(unknown)) if many else reported()
    return (
        {name: row for name, row in results.items() if isinstance(row, Video)},
        [(name, row) for name, row in results.items() if isinstance(row, str)],
    )


def _mark(root: Path, name: str) -> tuple[int, str, int, int]:
    """Return what identifies a file and its row in `checked`. A missing file has size -1."""
    with suppress(OSError):
        stat = os.stat(os.path.join(root, name))
        return _VERSION, name, stat.st_size, stat.st_mtime_ns
    return _VERSION, name, -1, 0


def _read_checked(root: Path, checked: Path) -> dict[tuple[Any, ...], Video]:
    """Return the facts in `checked`, by mark. A line that was cut short is skipped."""
    known = {}
    for line in checked.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, TypeError, LookupError, RecursionError):
            *mark, facts = json.loads(line)
            known[tuple(mark)] = Video(os.path.join(root, mark[1]), *facts)
    return known


def _open_some(root: Path, names: Sequence[str]) -> dict[str, Video | str]:
    # Importing PyAV takes a fifth of a second, which an unchanged folder does not need.
    from mgm.video.decode import probe_video

    results: dict[str, Video | str] = {}
    for name in names:
        path = os.path.join(root, name)
        try:
            results[name] = probe_video(path)
        except UserError as error:
            results[name] = str(error).removeprefix(f"{path}: ")
    return results


def disk_full(error: Any, target: Path, video: Video) -> UserError | None:
    """Return the error if the file `target` of a video cannot be written on a full disk."""
    if error.errno not in FULL:
        return None
    return UserError(
        f"{target.parent}: no space left for the file of {video.path} "
        f"({os.strerror(error.errno)}); free some and run again (what is done is kept)"
    )


GONE = "is not there"


def fault(video: Video) -> str:
    """Return what is wrong with a video's file; empty if it has the size that was indexed."""
    try:
        size = os.stat(video.path).st_size
        if size != video.bytes:
            return f"has {size:,} bytes, the index has {video.bytes:,}"
    except OSError:
        return GONE
    return ""
