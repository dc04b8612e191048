"""Mirrors results to MLflow, for its dashboard. The files are the truth: a tracker that is slow, down or deleted loses nothing.

One experiment per results folder, one MLflow run per run folder, found again by the digest of what was mirrored: what has not
changed is not touched. A run that is still training grows by the new lines of its log; any other change replaces its MLflow run.
Runs whose folder is gone are left as they are.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.experiments.registry import Registry
from mgm.report.collect import examine_all
from mgm.report.result import Found, log_lines
from mgm.spec import Spec, parents

DIGEST, STATE, STEP = "mgm.digest", "state", "mgm.step"  # tags: of everything mirrored, of the run, of the last step mirrored
BATCH = 1000  # MLflow's limit of metrics in one call
STATUS = {"run": "FINISHED", "running": "RUNNING", "failed": "FAILED", "altered": "FAILED"}
LOGGED = ("loss", "lr", "grad_norm", "clips_per_s", "memory_mb", "coverage")
SETTINGS = {  # of MLflow, unless the user has set them
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a tracker that is down is said to be so within seconds
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
MIRRORED = """SELECT runs.name, tags.value FROM runs
    JOIN tags ON tags.run_uuid = runs.run_uuid JOIN experiments ON experiments.experiment_id = runs.experiment_id
    WHERE tags.key = ? AND experiments.name = ? AND runs.lifecycle_stage = 'active'"""


@dataclass(frozen=True)
class Summary:
    uri: str
    created: int = 0
    updated: int = 0
    unchanged: int = 0

    def __str__(self) -> str:
        return f"{self.created} runs created, {self.updated} updated, {self.unchanged} unchanged in {self.uri}"


@dataclass(frozen=True)
class Mirror:
    """What MLflow should hold of a run. `metrics` are (key, value, milliseconds, step), in the order of steps."""

    run_id: str
    state: str
    parents: tuple[str, ...]
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[tuple[str, float, int, int]]
    start: int
    end: int | None
    digest: str = field(default="")


def default_uri(results: Path) -> str:
    """One sqlite file for all names, beside their folders: results/mlflow.db."""
    return f"sqlite:///{results.resolve().parent / 'mlflow.db'}"


def sync(registry: Registry, results: Path, uri: str = "") -> Summary:
    """Mirror the runs of `registry` that have left something in `results` (`results/<name>`) to the tracker at `uri`.

    Raises:
        UserError: the tracker cannot be reached or written to. Nothing is lost; sync again when it is up.
    """
    uri = uri or default_uri(results)
    found = examine_all(registry, results)
    cells = _cells(registry)
    mirrors = [
        _mirror(spec, found[run_id], results, registry.scale.name, cells.get(run_id, []))
        for run_id, spec in registry.specs.items()
        if found[run_id].state in STATUS
    ]
    if not mirrors:
        return Summary(uri)
    with _one_line(uri, results):
        known = _read_sqlite(uri, results.name)
        if {mirror.run_id: mirror.digest for mirror in mirrors}.items() <= known.items():
            return Summary(uri, unchanged=len(mirrors))  # without importing mlflow, which takes longer than all the rest
        return _write(mirrors, results.name, uri)


def _write(mirrors: Iterable[Mirror], experiment_name: str, uri: str) -> Summary:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    with _fast_sqlite():
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(experiment_name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(experiment_name)
        if experiment and experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment_id)
        known: dict[str, list[Any]] = {}
        token = None
        while token != "":
            found = client.search_runs([experiment_id], run_view_type=ViewType.ACTIVE_ONLY, max_results=1000, page_token=token)
            for run in found:
                known.setdefault(run.info.run_name, []).append(run)
            token = found.token or ""
        ids: dict[str, str] = {}  # run id -> MLflow's id, for the lineage
        counts = {"created": 0, "updated": 0, "unchanged": 0}
        for mirror in mirrors:
            old = known.get(mirror.run_id, [])
            keep = next((run for run in old if _can_stay(run, mirror)), None)
            for run in old:
                if run is not keep:
                    client.delete_run(run.info.run_id)
            if keep and keep.data.tags.get(DIGEST) == mirror.digest:
                ids[mirror.run_id], what = keep.info.run_id, "unchanged"
            else:
                ids[mirror.run_id], what = _log(client, experiment_id, mirror, ids, keep), "updated" if old else "created"
            counts[what] += 1
    return Summary(uri, **counts)


def _can_stay(run: Any, mirror: Mirror) -> bool:
    """Unchanged, or of a run that was training and has only gone on."""
    tags = run.data.tags
    if tags.get(DIGEST) == mirror.digest:
        return True
    return tags.get(STATE) == "running" and tags.get("mgm.prefix") == _digest(
        [metric for metric in mirror.metrics if metric[3] <= int(tags[STEP]) and metric[0].startswith("train/")]
    )


def _log(client: Any, experiment_id: str, mirror: Mirror, ids: Mapping[str, str], keep: Any) -> str:
    """Create the MLflow run, or let `keep` grow. The digest comes last, so what an interruption leaves is replaced next time."""
    from mlflow.entities import Metric, Param, RunTag

    tags = dict(mirror.tags)
    for parent in mirror.parents[:1]:
        if parent in ids:
            tags["mlflow.parentRunId"] = ids[parent]
    done = int(keep.data.tags[STEP]) if keep else -1
    params = {} if keep else mirror.params
    run = keep or client.create_run(experiment_id, start_time=mirror.start, tags=tags, run_name=mirror.run_id)
    metrics = [Metric(*metric) for metric in mirror.metrics if metric[3] > done or metric[0].startswith("test/")]
    chunks = [metrics[start : start + BATCH] for start in range(0, len(metrics), BATCH)] or [[]]
    for position, chunk in enumerate(chunks):
        first = position == 0
        client.log_batch(
            run.info.run_id,
            metrics=chunk,
            params=[Param(*pair) for pair in params.items()] if first else (),
            tags=[RunTag(*pair) for pair in tags.items()] if first and keep else (),
        )
    if mirror.state != "running":
        client.set_terminated(run.info.run_id, STATUS[mirror.state], mirror.end)
    client.log_batch(run.info.run_id, tags=[RunTag(DIGEST, mirror.digest)])
    return run.info.run_id


def _mirror(spec: Spec, run: Found, results: Path, scale: str, cells: list[tuple[str, str, str]]) -> Mirror:
    result = run.result or {}
    lines = [] if run.state == "altered" else log_lines(results / spec.run_id)
    metrics = [
        (f"train/{name}", float(line[name]), _milliseconds(line.get("time")), line["step"])
        for line in lines
        for name in LOGGED
        if isinstance(line.get(name), int | float)
    ]
    last = lines[-1]["step"] if lines else -1
    tags = {
        "verb": spec.verb,
        STATE: run.state,
        "scale": scale,
        "seed": str(spec.seed),
        "parents": " ".join(parents(spec)),
        "folder": f"{results.name}/{spec.run_id}",
        "data.digest": spec.data.digest,
        "why": run.why[:4000] if run.state != "running" else "",
        "table": "; ".join(dict.fromkeys(table for table, _, _ in cells)),
        "row": "; ".join(dict.fromkeys(row for _, row, _ in cells)),
        "column": "; ".join(dict.fromkeys(column for _, _, column in cells)),
        STEP: str(last),
        "mgm.prefix": _digest(metrics),
    }
    if result:
        tags |= {
            "commit": result["commit"],
            "mlflow.source.git.commit": result["commit"],
            "dirty": str(result["dirty"]).lower(),
            "data.digest": result["data"]["digest"],
            "data.note": result["data"]["note"],
            "weights.sha256": result["weights_sha256"] or "",
            "device": result["device"],
            "seal": result["seal"],
        }
    start, end = (_milliseconds(result.get(name)) for name in ("started", "finished"))
    final = [(f"test/{name}", float(value), end, max(last, 0)) for name, value in result.get("metrics", {}).items() if _is_number(value)]
    mirror = Mirror(
        spec.run_id,
        run.state,
        parents(spec),
        dict(_flatten(spec.model_dump(mode="json"))),
        {name: value for name, value in tags.items() if value},
        metrics + final,
        start or (metrics[0][2] if metrics else 0),
        end or (metrics[-1][2] if metrics else None),
    )
    return Mirror(**{**vars(mirror), "digest": _digest(vars(mirror))})


def _cells(registry: Registry) -> dict[str, list[tuple[str, str, str]]]:
    """Run id -> (table, row, column) of the cells it stands in, itself or through a child."""
    cells: dict[str, list[tuple[str, str, str]]] = {}
    for table in registry.tables.values():
        for cell in table.cells:
            for run in cell.runs:
                for run_id in (run.run_id, *parents(run)):
                    cells.setdefault(run_id, []).append((cell.table, cell.row, cell.column))
    return cells


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _milliseconds(time: Any) -> int:
    """Of seconds since 1970, or of an ISO date; 0 where there is none."""
    if isinstance(time, str):
        return int(datetime.fromisoformat(time).timestamp() * 1000)
    return int(1000 * time) if time else 0


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _read_sqlite(uri: str, experiment: str) -> dict[str, str]:
    """Run id -> digest of what is mirrored, read past MLflow; empty for another kind of tracker, or a file without its tables.

    Raises:
        OSError, sqlite3.Error: the file cannot be made or opened (MLflow itself would try for minutes).
    """
    path = _sqlite_path(uri)
    if path is None:
        return {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=10)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return {}
        return dict(database.execute(MIRRORED, (DIGEST, experiment)).fetchall())


@contextmanager
def _fast_sqlite() -> Iterator[None]:
    """No waiting for the disk at each of MLflow's many commits: what a power cut takes, the next sync brings back."""
    from sqlalchemy import Engine, event

    def connected(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


@contextmanager
def _one_line(uri: str, results: Path) -> Iterator[None]:
    """Whatever a tracker fails with, in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _is_trackers(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"tracker {uri}: {reason}; nothing is lost, {results} has it all; sync again when the tracker is up") from None


def _is_trackers(error: Exception) -> bool:
    """Of the file system, the network, the database or MLflow; anything else is a mistake of ours and keeps its traceback."""
    return isinstance(error, OSError | sqlite3.Error) or type(error).__module__.split(".")[0] in (
        "mlflow",
        "sqlalchemy",
        "requests",
        "urllib3",
    )
