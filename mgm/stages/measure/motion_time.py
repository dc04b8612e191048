"""Compare the time per video of reading motion vectors and of computing optical flow.

Source: paper, section 4.5: 80 ms vs 2.5 s on SSv2.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch

from mgm.data.index import Video
from mgm.spec import Flow, Measure
from mgm.stages.job import Job
from mgm.stages.measure import choose
from mgm.video.optical_flow import Estimate, estimator, motions, raft_weights
from mgm.video.vectors import read_vectors


def motion_time(videos: Sequence[Video], flow: Flow, weights: Path | None = None) -> dict[str, Any]:
    """Measure the time for motion vectors and for optical flow of whole videos, on one thread.

    RAFT runs on a GPU if there is one.

    Args:
        videos: the videos. The first is measured once more before, to warm up libraries.
        flow: the method to compare with.
        weights: RAFT's weights. None: torchvision's own.

    Returns:
        vectors_ms, flow_ms: means over the videos; ratio: flow / vectors; frames: mean number of
            frames; videos: number of videos.
    """
    estimate = estimator(
        flow, raft_weights(flow, weights), "cuda" if torch.cuda.is_available() else "cpu"
    )
    with _one_thread():
        _, *times = [_milliseconds(video.path, estimate) for video in (videos[0], *videos)]
    vectors_ms, flow_ms = (sum(each) / len(videos) for each in zip(*times))
    frames = sum(video.frames for video in videos) / len(videos)
    return {
        "vectors_ms": vectors_ms,
        "flow_ms": flow_ms,
        "ratio": flow_ms / vectors_ms,
        "frames": frames,
        "videos": len(videos),
    }


def _milliseconds(path: str, estimate: Estimate) -> tuple[float, float]:
    # Read the file into the system's cache, so that neither waits for the disk.
    Path(path).read_bytes()
    start = time.perf_counter()
    read_vectors(path)
    between = time.perf_counter()
    for _ in motions(path, estimate):
        pass
    return 1000 * (between - start), 1000 * (time.perf_counter() - between)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def measure(job: Job[Measure]) -> dict[str, Any]:
    return motion_time(
        choose(job.index, job.spec.videos), job.spec.flow, job.workplace.flow_weights
    )
