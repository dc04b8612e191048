"""`mgm measure`: numbers from the papers, and some that explain the masks' results.

Each has a module of its name here. The module's `measure(job)` returns {name: number}, and may
write arrays.npz to the job's folder.

- saliency: motion inside boxes / motion outside (paper, section 1)
- coverage: the share of moving pixels that each mask hides (ours)
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

from mgm.data.index import Index, Video, read_index, spread
from mgm.errors import UserError
from mgm.spec import Data, Measure
from mgm.stages.job import Job, Workplace, moving_videos
from mgm.study.recipes import MODELS, RECIPES


def measure(job: Job[Measure]) -> dict[str, Any]:
    """Return the metrics of the measurement `job.spec.name`."""
    return import_module(f"{__name__}.{job.spec.name.replace('-', '_')}").measure(job)


def measure_now(name: str, folder: Path, videos: int, like: Path | None = None) -> str:
    """Measure `name` at the paper's settings, without writing a result.

    Args:
        folder: of the dataset's index.
        videos: number of test videos, evenly spaced. 0: all.
        like: explained: the folder of the pretraining run.

    Returns:
        Text: a number per line, then a table.
    """
    if name != "explained":
        spec = Measure(
            data=Data(dataset="folder"),
            name=name,  # type: ignore[arg-type]
            videos=videos,
            clips=RECIPES["ssv2"].pretrain_clips,
            model=MODELS["vit-b"],
        )
    elif like:
        from mgm.stages.measure.explained import spec_of

        spec = spec_of(like, videos)
    else:
        raise UserError("explained: has no model; add --like RUN, a pretraining run's folder")
    index = read_index(folder)
    workplace = Workplace(like.parent if like else Path(), {spec.data.dataset: folder})
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
