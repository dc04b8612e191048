"""Write and check the tracks of an index's videos (`mgm.video.track`).

    INDEX_DIR/tracks/NAME.METHOD.track    NAME is the video's path below the root of the index
    INDEX_DIR/tracks-METHOD.json          the marker, written when all videos have their tracks

A track is kept if it is whole, and of its video as it is now (`is_of`). A track is written under a
hidden name and then renamed, so a killed process leaves no incomplete one.

torch is only imported for RAFT.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from mgm.console import track as progress
from mgm.data.index import Index, Video, read_index
from mgm.data.opening import disk_full, in_processes
from mgm.errors import UserError
from mgm.reading import file_digest
from mgm.results.atomic import atomic_write, remove_parts, write
from mgm.results.lock import folder_lock
from mgm.spec import Method
from mgm.video.track import AGAIN, Track, track_path

THREADS = 32  # that look at files. A shared file system answers many requests at a time


def write_tracks(
    folder: Path, method: Method = "codec", weights: Path | None = None, processes: int = 1
) -> dict[str, Any]:
    """Write the missing tracks of an index's videos, then the marker.

    Args:
        folder: the folder of an index.
        weights: RAFT-small's weights. None: torchvision's own.
        processes: number of processes, with one thread each.

    Returns:
        The marker: method, weights (their SHA-256, empty but for RAFT), digest of the index and
        number of videos.

    Raises:
        UserError: a video cannot be read. The others are done first.
    """
    index, digest = read_index(folder), ""
    if method != "codec":
        from mgm.video.optical_flow import raft_weights

        weights = raft_weights(method, weights)
        _estimate(method, weights)
        digest = file_digest(weights) if weights else ""
    with folder_lock(folder):
        todo = missing_tracks(index, method, digest)
        failures = make_tracks(index, todo, method, weights, digest, processes)
    if failures:
        name, reason = failures[0]
        raise UserError(
            f"{index.root / name}: {reason} ({len(failures)} of {len(index.videos)} videos failed; "
            "the others are done)"
        )
    marker = {
        "method": method,
        "weights": digest,
        "digest": index.digest,
        "videos": len(index.videos),
    }
    write(marker_of(folder, method), json.dumps(marker, indent=1) + "\n")
    return marker


def marker_of(folder: Path, method: Method) -> Path:
    """Return the path of the marker."""
    return folder / f"tracks-{method}.json"


def missing_tracks(index: Index, method: Method = "codec", digest: str = "") -> list[Video]:
    """Return the videos whose track is missing, or not of its video as it is now.

    Args:
        index: as `read_index` returns it.
        digest: of RAFT's weights.

    Raises:
        UserError: a track was made with other weights, or a copy has none: its vectors are those of
            its source.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        known = list(pool.map(partial(current, method=method), index.videos))
    if others := [track for track in known if track and track.facts.weights != digest]:
        raise UserError(
            f"{others[0].path}: was made with weights {others[0].facts.weights[:12]}, and now they "
            f"are {digest[:12]}; pass the former, or delete the tracks of method {method}"
        )
    missing = [video for video, track in zip(index.videos, known) if track is None]
    if missing and method == "codec" and are_copies(index):
        raise UserError(
            f"{missing[0].path}: is a copy without a track of its own ({len(missing)} of "
            f"{len(known)}), and has not its source's vectors; {AGAIN}"
        )
    return missing


def make_tracks(
    index: Index,
    videos: list[Video],
    method: Method = "codec",
    weights: Path | None = None,
    digest: str = "",
    processes: int = 1,
) -> list[tuple[str, str]]:
    """Write the tracks of some videos of an index.

    Returns:
        (name, reason) of the videos that cannot be read.
    """
    for folder in {os.path.dirname(video.track) for video in videos}:
        if os.path.isdir(folder):
            remove_parts(Path(folder))
    done = in_processes(partial(_write, method, weights, digest), videos, processes)
    title = f"writing {method} tracks"
    results = progress(done, title, len(videos)) if len(videos) > processes else done
    return sorted((index.name(video), reason) for video, reason in results if reason)


def current(video: Video, method: Method) -> Track | None:
    """Return a video's track if it is whole, and of this video as it is now."""
    from mgm.video.read import open_track

    with suppress(UserError, OSError):
        if is_of(video, method, video.path):
            return open_track(video, method)
    return None


def is_of(video: Video, method: Method, file: str, fact: str = "digest") -> bool:
    """Return whether a video's track was made from a file as it is now.

    It was if it is newer, as with make. Copying files changes their times, so an older track is
    compared by content. Then it gets the file's time, so that this is done once.

    Args:
        file: the video itself, or what it is a copy of.
        fact: the field of `Facts` that has the file's SHA-256.
    """
    path, changed = track_path(video.track, method), os.stat(file).st_mtime_ns
    if os.stat(path).st_mtime_ns >= changed:
        return True
    if getattr(Track(path).facts, fact) != file_digest(Path(file)):
        return False
    with suppress(OSError):
        os.utime(path, ns=(changed, changed))
    return True


def are_copies(index: Index) -> bool:
    """Return whether videos are copies, whose vectors are those of their sources."""
    return (index.root.parent / "copies.json").is_file()


def has_track(video: Video, method: Method = "codec") -> bool:
    """Return whether a video has a track."""
    return bool(video.track) and os.path.exists(track_path(video.track, method))


def track_fault(method: Any, video: Video) -> str:
    """Return what is wrong with a video's track; empty if it is of the video as it is now."""
    path = track_path(video.track, method)
    if not has_track(video, method):
        return f"{path}: no such file"
    return "" if is_of(video, method, video.path) else f"{path}: is not of its video as it is now"


def _write(method: Method, weights: Path | None, digest: str, video: Video) -> tuple[Video, str]:
    """Write a video's track.

    Returns:
        The video, and why it has no track; empty on success.
    """
    try:
        write_track(video, method, weights, digest)
        return video, ""
    except UserError as error:
        return video, str(error).removeprefix(f"{video.path}: ")
    except OSError as error:
        if full := disk_full(error, Path(video.track), video):
            raise full from None
        return video, f"its track cannot be written ({error.strerror})"


def write_track(
    video: Video, method: Method = "codec", weights: Path | None = None, digest: str = ""
) -> None:
    """Write a video's track in one step. Arguments are as for `make_tracks`."""
    from mgm.video.optical_flow import write_flow
    from mgm.video.vectors import write_track as write_codec

    target = Path(track_path(video.track, method))
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        if method == "codec":
            write_codec(video.path, file, video.frames)
        else:
            write_flow(video, file, method, _estimate(method, weights), digest)


@cache
def _estimate(method: Any, weights: Path | None) -> Any:
    """Return this process's estimator, on one CPU thread or on a GPU."""
    import cv2

    from mgm.video.optical_flow import estimator

    cv2.setNumThreads(1)
    device = "cpu"
    if weights:
        # DIS needs no torch, and each worker process would import it.
        import torch

        torch.set_num_threads(1)
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return estimator(method, weights, device)
