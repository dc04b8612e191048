"""`mgm measure`: numbers from the papers, and some that explain the masks' results.

Each has a module of its name here. The module's `measure(job)` returns {name: number}, and may
write arrays.npz to the job's folder.

- saliency: motion inside boxes / motion outside (paper, section 1)
- motion-time: time to read motion vectors vs to compute optical flow (paper, section 4.5)
- step-time: time of a pretraining step that hides most tokens vs none (ST-MAE's abstract)
- coverage: the share of moving pixels that each mask hides (ours)
- cover: the share of generated movers' pixels that a mask hides (ours)
- visible: the shares of texture and of motion that a mask leaves visible (ours)
- explained: the share of the trivial loss that a model explains, moving and static (ours)
- controls: accuracy of a linear probe without a trained model (ours)
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mgm.data.index import Index, Video, read_index
from mgm.errors import UserError, valid
from mgm.spec import Data, Measure
from mgm.stages.inspect import spread
from mgm.stages.job import Job, Workplace, moving_videos
from mgm.study.recipes import DECODERS, MODELS, PRETRAIN_CLIPS

WITHOUT_VIDEOS = ("step-time",)


def measure(job: Job[Measure]) -> dict[str, Any]:
    """Return the metrics of the measurement `job.spec.name`."""
    return import_module(f"{__name__}.{job.spec.name.replace('-', '_')}").measure(job)


def measure_now(
    name: str,
    place: Path | None,
    videos: int,
    flow: str,
    weights: Path | None,
    like: Path | None = None,
) -> str:
    """Measure `name` at the paper's settings, without writing a result.

    Args:
        place: folder of a dataset's index. step-time needs none.
        videos: number of test videos, evenly spaced. 0: all.
        flow: the method that motion-time compares with.
        weights: RAFT's weights. None: torchvision's own.
        like: explained: the folder of the pretraining run.

    Returns:
        Text: a number per line, then a table.
    """
    with valid("mgm measure: "):
        spec = Measure(
            data=Data(dataset="folder"),
            name=name,  # type: ignore[arg-type]
            flow=flow,  # type: ignore[arg-type]
            videos=videos,
            clips=PRETRAIN_CLIPS["ssv2"],
            model=MODELS["vit-b"],
            decoder=DECODERS["vit-b"],
        )
    if name == "explained":
        if like is None:
            raise UserError("explained: has no model; add --like RUN, a pretraining run's folder")
        from mgm.stages.measure.explained import spec_of

        spec = spec_of(like, videos)
    if place is None and name not in WITHOUT_VIDEOS:
        raise UserError(
            f"{name} is measured on videos; pass --index FOLDER, one that `mgm prepare` made"
        )
    index = read_index(place) if place else Index(Path(), (), (), (), "", "")
    data = {spec.data.dataset: place} if place else {}
    workplace = Workplace(like.parent if like else Path(), data, flow_weights=weights)
    with TemporaryDirectory() as scratch:
        metrics = measure(Job(spec, Path(scratch), workplace, index))
        arrays = dict(np.load(file)) if (file := Path(scratch, "arrays.npz")).exists() else {}
    lines = [f"{name:<24}{value:.4g}" for name, value in metrics.items()]
    if columns := {
        name.removesuffix("_N"): array_N for name, array_N in arrays.items() if name.endswith("_N")
    }:
        # An optional package, which no measurement without such arrays needs.
        import pandas as pd

        lines += ["", pd.DataFrame(columns).to_string(index=False, float_format="%.2f")]
    return "\n".join(lines)


def choose(index: Index, videos: int) -> Sequence[Video]:
    """Return at most `videos` of the `moving_videos`, evenly spaced. 0: all of them."""
    moving = moving_videos(index)
    return spread(moving, videos or len(moving))
