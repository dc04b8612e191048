"""From a registry and a folder of results to the rows of its tables: each cell its own runs' mean, or why there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgm.experiments.quoted import reported
from mgm.experiments.registry import Cell, Registry
from mgm.report.statistics import Estimate, over_seeds, over_videos
from mgm.runs.result import Found, examine
from mgm.spec import parents

COLUMNS = ("row", "column", "paper", "ours", "difference", "ci_low", "ci_high", "n", "status", "run_ids", "commit")


@dataclass(frozen=True)
class Row:
    """One cell. `status` is run, partial (the mean of the runs that are done), quoted, altered, failed, running or not run;
    only the first two have a number of ours. `values` holds it run by run, None for a run without one."""

    table: str
    row: str
    column: str
    paper: float | None
    estimate: Estimate | None
    status: str
    why: str
    run_ids: tuple[str, ...]
    values: tuple[float | None, ...]
    commit: str
    metric: str = "top1"
    decimals: int = 1
    remark: str = ""  # how the run differs from what the row's name says

    @property
    def difference(self) -> float | None:
        return None if self.estimate is None or self.paper is None else self.estimate.mean - self.paper


def examine_all(registry: Registry, results: Path) -> dict[str, Found]:
    """Every run of the registry. One whose ancestor was altered is altered too: its weights come from we do not know where."""
    found: dict[str, Found] = {}
    for run_id, spec in registry.specs.items():  # parents come first
        bad = [parent for parent in parents(spec) if parent in found and found[parent].state == "altered"]
        found[run_id] = Found("altered", f"{run_id}: its parent {bad[0]} is altered") if bad else examine(results / run_id, spec)
    return found


def rows(registry: Registry, found: dict[str, Found]) -> dict[str, list[Row]]:
    """Table name -> its rows, in the registry's order."""
    return {name: [row_of(cell, found) for cell in table.cells] for name, table in registry.tables.items()}


def gain(better: Row, base: Row) -> Estimate | None:
    """The difference of two cells, paired by seed, over the seeds both have; None when there is none."""
    pairs = [(a, b) for a, b in zip(better.values, base.values) if a is not None and b is not None]
    return over_seeds([a - b for a, b in pairs]) if pairs else None


def commit_of(result: dict) -> str:
    """As `git describe --dirty` would say it."""
    return result["commit"] + ("-dirty" if result["dirty"] else "")


def row_of(cell: Cell, found: Mapping[str, Found]) -> Row:
    """What `cell` shows."""
    run_ids = tuple(run.run_id for run in cell.runs)
    runs = [found[run_id] for run_id in run_ids]
    paper = reported().get((cell.table, cell.row, cell.column))
    done = [run.result for run in runs if run.result is not None]
    status = _status([run.state for run in runs], quoted=paper is not None)
    missing = [f"{run.state}: {run.why or run_id}" for run_id, run in zip(run_ids, runs) if run.state != "run"]
    believed = status in ("run", "partial")
    values = tuple(float(run.result["metrics"][cell.metric]) if run.result and believed else None for run in runs)
    return Row(
        cell.table,
        cell.row,
        cell.column,
        paper,
        _estimate([value for value in values if value is not None], done[0]["n_test"]) if believed else None,
        status,
        "; ".join(missing),
        run_ids,
        values,
        " ".join(dict.fromkeys(commit_of(result) for result in done)) if believed else "",
        cell.metric,
        cell.decimals,
        cell.remark,
    )


def _status(states: Sequence[str], quoted: bool) -> str:
    """One altered run spoils its cell; a failed one is shown before one that is running or missing."""
    if not states:
        return "quoted" if quoted else "not run"
    if "altered" in states:
        return "altered"
    if "run" in states:
        return "run" if set(states) == {"run"} else "partial"
    return next((state for state in ("failed", "running") if state in states), "not run")


def _estimate(values: list[float], videos: int) -> Estimate:
    """Over seeds; of one run that was tested on `videos`, its metric being a share of them, over those."""
    if len(values) > 1 or not videos:
        return over_seeds(values)
    bootstrap = over_videos(round(values[0] * videos / 100), videos)
    return Estimate(values[0], bootstrap.low, bootstrap.high, 1)
