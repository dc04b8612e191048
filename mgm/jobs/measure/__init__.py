"""`mgm measure`: numbers that the papers state in their text, and one that explains the masks. Each has a file here.

saliency      motion inside boxes over motion outside (paper, section 1)
motion-time   reading motion vectors against computing optical flow (paper, section 4.5)
step-time     a pretraining step that hides most tokens against one whose encoder sees all (ST-MAE's abstract)
coverage      how much of what moves each mask hides (ours)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mgm.datasets.index import Index, Video, read_index
from mgm.errors import UserError
from mgm.experiments.recipes import DECODERS, MODELS, PRETRAIN_CLIPS
from mgm.jobs.data import Job
from mgm.jobs.measure.coverage import coverage, describe_coverage
from mgm.jobs.measure.motion_time import describe_motion_time, motion_time
from mgm.jobs.measure.saliency import describe_saliency, saliency
from mgm.jobs.measure.step_time import describe_step_time, step_time
from mgm.spec import Data, Measure, parse


def measure(job: Job[Measure]) -> dict[str, Any]:
    """Return the metrics of the measurement `job.spec.name`; coverage writes arrays.npz too."""
    spec, index = job.spec, job.index
    if spec.name == "step-time":
        return step_time(spec)
    videos = choose(index, spec.videos)
    if spec.name == "saliency":
        return saliency(index, job.execution.data[spec.data.dataset], videos)
    if spec.name == "motion-time":
        return motion_time(videos, spec.flow, job.execution.flow_weights)
    metrics, arrays = coverage(spec, videos, workers=job.execution.workers, cache=job.execution.cache)
    np.savez_compressed(job.folder / "arrays.npz", **arrays)
    return metrics


def measure_now(name: str, place: Path | None, videos: int, flow: str, weights: Path | None) -> str:
    """What measurement `name` finds at the paper's settings, in a few lines of text; writes nothing.

    Args:
        place: folder of a dataset's index; step-time needs none.
        videos: of the test split, evenly spaced; 0: all.
        flow, weights: what motion-time compares with, and RAFT's weights, torchvision's own where None.

    Raises:
        UserError: a place is needed, or what is there cannot be measured.
    """
    paper = {"clips": PRETRAIN_CLIPS["ssv2"], "model": MODELS["vit-b"], "decoder": DECODERS["vit-b"]}
    spec = parse({"verb": "measure", "data": Data(dataset="folder"), "name": name, "flow": flow, "videos": videos, **paper}, "mgm measure")
    assert isinstance(spec, Measure)
    if name == "step-time":
        return describe_step_time(spec, step_time(spec))
    if place is None:
        raise UserError(f"{name} is measured on videos; pass --index FOLDER, one that `mgm prepare` made")
    index = read_index(place)
    chosen = choose(index, spec.videos)
    if name == "saliency":
        return describe_saliency(saliency(index, place, chosen))
    if name == "motion-time":
        return describe_motion_time(spec.flow, motion_time(chosen, spec.flow, weights))
    return describe_coverage(*coverage(spec, chosen))


def choose(index: Index, videos: int) -> Sequence[Video]:
    """So many test videos that have motion vectors, evenly spaced; all of them where there are fewer, or for 0.

    Raises:
        UserError: none has.
    """
    moving = [video for video in index.test if video.has_vectors]
    if not moving:
        raise UserError(
            f"{index.root}: none of the {len(index.test)} test videos has motion vectors; "
            "re-encode them to H.264 (ffmpeg -i IN -c:v libx264 OUT.mp4)"
        )
    count = min(videos or len(moving), len(moving))
    return [moving[position * len(moving) // count] for position in range(count)]
