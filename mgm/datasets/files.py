"""Opening the files that a dataset lists: what can be read becomes a `Video`, the rest is listed with its reason."""

import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mgm.datasets.index import Video
from mgm.errors import UserError

if TYPE_CHECKING:
    from mgm.video.decode import VideoInfo

_TOGETHER = 256  # files between two writes; an interrupt waits for as many
_VERSION = 1  # raise it when the same file would give another VideoInfo
_File: TypeAlias = tuple[str, int, int]  # path below the root, bytes, time of change in ns


def open_all(root: Path, names: Sequence[str], checked: Path | None = None) -> "tuple[dict[str, VideoInfo], list[tuple[str, str]]]":
    """Given paths below the root: ({name: VideoInfo} of what can be read, [(name, reason)] of the rest).

    `checked`: a file that keeps what was found, so that an interrupted call, or one after more videos came, opens only the others. A file
    whose size or time changed is opened again, as is one that could not be read. On a terminal a bar shows how far it is.
    """
    from mgm.video import probe_video  # PyAV takes a fifth of a second, which an unchanged folder need not pay

    known = _read_checked(checked) if checked else {}

    def open_one(name: str) -> "tuple[VideoInfo | str, _File | None]":
        path = os.path.join(root, name)
        try:
            stat = os.stat(path)
            file = (name, stat.st_size, stat.st_mtime_ns)
            return (known[file], None) if file in known else (probe_video(path), file)
        except UserError as error:
            return str(error).removeprefix(f"{path}: "), None
        except OSError as error:  # a link that leads nowhere, a file that may not be read
            return f"cannot be opened ({error.strerror}); replace it, or remove it", None

    results: list[VideoInfo | str] = []
    if checked:
        checked.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar() as shown:
        task = shown.add_task("opening videos", total=len(names))
        for start in range(0, len(names), _TOGETHER):
            some = list(pool.map(open_one, names[start : start + _TOGETHER]))
            results += [result for result, _ in some]
            if checked:
                _append_checked(checked, [(file, result) for result, file in some if file and not isinstance(result, str)])
            shown.advance(task, len(some))
    infos = {name: result for name, result in zip(names, results) if not isinstance(result, str)}
    return infos, [(name, result) for name, result in zip(names, results) if isinstance(result, str)]


def _read_checked(path: Path) -> "dict[_File, VideoInfo]":
    """What `_append_checked` wrote. A line that was cut short, or is another version's, is as if it were not there."""
    from mgm.video.decode import VideoInfo

    known = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                version, name, size, changed, facts = json.loads(line)
                if version == _VERSION:
                    known[name, size, changed] = VideoInfo(**facts)
            except (ValueError, TypeError):
                continue
    return known


def _append_checked(path: Path, found: "Sequence[tuple[_File, VideoInfo]]") -> None:
    lines = "".join(json.dumps([_VERSION, *file, asdict(info)]) + "\n" for file, info in found)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{lines}" if lines else "")  # a line that a kill cut short ends here


def bar():
    """A bar of progress on a terminal; `disable` is True, and nothing is shown, where there is none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def video_of(root: Path, name: str, label: int, split: str, group: str, info: "VideoInfo") -> Video:
    """The row of an index for a file that was opened."""
    path = os.path.join(root, name)
    return Video(
        path=path,
        label=label,
        split=split,
        group=group,
        frames=info.frames,
        fps=info.fps,
        width=info.width,
        height=info.height,
        codec=info.codec,
        has_vectors=info.has_vectors,
        bytes=os.path.getsize(path),
    )
