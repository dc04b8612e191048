"""`mgm flow`: write the optical flow of an index's videos next to them.

`mgm.video.optical_flow` computes it.

    INDEX_DIR/flow-METHOD.weights.json   the digest of RAFT's weights. Written first and kept, so
                                         that all videos have flow of the same weights
    INDEX_DIR/flow-METHOD.json           the marker. Written last, when all videos have flow.
                                         Snakemake may delete it

torch is only imported for RAFT.
"""

import json
import os
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2

from mgm.console import show, track
from mgm.data.index import Index, Video, read_index
from mgm.data.opening import in_processes
from mgm.errors import UserError
from mgm.reading import file_digest, read_json
from mgm.results import atomic
from mgm.results.lock import folder_lock
from mgm.results.result import versions
from mgm.spec import Flow
from mgm.video.motion import cells
from mgm.video.optical_flow import (
    Estimate,
    NoFlow,
    estimator,
    open_flow,
    raft_weights,
    sidecar,
    write_flow,
)


def flow(
    folder: Path, method: Flow, weights: Path | None = None, processes: int = 1
) -> dict[str, Any]:
    """Write the missing sidecars of an index's videos, then the marker.

    Args:
        folder: the folder of an index.
        method: "dis" or "raft-small".
        weights: RAFT-small's weights. None: torchvision's own.
        processes: number of processes that estimate, with one thread each.

    Returns:
        The marker: method, weights (their SHA-256, None for DIS), digest of the index, number of
            videos, versions, seconds.
    """
    index = read_index(folder)
    weights = raft_weights(method, weights)
    _estimate(method, weights)
    digest = file_digest(weights) if weights else None
    marker = {"method": method, "weights": digest}
    if earlier := _finished(folder, index, marker):
        return earlier
    with folder_lock(folder):
        return _finished(folder, index, marker) or _complete(
            folder, index, marker, weights, processes
        )


def _finished(folder: Path, index: Index, marker: dict[str, Any]) -> dict[str, Any] | None:
    """Return the marker of an earlier call if all sidecars exist."""
    method, now = marker["method"], marker["weights"]
    for path in (_weights_of(folder, method), marker_of(folder, method)):
        earlier = read_json(path, dict[str, Any], "delete it") if path.exists() else marker
        if (then := earlier.get("weights")) != now:
            raise UserError(
                f"{path}: the flow of these videos was made with weights {str(then)[:12]}, and now "
                f"they are {str(now)[:12]}; pass the former, or delete "
                f"{folder}/flow-{method}*.json and all *.{method}.npy next to the videos"
            )
    if earlier.get("digest") != index.digest:
        return None
    if not all(is_whole(video, method) for video in index.videos):
        return None
    show(f"flow {method}: all {len(index.videos)} videos are done already")
    return earlier


def _complete(
    folder: Path, index: Index, marker: dict[str, Any], weights: Path | None, processes: int
) -> dict[str, Any]:
    started, method = time.monotonic(), marker["method"]
    missing = [video for video in index.videos if not is_whole(video, method)]
    atomic.write(_weights_of(folder, method), json.dumps(marker) + "\n")
    marker_of(folder, method).unlink(missing_ok=True)
    written = in_processes(partial(_write, method, weights), missing, processes)
    failures = [error for error in track(written, f"flow {method}", len(missing)) if error]
    if failures:
        raise UserError(
            f"{failures[0]} ({len(failures)} of {len(missing)} videos failed; the others are done)"
        )
    packages = ["torch", "torchvision"] if weights else ["opencv-python-headless"]
    finished = marker | {
        "digest": index.digest,
        "videos": len(index.videos),
        "computed": len(missing),
        "seconds": round(time.monotonic() - started, 3),
        "processes": processes,
        "versions": versions("av", "numpy", *packages),
    }
    atomic.write(marker_of(folder, method), json.dumps(finished, indent=1) + "\n")
    return finished


def require_flow(folder: Path, videos: Sequence[Video], method: Flow) -> dict[str, Any]:
    """Check that these videos have sidecars, and return the marker in the index's folder.

    Raises:
        NoFlow: a video has none, or `flow` has not finished. The message has the command to run.
    """
    command = f"run `mgm flow {folder} --method {method}`"
    without = [video for video in videos if not os.path.exists(sidecar(video.path, method))]
    if without:
        first = sidecar(without[0].path, method)
        raise NoFlow(
            f"{first}: no such file ({len(without)} of {len(videos)} videos have no flow), but "
            f"guidance {method} needs it; {command}"
        )
    marker = marker_of(folder, method)
    if not marker.exists():
        raise NoFlow(
            f"{marker}: no such file, so the flow of these videos is not complete; {command}"
        )
    return read_json(marker, dict[str, Any], command)


def marker_of(folder: Path, method: Flow) -> Path:
    """Return the path of the marker, which exists once all videos have sidecars."""
    return folder / f"flow-{method}.json"


def _weights_of(folder: Path, method: Flow) -> Path:
    return folder / f"flow-{method}.weights.json"


def is_whole(video: Video, method: Flow) -> bool:
    """Return whether a video's sidecar exists and has the video's frames and size."""
    try:
        open_flow(video.path, method, _shape(video))
    except NoFlow:
        return False
    return True


def _shape(video: Video) -> tuple[int, int, int]:
    return video.frames, cells(video.height), cells(video.width)


@cache
def _estimate(method: Flow, weights: Path | None) -> Estimate:
    """Return this process's estimator, on one CPU thread or on a GPU."""
    cv2.setNumThreads(1)
    device = "cpu"
    if weights:
        # DIS needs no torch, and each worker process would import it.
        import torch

        torch.set_num_threads(1)
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return estimator(method, weights, device)


def _write(method: Flow, weights: Path | None, video: Video) -> str | None:
    """Write one sidecar. Return what is wrong with the video, or None."""
    try:
        write_flow(video.path, method, _estimate(method, weights), _shape(video))
    except UserError as error:
        return str(error)
    return None
