"""The cost of the experiments: GPU hours and disk, by table and stage. It only does arithmetic.

A training step counts as three forward passes, or as one with a frozen encoder, and a multiply-add
as two FLOPs. Only matrix products count, and reading videos takes no time. An epoch has whole
batches.
"""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from mgm.results.plan import RunPlan
from mgm.spec import Data, Finetune, Pretrain, Probe, Published, Spec
from mgm.spec.compute import multiply_adds, parameters, passes

# Bytes per parameter: of weights, and of a checkpoint with AdamW's two moments. Two checkpoints are
# kept while a third one is written.
WEIGHTS, CHECKPOINTS = 4, 3 * 12


class Cost(NamedTuple):
    """The FLOPs of a run, and the parameters that it trains."""

    flops: float = 0.0
    parameters: int = 0


def cost(spec: Spec, videos: Published) -> Cost:
    """Return the cost of a run on a dataset of this size."""
    if not isinstance(spec, Pretrain | Finetune | Probe):
        return Cost()
    forward = 2.0 * multiply_adds(spec, videos.classes if isinstance(spec, Finetune) else 0)
    tested = 0
    if not isinstance(spec, Pretrain):
        tested = videos.test * spec.views.temporal * spec.views.spatial
    if isinstance(spec, Probe):
        return Cost((spec.train_clips * videos.train + tested) * forward)
    steps = spec.optim.steps or spec.optim.epochs * (videos.train // spec.optim.batch)
    trained = steps * spec.optim.batch
    trained *= spec.augment.repeats if isinstance(spec, Finetune) else spec.repeats
    return Cost((passes(spec) * trained + tested) * forward, parameters(spec, videos.classes))


def costs(plan: RunPlan, videos_of: Callable[[Data], Published], flops: float) -> pd.DataFrame:
    """Return the GPU hours of each stage and the GB on disk of each target.

    A target counts all runs that it needs. The last row, "all", counts shared runs once.

    Args:
        videos_of: returns the size of a run's dataset.
        flops: FLOP/s that a GPU reaches in training.
    """
    costs = {run_id: cost(spec, videos_of(spec.data)) for run_id, spec in plan.specs.items()}
    rows = {}
    for target in sorted(plan.targets, key=lambda name: name == "all"):
        specs = plan.runs_of(target)
        sizes = [costs[spec.run_id].parameters for spec in specs]
        row: dict[str, float] = {"runs": len(specs)}
        for stage in ("pretrain", "finetune", "probe"):
            total = sum(costs[spec.run_id].flops for spec in specs if spec.stage == stage)
            row[f"{stage} h"] = total / flops / 3600
        row["GPU h"] = sum(row[f"{stage} h"] for stage in ("pretrain", "finetune", "probe"))
        row["GB"] = (WEIGHTS * sum(sizes) + CHECKPOINTS * max(sizes, default=0)) / 1e9
        rows[target] = row
    return pd.DataFrame.from_dict(rows, orient="index")
