"""`mgm prepare DATASET --copy mp4`: one file per video from which clips are read fast.

    OUT/source/                 the index of the sources
    OUT/copies.json             the copies' settings. Written first. It shows that mgm made
                                OUT/videos
    OUT/videos/NAME.mp4         the copies, with the sources' names (`mgm.data.transcode`)
    OUT/tracks/                 their tracks, with the motion vectors of the sources. A source whose
                                codec has none gets those of its copy
    OUT/index.csv, index.json   the index of the copies, with the sources' labels, splits and
                                groups. index.json is written last

A source is decoded once for its copy and its track. They are kept if they are whole and of this
source (`mgm.data.tracks.is_of`). They are written under hidden names and then renamed, so a killed
process or a full disk leaves no incomplete file.
"""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from mgm.console import track
from mgm.data.index import Index, Video, inside, new_index, read_index, write_index
from mgm.data.opening import GONE, disk_full, fault, in_processes, open_all
from mgm.data.tracks import THREADS, are_copies, current, is_of, track_fault
from mgm.errors import NoMotion, UserError
from mgm.reading import file_digest, read_json
from mgm.results.atomic import atomic_write, remove_parts, write
from mgm.spec import Method
from mgm.video.track import AGAIN, track_path

OLDER = f"is not a copy of its source as it is now; {AGAIN}"


def copy_videos(source: Index, out: Path, short_side: int = 256, processes: int = 1) -> Index:
    """Copy the videos of `source`, and write the index of the copies to folder `out`.

    A video that cannot be copied is listed among the excluded ones. The next call tries it again.
    """
    out = Path(os.path.abspath(out))
    _claim(out, {"copy": "mp4", "short_side": short_side})
    root, target_of, checked = out / "videos", _targets(source), out / "checked.jsonl"
    there = [target for target in target_of.values() if (root / target).is_file()]
    known, _ = open_all(root, there, checked)

    def copies_of(infos: dict[str, Video]) -> dict[Video, Video]:
        """Return {source: its copy as the index describes it}."""
        of_source = dict[Video, Video]()
        for video, target in target_of.items():
            if info := infos.get(target):
                # Boxes are drawn in the pixels of the vectors.
                own = video if video.has_vectors else info
                of_source[video] = replace(
                    info,
                    label=video.label,
                    split=video.split,
                    group=video.group,
                    width=own.width,
                    height=own.height,
                    track=str(out / "tracks" / target),
                )
        return of_source

    copy_of = copies_of(known)
    with ThreadPoolExecutor(THREADS) as pool:
        kept = pool.map(lambda video: _current(video, copy_of.get(video)), source.videos)
        todo = [video for video, whole in zip(source.videos, kept) if not whole]
    if todo:
        # The old index does not match the new copies.
        (out / "index.json").unlink(missing_ok=True)
    tasks = [
        (video, root / target_of[video], str(out / "tracks" / target_of[video])) for video in todo
    ]
    done = track(in_processes(partial(_copy, short_side), tasks, processes), "copying", len(tasks))
    failed = sorted((source.name(video), reason) for video, reason in done if reason)
    for place in (root, out / "tracks"):
        for folder in {(place / target).parent for target in target_of.values()}:
            if folder.is_dir():
                remove_parts(folder)
    lost = dict(failed)
    targets = [target_of[own] for own in source.videos if source.name(own) not in lost]
    infos, unreadable = open_all(root, targets, checked)
    note = f"{source.note}; mp4 copies of index {source.digest} (short side at most {short_side})"
    copies = list(copies_of(infos).values())
    index = new_index(root, source.classes, copies, [*source.excluded, *failed, *unreadable], note)
    write_index(index, out)
    return index


def older_copies(index: Index) -> Iterator[tuple[str, str]]:
    """Yield (path, reason) of each copy of an index whose source has changed since.

    Sources that are gone, or an index that has no copies, yield nothing.
    """
    out = index.root.parent
    if not (are_copies(index) and (out / "source" / "index.json").is_file()):
        return
    known, root = {video.path: video for video in index.videos}, index.root
    source = _targets(read_index(out / "source")).items()
    pairs = [(known[path], own) for own, name in source if (path := str(root / name)) in known]
    with ThreadPoolExecutor(THREADS) as pool:
        for (copy, _), older in zip(pairs, pool.map(_older, pairs)):
            if older:
                yield copy.path, OLDER


def check_files(folder: Path, index: Index, method: Method | None = None) -> None:
    """Check that an index's files are those that were indexed. A run begins with it.

    Videos are compared by size, and copies with their sources.

    Args:
        folder: of the index.
        method: of the tracks that the training videos must have, made from the videos as they are
            now. None: no tracks.
    """
    with ThreadPoolExecutor(THREADS) as pool:
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
    if not method:
        return
    with ThreadPoolExecutor(THREADS) as pool:
        others = [wrong for wrong in pool.map(partial(track_fault, method), index.train) if wrong]
    if others:
        again = f"run `mgm track {folder} --method {method}`"
        if method == "codec" and are_copies(index):
            again = AGAIN
        raise NoMotion(
            f"{others[0]} ({len(others)} of {len(index.train)} training videos), but the mask "
            f"follows it; {again}"
        )


def _current(video: Video, copy: Video | None) -> bool:
    """Return whether a copy and its track are whole, and of this video as it is now."""
    whole = copy and copy.frames == video.frames and current(copy, "codec")
    return bool(copy and whole and not _older((copy, video)))


def _older(pair: tuple[Video, Video]) -> bool:
    """Return whether the source of a copy has changed since, if it is there."""
    copy, source = pair
    return os.path.exists(source.path) and not is_of(copy, "codec", source.path, "source")


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


def _targets(source: Index) -> dict[Video, str]:
    """Return the path of each source's copy below OUT/videos.

    A name keeps its suffix if two sources differ only in it.
    """
    targets, taken = dict[Video, str](), set[str]()
    for video in sorted(source.videos, key=source.name):
        name = PurePosixPath(inside(source.name(video)))
        target = str(name.with_suffix(".mp4"))
        targets[video] = target = f"{name}.mp4" if target in taken else target
        taken.add(target)
    return targets


def _copy(short_side: int, task: tuple[Video, Path, str]) -> tuple[Video, str]:
    """Write a video's copy, then its track.

    Args:
        task: the video, the copy's path, and the copy's `Video.track`.

    Returns:
        The video, and why it cannot be copied; empty on success.
    """
    import av

    from mgm.data.transcode import encode
    from mgm.video.vectors import write_track

    video, target, track = task
    path = Path(track_path(track, "codec"))
    try:
        if change := fault(video):
            raise UserError(f"{change}; run `mgm prepare` again")
        with atomic_write(path) as temporary, temporary.open("wb") as vectors:
            with atomic_write(target) as copy:
                encode(video, copy, short_side, vectors)
            if not video.has_vectors:
                vectors.seek(0)
                vectors.truncate()
                write_track(target, vectors, source=file_digest(Path(video.path)))
        return video, ""
    except UserError as error:
        return video, str(error).removeprefix(f"{video.path}: ")
    except (OSError, av.FFmpegError) as error:
        if full := disk_full(error, target, video):
            raise full from None
        return video, f"cannot be copied ({error.strerror}); replace the file, or remove it"
