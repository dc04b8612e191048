"""Cells of a registry's tables: the mean over each cell's runs, or why it is missing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.report.findings import Findings
from mgm.results.frame import commit_of, examine_all
from mgm.results.result import RunStatus
from mgm.results.statistics import Estimate, over_seeds, over_videos
from mgm.study.quoted import reported
from mgm.study.registry import CONTROL_ROWS, SHARES, Cell, Plot, Registry, Table

COLUMNS = (
    "row",
    "column",
    "paper",
    "ours",
    "difference",
    "ci_low",
    "ci_high",
    "n",
    "status",
    "run_ids",
    "commit",
)
# Names of a table, a row and a column.
Key = tuple[str, str, str]
NUMBERS = ("paper", "ours", "difference", "ci_low", "ci_high")


@dataclass(frozen=True, kw_only=True)
class FilledCell(Cell):
    """A cell with its numbers.

    `status` is run, partial (a mean over the finished runs), quoted, altered, failed, running or
    not run. Only "run" and "partial" have a number of ours. `values` has the metric of each run,
    None for a run that is not finished.
    """

    paper: float | None
    estimate: Estimate | None
    status: str
    why: str = ""
    values: tuple[float | None, ...] = ()
    commit: str = ""

    @property
    def key(self) -> Key:
        return self.table, self.row, self.column

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(run.run_id for run in self.runs)

    @property
    def difference(self) -> float | None:
        if self.estimate is None or self.paper is None:
            return None
        return self.estimate.mean - self.paper


def cells(registry: Registry, results: Path) -> pd.DataFrame:
    """Read `results` and return the cells of all tables as one frame.

    `frame` lists its columns.
    """
    filled = fill_all(Findings(registry, examine_all(results, registry.specs), results))
    return frame(cell for table in registry.tables.values() for cell in filled_of(table, filled))


def frame(filled: Iterable[FilledCell]) -> pd.DataFrame:
    """Return a frame with one row per cell.

    Columns:
        `table`, `row`, `column`: the cell.
        `paper`: the paper's number.
        `ours`: mean over runs.
        `difference`: ours minus the paper's.
        `ci_low`, `ci_high`: 95 % confidence interval of `ours`.
        `n`: runs in the mean.
        `status`, `run_ids` (joined by spaces), `commit`, `why` (what is missing), `metric`.
    """
    lines = []
    for cell in filled:
        ours = cell.estimate or Estimate(nan, n=0)
        same = ("table", "row", "column", "paper", "difference", "status", "commit", "why")
        lines.append(
            {name: getattr(cell, name) for name in (*same, "metric")}
            | {"ours": ours.mean, "ci_low": ours.low, "ci_high": ours.high, "n": ours.n}
            | {"run_ids": " ".join(cell.run_ids)}
        )
    table = pd.DataFrame(lines, columns=["table", *COLUMNS, "why", "metric"])
    return table.astype(dict.fromkeys(NUMBERS, "float64")).replace([-inf, inf], nan)


def fill_all(findings: Findings) -> dict[Key, FilledCell]:
    """Fill the cells of all tables and plots. A cell that both show is one cell."""
    registry = findings.registry
    parts: list[Table | Plot] = [*registry.tables.values(), *registry.plots.values()]
    cells = {(cell.table, cell.row, cell.column): cell for part in parts for cell in part.cells}
    return {key: fill(cell, findings) for key, cell in cells.items()}


def filled_of(part: Table | Plot, cells: Mapping[Key, FilledCell]) -> list[FilledCell]:
    """Return the cells of a table or plot with their numbers, in its order."""
    return [cells[cell.table, cell.row, cell.column] for cell in part.cells]


def paired(
    cells: Sequence[FilledCell], number: Callable[[Sequence[Any]], float]
) -> Estimate | None:
    """Estimate a number computed from several cells, seed by seed.

    Args:
        number: computes it from one value per cell.

    Returns:
        Mean and interval over the seeds that all cells have; None without a common seed.
    """
    if not cells:
        return None
    values = [dict(zip((run.seed for run in cell.runs), cell.values)) for cell in cells]
    shared = [seed for seed in values[0] if all(of.get(seed) is not None for of in values)]
    if not shared:
        return None
    return over_seeds([number([of[seed] for of in values]) for seed in shared])


def unpaired(numbers: Sequence[Estimate], number: Callable[[Sequence[Any]], float]) -> Estimate:
    """Compute a number from independent estimates, whose intervals add in quadrature."""
    means = [estimate.mean for estimate in numbers]
    mean, down, up = number(means), 0.0, 0.0
    for place, estimate in enumerate(numbers):
        if not estimate.has_interval:
            return Estimate(mean)
        ends = [
            number([*means[:place], end, *means[place + 1 :]])
            for end in (estimate.low, estimate.high)
        ]
        down, up = down + (mean - min(ends)) ** 2, up + (max(ends) - mean) ** 2
    return Estimate(mean, mean - sqrt(down), mean + sqrt(up))


def gain(better: FilledCell, base: FilledCell) -> Estimate | None:
    """Return `better` minus `base`, paired by seed.

    Cells of other seeds, such as controls, are not paired. Otherwise the difference would be that
    of the shared seeds alone, and not that of the numbers shown.
    """
    seeds = [{run.seed for run in cell.runs} for cell in (better, base)]
    if seeds[0] != seeds[1] and better.estimate and base.estimate:
        return unpaired((better.estimate, base.estimate), lambda values: values[0] - values[1])
    return paired((better, base), lambda values: values[0] - values[1])


def mean_gain(better: Sequence[FilledCell], base: FilledCell) -> Estimate | None:
    """Return the mean of the cells `better` minus `base`, paired by seed."""
    return paired((*better, base), lambda values: sum(values[:-1]) / len(better) - values[-1])


def fill(cell: Cell, findings: Findings) -> FilledCell:
    """Fill a cell from its runs.

    The interval of a study's cell is over the study's sampling unit. Otherwise it is over seeds,
    or for a single run over its test videos.
    """
    runs = [
        _with_metric(run.run_id, findings.statuses[run.run_id], cell.metric) for run in cell.runs
    ]
    paper = reported().get((cell.table, cell.row, cell.column))
    done = [run.result for run in runs if run.result]
    status = _status([run.state for run in runs], quoted=paper is not None)
    missing = [
        f"{run.state}: {run.why or spec.run_id}"
        for spec, run in zip(cell.runs, runs)
        if run.state != "run"
    ]
    believed = status in ("run", "partial")
    values = tuple(
        float(run.result["metrics"][cell.metric]) if run.result and believed else None
        for run in runs
    )
    estimate = None
    if believed and findings.registry.scale.study:
        estimate = findings.estimate(cell.table, cell.row, cell.column)
    elif believed:
        numbers = [value for value in values if value is not None]
        estimate = _estimate(numbers, _test_videos(done[0], cell.metric))
    commit = " ".join(dict.fromkeys(map(commit_of, done))) if believed else ""
    return FilledCell(
        **vars(cell),
        paper=paper,
        estimate=estimate,
        status=status,
        why="; ".join(missing),
        values=values,
        commit=commit,
    )


def _test_videos(result: Mapping[str, Any], metric: str) -> int:
    """Return the number of test videos if the metric is a share of them, else 0."""
    return result["n_test"] or (result["data"]["test"] if metric in SHARES else 0)


def _with_metric(run_id: str, run: RunStatus, metric: str) -> RunStatus:
    """Return the run, with status "altered" if its metric is not a finite number."""
    value = run.result["metrics"].get(metric) if run.result else 0
    if value is None and metric in CONTROL_ROWS.values():
        return RunStatus("not run", f"{run_id}: this metric cannot be measured on this dataset")
    if isinstance(value, int | float) and isfinite(value):
        return run
    return RunStatus(
        "altered",
        f"{run_id}: result.json: metrics.{metric} is {str(value)[:40]}, not a finite number",
    )


def _status(states: Sequence[str], quoted: bool) -> str:
    """Return a cell's status from the statuses of its runs.

    One altered run makes its cell altered. "failed" goes before "running" and "not run".
    """
    if not states:
        return "quoted" if quoted else "not run"
    if "altered" in states:
        return "altered"
    if "run" in states:
        return "run" if set(states) == {"run"} else "partial"
    return next((state for state in ("failed", "running") if state in states), "not run")


def _estimate(values: list[float], videos: int) -> Estimate:
    """Return mean and interval over runs.

    A single run has an interval over its test videos, if the metric is a share of them.
    """
    if len(values) > 1 or not videos:
        return over_seeds(values)
    return over_videos(round(values[0] * videos / 100), videos)._replace(mean=values[0])
