"""Opening the files that a dataset lists: what can be read becomes a `Video`, the rest is listed with its reason."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from mgm.datasets.index import Video
from mgm.errors import UserError

if TYPE_CHECKING:
    from mgm.video.decode import VideoInfo


def open_all(root: Path, names: Sequence[str]) -> "tuple[dict[str, VideoInfo], list[tuple[str, str]]]":
    """Given paths below the root: ({name: VideoInfo} of what can be read, [(name, reason)] of the rest)."""
    from mgm.video import probe_video  # PyAV takes a fifth of a second, which an unchanged folder need not pay

    def open_one(name: str) -> "VideoInfo | str":
        path = os.path.join(root, name)
        try:
            return probe_video(path)
        except UserError as error:
            return str(error).removeprefix(f"{path}: ")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(open_one, names))
    infos = {name: result for name, result in zip(names, results) if not isinstance(result, str)}
    return infos, [(name, result) for name, result in zip(names, results) if isinstance(result, str)]


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
