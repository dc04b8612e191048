"""`mgm sync --check`: compare MLflow with the files. It writes nothing."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mgm.console import track
from mgm.experiments.registry import Registry
from mgm.report.mlflow.artifacts import artifacts
from mgm.report.mlflow.record import Record, Records, is_ours
from mgm.report.mlflow.sync import PARENT, STATUS, Tracker, as_user_error, default_uri

Point = tuple[int, float, int]  # step, value, milliseconds since 1970


def check(registry: Registry, results: Path, uri: str = "") -> dict[str, list[str]]:
    """Run id -> what differs between its files and MLflow, a line each: status, parameters, tags, every point of every metric, artefacts.

    Raises:
        UserError: the tracker cannot be reached, or has nothing of these results.
    """
    uri, records = uri or default_uri(results), Records(registry, results)
    if not records.scan():
        return {}
    with as_user_error(uri, results):
        tracker = Tracker(uri, results, create=False)
        runs: dict[str, list[Any]] = {}
        for run in tracker.search_runs():
            runs.setdefault(run.info.run_name, []).append(run)
        found = {
            run_id: list(_differences(tracker.client, record, runs))
            for run_id in track(list(records.entries), "runs compared with MLflow", len(records.entries))
            if (record := records.read(run_id))
        }
    return {run_id: lines for run_id, lines in found.items() if lines}


def _differences(client: Any, record: Record, runs: dict[str, list[Any]]) -> Iterator[str]:
    same = runs.get(record.run_id, [])
    if len(same) != 1:
        yield f"is in MLflow {len(same)} times"
        return
    run = same[0]
    if run.info.status != STATUS[record.status]:
        yield f"status is {run.info.status} in MLflow, {STATUS[record.status]} by its files"
    parent = next((runs[name][0].info.run_id for name in record.parents if name in runs), "")
    tags = {name: value for name, value in run.data.tags.items() if is_ours(name) or name == PARENT}
    yield from _unequal("parameter", run.data.params, record.params)
    yield from _unequal("tag", tags, record.tags | ({PARENT: parent} if parent else {}))
    models = [client.get_logged_model(output.model_id) for output in run.outputs.model_outputs] if run.outputs else []
    held_weights = [model.tags.get("weights.sha256", "") for model in models]
    if held_weights != [digest for digest in [record.facts.get("weights.sha256")] if digest]:
        yield f"models in MLflow are of weights {held_weights}, {record.facts.get('weights.sha256') or 'none'} by its files"
    points: dict[str, list[Point]] = {key: [] for key in run.data.metrics}
    for key, value, time, step in (*record.curve, *record.final):
        points.setdefault(key, []).append((step, value, time))
    for key, wanted in points.items():
        held = [(point.step, point.value, point.timestamp) for point in client.get_metric_history(run.info.run_id, key)]
        yield from _unequal_points(key, sorted(held), sorted(wanted))
    files = {file.path for file in client.list_artifacts(run.info.run_id)} - {"weights.safetensors"}
    if missing := artifacts(record).keys() - files:
        yield f"artefacts {', '.join(sorted(missing))} are not in MLflow"


def _unequal(kind: str, held: dict[str, str], wanted: dict[str, str]) -> Iterator[str]:
    for name in sorted({*held, *wanted}):
        if held.get(name) != wanted.get(name):
            yield f"{kind} {name} is {_shown(held.get(name))} in MLflow, {_shown(wanted.get(name))} by its files"


def _unequal_points(key: str, held: list[Point], wanted: list[Point]) -> Iterator[str]:
    if len(held) != len(wanted):
        yield f"metric {key} has {len(held)} points in MLflow, {len(wanted)} in its files"
    elif differing := [(mine, theirs) for mine, theirs in zip(held, wanted) if not _is_same(mine, theirs)]:
        mine, theirs = (f"{value!r} at step {step}, {time} ms" for step, value, time in differing[0])
        yield f"metric {key} is {mine} in MLflow, {theirs} in its files; {len(differing)} such points"


def _is_same(held: Point, wanted: Point) -> bool:
    """Compare two points; MLflow's databases hold the largest number for infinity."""
    value = math.copysign(sys.float_info.max, wanted[1]) if math.isinf(wanted[1]) else wanted[1]
    return (held[0], held[2]) == (wanted[0], wanted[2]) and (held[1] in (value, wanted[1]) or (math.isnan(held[1]) and math.isnan(value)))


def _shown(value: str | None) -> str:
    return "missing" if value is None else repr(value if len(value) <= 60 else value[:59] + "\N{HORIZONTAL ELLIPSIS}")
