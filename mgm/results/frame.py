"""Results as one pandas table: the plan, joined with the runs' files."""

from collections.abc import Mapping
from math import isfinite, nan
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.results.plan import Cell, RunPlan, read_plan
from mgm.results.result import RunStatus, examine
from mgm.spec import Finetune, Measure, Pretrain, Spec, parents

# What a run's own fields are called in the frame.
WORDS = ("mask", "guidance", "backbone")
NUMBERS = ("ratio", "epochs", "steps", "size")
# What a run's result says of its videos and of what was learnt.
FACTS = ("classes", "train", "test", "groups", "chance", "failed", "learnt", "lead")


def read_frame(results: Path) -> pd.DataFrame:
    """Read every number that a folder of results wants, one row per number.

    It reads the plan and the runs' files, and expands no study. `frame_of` is its second half, for
    what has the plan and the statuses already.

    Columns:
        study, dataset, title, row, column, stage, metric, run_id, pretraining: as in
            `mgm.results.plan.Cell`.
        dataset_seed: -1 for a dataset that is not drawn. seed. control: a number without a model.
        views: keys, joined by spaces.
        mask, guidance, backbone: of the run's pretraining, or of the run itself (`own_fields`).
        ratio, epochs, steps, size: numbers of the same; NaN without pretraining.
        value: the number; NaN unless the state is finished.
        state: finished, altered, failed, running or not run.
        why: what is wrong, in every state except finished.
        commit: as in `git describe --dirty`; empty if not finished. dirty: whether its tree was.
        classes, train, test, groups: counts of classes, of videos, and of groups of test videos.
        chance: the chance accuracy (%), measured by controls. failed: videos that were not read.
        learnt: what the run's pretraining explains of its loss (%).
        lead: what a measured model explains minus what the mean of the visible neighbours does.
        about: notes on the data.

    A control that cannot be measured on a dataset, such as the duration of videos that are equally
    long, has no row once its run is finished. Pictures are no numbers: they have no row.
    """
    plan = read_plan(results)
    return frame_of(plan, examine_all(results, plan.specs))


def frame_of(plan: RunPlan, statuses: Mapping[str, RunStatus]) -> pd.DataFrame:
    """Return a plan's numbers, joined with the statuses of its runs (`read_frame`)."""
    own = {run_id: own_fields(spec, plan.specs) for run_id, spec in plan.specs.items()}
    rows = []
    for cell in plan.cells:
        if cell.metric and (row := _row(cell, statuses[cell.run_id])):
            start = statuses.get(cell.pretraining, RunStatus("not run")).result or {}
            learnt = start.get("metrics", {}).get("explained")
            rows.append(row | own[cell.run_id] | {"learnt": learnt})
    return pd.DataFrame(rows).astype(dict.fromkeys(("value", *NUMBERS, *FACTS), "float64"))


def own_fields(spec: Spec, specs: Mapping[str, Spec]) -> dict[str, Any]:
    """Return what a reader compares runs by: of the pretraining, or of a measured mask."""
    fields = dict.fromkeys(WORDS, "") | dict.fromkeys(NUMBERS, nan)
    start: Spec | None = pretraining_of(spec, specs)
    fields |= {"backbone": spec.model.backbone}
    if isinstance(spec, Measure) and spec.name == "visible":
        start = spec
    if isinstance(start, Pretrain | Measure):
        fields |= {"mask": start.mask.name, "guidance": start.mask.guidance}
        fields |= {"ratio": start.mask.ratio, "size": start.clips.size}
    if isinstance(start, Pretrain):
        fields |= {"epochs": start.optim.epochs, "steps": start.optim.steps}
    return fields


def _row(cell: Cell, status: RunStatus) -> dict[str, Any] | None:
    result: Mapping[str, Any] = status.result or {}
    value, state, why = result.get("metrics", {}).get(cell.metric), status.state, status.why
    if result and cell.control and value is None:
        return None
    if result and not (isinstance(value, int | float) and isfinite(value)):
        state, why = "altered", f"{cell.run_id}: metrics.{cell.metric} is {str(value)[:40]}"
        value = nan
    data, metrics = result.get("data", {}), result.get("metrics", {})
    lead = metrics["explained"] - metrics["neighbours"] if "neighbours" in metrics else nan
    return {
        **cell._asdict(),
        "views": " ".join(cell.views),
        "value": value,
        "state": state,
        "why": why,
        "commit": commit_of(result) if result else "",
        "dirty": bool(result.get("dirty")),
        **{name: data.get(name) for name in ("classes", "train", "test")},
        "groups": data.get("groups", data.get("test")),
        "chance": metrics.get("chance"),
        "failed": len(result.get("failed_videos", ())),
        "lead": lead,
        "about": data.get("note", ""),
    }


def of_every_run(frame: pd.DataFrame, specs: Mapping[str, Spec]) -> pd.DataFrame:
    """Return the rows of a frame once more for each run that a row's run starts from."""
    above: dict[str, list[str]] = {}
    for run_id, spec in specs.items():
        known = [parent for parent in parents(spec) if parent in above]
        above[run_id] = [run_id, *dict.fromkeys(name for one in known for name in above[one])]
    return frame.assign(run_id=frame.run_id.map(above)).explode("run_id")


def examine_all(
    results: Path,
    specs: Mapping[str, Spec],
    weights: bool = False,
) -> dict[str, RunStatus]:
    """Return the status of each run.

    If a run is altered, the runs that start from it are altered too, since the origin of their
    weights is unknown.

    Args:
        specs: specs by run id, parents before children.
        weights: verify the weights too, as `examine` does.
    """
    statuses: dict[str, RunStatus] = {}
    for run_id, spec in specs.items():
        statuses[run_id] = examine(results / run_id, spec, weights)
        above = [parent for parent in parents(spec) if parent in statuses]
        if altered := [parent for parent in above if statuses[parent].state == "altered"]:
            why = f"{run_id}: its parent {altered[0]} is altered"
            statuses[run_id] = RunStatus("altered", why)
    return statuses


def pretraining_of(spec: Spec, specs: Mapping[str, Spec]) -> Pretrain | None:
    """Return the pretraining run that a run is or starts from; None if it has none or several."""
    while not isinstance(spec, Pretrain):
        above = [specs[parent] for parent in parents(spec) if parent in specs]
        if isinstance(spec, Finetune):
            above = above[:1]
        if len(above) != 1:
            return None
        [spec] = above
    return spec


def commit_of(result: Mapping[str, Any]) -> str:
    """Return the commit of a result, in the format of `git describe --dirty`."""
    return result["commit"] + ("-dirty" if result["dirty"] else "")
