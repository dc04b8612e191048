"""`mgm prepare DATASET --copy`: one file per video from which clips are read fast.

    OUT/source/                 the index of the sources
    OUT/copies.json             the copies' settings. Written first. It shows that mgm made
                                OUT/videos
    OUT/videos/                 the copies, with the sources' names. NAME.mp4 is encoded again
                                (`mgm.data.transcode`). NAME.pack has JPEG frames and the source's
                                own motion vectors (`mgm.video.pack`)
    OUT/index.csv, index.json   the index of the copies, with the sources' labels, splits and
                                groups. index.json is written last

As with make, a copy is kept if it is whole and not older than its source. A copy is written under a
hidden name and then renamed, so a killed process or a full disk leaves no incomplete copy.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from mgm.console import track
from mgm.data.index import Index, Video, new_index, read_index, write_index
from mgm.data.opening import FULL, GONE, fault, in_processes, open_all
from mgm.errors import UserError
from mgm.reading import read_json
from mgm.results.atomic import atomic_write, remove_parts, write

Copy = Literal["pack", "mp4"]
OLDER = "is older than its source; run the same `mgm prepare` again"


def copy_videos(
    source: Index,
    out: Path,
    kind: Copy,
    short_side: int = 256,
    processes: int = 1,
) -> Index:
    """Copy the videos of `source`, and write the index of the copies to folder `out`.

    A video that cannot be copied is listed among the excluded ones. The next call tries it again.
    """
    out = Path(os.path.abspath(out))
    _claim(out, {"copy": kind, "short_side": short_side})
    root, target_of, checked = out / "videos", _targets(source, kind), out / "checked.jsonl"
    there = [target for target in target_of.values() if (root / target).is_file()]
    known, _ = open_all(root, there, checked)
    todo = [video for video in source.videos if not _current(video, known.get(target_of[video]))]
    if todo:
        # The old index does not match the new copies.
        (out / "index.json").unlink(missing_ok=True)
    tasks = [(video, root / target_of[video]) for video in todo]
    results = in_processes(partial(_copy, kind, short_side), tasks, processes)
    done = track(results, f"writing {kind} files", len(tasks))
    failed = sorted((source.name(video), reason) for video, reason in done if reason)
    for folder in {(root / target).parent for target in target_of.values()}:
        if folder.is_dir():
            remove_parts(folder)
    lost = dict(failed)
    source_of = {target_of[own]: own for own in source.videos if source.name(own) not in lost}
    infos, unreadable = open_all(root, list(source_of), checked)
    copies = [
        replace(info, label=video.label, split=video.split, group=video.group)
        for info, video in ((info, source_of[target]) for target, info in infos.items())
    ]
    note = (
        f"{source.note}; {kind} copies of index {source.digest} (short side at most {short_side})"
    )
    index = new_index(root, source.classes, copies, [*source.excluded, *failed, *unreadable], note)
    write_index(index, out)
    return index


def older_copies(index: Index) -> Iterator[tuple[str, str]]:
    """Yield (path, reason) of each copy of an index that is older than its source.

    Sources that are gone, or an index that has no copies, yield nothing.
    """
    out = index.root.parent
    if not ((out / "copies.json").is_file() and (out / "source" / "index.json").is_file()):
        return
    source, known = read_index(out / "source"), {video.path for video in index.videos}
    for video, target in _targets(source, read_json(out / "copies.json")["copy"]).items():
        path = str(index.root / target)
        if path in known and _older(path, video.path):
            yield path, OLDER


def check_files(index: Index) -> None:
    """Check that the videos of an index are the files that were indexed, by their sizes."""
    # A shared file system answers several requests at a time.
    with ThreadPoolExecutor(8) as pool:
        found = zip(index.videos, pool.map(fault, index.videos))
        faults = [(video, wrong) for video, wrong in found if wrong]
    if faults:
        (video, wrong), gone = faults[0], sum(wrong == GONE for _, wrong in faults)
        raise UserError(
            f"{video.path}: {wrong}; of {len(index.videos):,} videos {gone:,} are missing and "
            f"{len(faults) - gone:,} have changed: put them back, or run `mgm prepare` again"
        )
    for path, reason in older_copies(index):
        raise UserError(f"{path}: {reason}")


def _current(video: Video, copy: Video | None) -> bool:
    """Return whether a copy is whole, of this video, and not older than it."""
    return bool(copy and copy.frames == video.frames and not _older(copy.path, video.path))


def _older(path: str, source: str) -> bool:
    return os.path.exists(source) and os.path.getmtime(path) < os.path.getmtime(source)


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Write OUT/copies.json, or check that the copies there have the same settings."""
    mark = out / "copies.json"
    if mark.is_file():
        if (earlier := read_json(mark)) != settings:
            raise UserError(
                f"{out}: holds copies of {earlier}, not {settings}; choose another --out"
            )
    elif (out / "videos").exists():
        raise UserError(f"{out / 'videos'}: holds other videos; choose another --out")
    (out / "videos").mkdir(parents=True, exist_ok=True)
    write(mark, json.dumps(settings, indent=1) + "\n")


def _targets(source: Index, kind: Copy) -> dict[Video, str]:
    """Return the path of each source's copy below OUT/videos.

    A digest is added to the name if two sources differ only in their suffix, or if a source is
    outside the root.
    """
    targets: dict[Video, str] = {}
    taken = set()
    for video in sorted(source.videos, key=source.name):
        name = source.name(video)
        path = PurePosixPath(*(part for part in name.split("/") if part not in ("", "..")))
        target = path.with_suffix(f".{kind}")
        if target in taken or ".." in name.split("/"):
            digest = hashlib.sha256(name.encode()).hexdigest()[:8]
            target = path.with_name(f"{path.stem}.{digest}.{kind}")
        taken.add(target)
        targets[video] = str(target)
    return targets


def _copy(kind: Copy, short_side: int, task: tuple[Video, Path]) -> tuple[Video, str]:
    """Copy one video.

    Returns:
        The video, and why it cannot be copied; empty on success.
    """
    import av

    from mgm.data.transcode import encode
    from mgm.video.pack import write_pack

    video, target = task
    try:
        if change := fault(video):
            raise UserError(f"{change}; run `mgm prepare` again")
        with atomic_write(target) as temporary:
            with temporary.open("wb") as file:
                written = (write_pack if kind == "pack" else encode)(video, file, short_side)
            if written != video.frames:
                raise UserError(f"{written:,} of {video.frames:,} frames decode; replace the file")
        return video, ""
    except UserError as error:
        return video, str(error).removeprefix(f"{video.path}: ")
    except (OSError, av.FFmpegError) as error:
        if error.errno in FULL:
            raise UserError(
                f"{target.parent}: no space left for the copy of {video.path} "
                f"({os.strerror(error.errno)}); free some and run again (what is done is kept)"
            ) from None
        return video, f"cannot be copied ({error.strerror}); replace the file, or remove it"
