"""`mgm measure`: numbers that the papers state in their text, and one that explains the masks. Each has a module here, named as it is, with

    measure(job) -> metrics, arrays                its numbers, and what arrays.npz keeps
    describe(spec, metrics, arrays) -> str         the same in some lines

saliency      motion inside boxes over motion outside (paper, section 1)
motion-time   reading motion vectors against computing optical flow (paper, section 4.5)
step-time     a pretraining step that hides most tokens against one whose encoder sees all (ST-MAE's abstract)
coverage      how much of what moves each mask hides (ours)
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mgm.datasets.index import Index, Video, read_index
from mgm.errors import UserError
from mgm.experiments.recipes import DECODERS, MODELS, PRETRAIN_CLIPS
from mgm.jobs.data import Execution, Job, moving_videos
from mgm.jobs.inspect import spread
from mgm.spec import Data, Measure, parse

WITHOUT_VIDEOS = ("step-time",)


def measure(job: Job[Measure]) -> dict[str, Any]:
    """Return the metrics of the measurement `job.spec.name`; write its arrays, if it has any."""
    metrics, arrays = _module(job.spec.name).measure(job)
    if arrays:
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
    if place is None and name not in WITHOUT_VIDEOS:
        raise UserError(f"{name} is measured on videos; pass --index FOLDER, one that `mgm prepare` made")
    places = {"folder": place} if place else {}
    index = read_index(place) if place else Index(Path(), (), (), (), "", "")
    job = Job(spec, Path(), Execution(Path(), places, flow_weights=weights), index)
    return _module(name).describe(spec, *_module(name).measure(job))


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name.replace('-', '_')}")


def choose(index: Index, videos: int) -> Sequence[Video]:
    """Choose so many of the `moving_videos`, evenly spaced; all of them where there are fewer, or for 0."""
    moving = moving_videos(index)
    return spread(moving, videos or len(moving))
