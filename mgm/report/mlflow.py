"""Copy runs to MLflow, whose pages list and compare them.

The files are the source: if the tracker is down or deleted, nothing is lost. A results folder is an
experiment. The tag `mgm.run` has the name of a run's folder. A run that has grown gets its new
lines. One whose result was replaced is deleted in MLflow and written again. The tag `mgm.digest` is
written last, so the next copy completes a half written run.
"""

import hashlib
import json
import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from mgm.console import show, track
from mgm.errors import UserError
from mgm.results.frame import examine_all, frame_of, of_every_run, own_fields
from mgm.results.lock import file_lock
from mgm.results.plan import RunPlan, read_plan
from mgm.results.result import LARGEST, RunStatus, log_lines
from mgm.spec import Spec, data_name, dotted, parents

FORMAT = 13  # of what is written; a new one writes all runs again
RUN, DIGEST, PARENT = "mgm.run", "mgm.digest", "mlflow.parentRunId"
# Of what was written of a run, the format and the last step of its log.
WRITTEN = "mgm.written"
LOGGED = (
    *("loss", "lr", "grad_norm", "coverage", "trivial_loss"),
    *("clips_per_s", "mfu", "waiting", "memory_mb"),
)
# State of a run -> the status that MLflow gives a run that is not running. Others: FAILED.
STATUS = {"finished": "FINISHED", "not run": "KILLED"}
# What the runs' page of an experiment shows at first: the mean of each row.
VIEW = "rows"
SHOWN = {
    "groupBy": {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": "row"}],
    },
    "searchFilter": "metrics.`test/top1` > 0",
    "selectedColumns": ["metrics.`test/top1`", "tags.`column`", "tags.`dataset`"],
    "orderByKey": "attributes.start_time",
}
MOST_RUNS = 50_000  # per experiment; the most that MLflow returns at once
POINTS = 1000  # of a curve
CONNECT_S = 10  # seconds
BATCH = 800  # metrics per call; MLflow takes 1000 metrics, parameters and tags together
LONGEST = 5000  # characters per tag
# Settings of MLflow that the user has not set. They report an unreachable tracker in seconds.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


def default_uri(results: Path) -> str:
    """Return the address of results/mlflow.db, one sqlite file for all names.

    Raises:
        UserError: the path has a `?`, which begins the options of an address.
    """
    database = results.resolve().parent / "mlflow.db"
    if "?" in str(database):
        raise UserError(f"{database}: MLflow allows no ? in the path; rename it, or give --uri")
    return f"sqlite:///{database}"


def sync(results: Path, uri: str = "") -> str:
    """Copy the runs of `results` (`results/NAME`) to MLflow, and return what was done in words.

    Args:
        uri: MLflow's tracking address. The default is a database next to the results.

    Raises:
        UserError: the tracker cannot be reached or written.
    """
    uri, plan = uri or default_uri(results), read_plan(results)
    statuses = examine_all(results, plan.specs)
    frame = frame_of(plan, statuses)
    cells, names = _cells(frame, plan), _names(frame, plan)
    wanted = _digests(results, plan, statuses, cells)
    counts, ids = Counter[str](), dict[str, str]()
    with _writing(uri, results):
        client, experiment, held = _open(uri, results.name)
        own = {run_id: own_fields(spec, plan.specs) for run_id, spec in plan.specs.items()}
        for run_id, digest in wanted.items():
            old = held.get(run_id, [])
            if len(old) == 1 and old[0].data.tags.get(DIGEST) == digest:
                ids[run_id] = old[0].info.run_id
        counts["unchanged"] = len(ids)
        changed = [run_id for run_id in wanted if run_id not in ids]
        for run_id in track(changed, "runs copied to MLflow", len(changed)):
            old, spec = held.get(run_id, []), plan.specs[run_id]
            parent = next((ids[name] for name in parents(spec) if name in ids), "")
            tags = {**cells.get(run_id, {}), PARENT: parent}
            entry = _entry(results, names[run_id], statuses[run_id], spec, tags, own[run_id])
            counts["updated" if old else "created"] += 1
            if len(old) != 1 or not entry.continues(old[0]):
                for run in old:
                    client.delete_run(run.info.run_id)
                old = [client.create_run(experiment, entry.begun, {RUN: run_id}, entry.name)]
            entry.write(client, old[0])
            client.set_tag(old[0].info.run_id, DIGEST, wanted[run_id])
            ids[run_id] = old[0].info.run_id
    words = ", ".join(f"{counts[name]} {name}" for name in ("created", "updated", "unchanged"))
    page = f"#/experiments/{experiment}/runs?viewStateShareKey={VIEW}"
    return f"runs in {_public(uri)}: {words}; {page}"


def follow(folders: Sequence[Path], uri: str = "", every: float = 10) -> None:
    """Copy again and again. Print a line per change and per new error of the tracker."""
    last = dict[Path, str]()
    while True:
        for results in folders:
            try:
                line = sync(results, uri)
            except UserError as error:
                line = str(error)
            if line != last.get(results) and "0 created, 0 updated" not in line:
                show(f"{results}: {line}")
            last[results] = line
        time.sleep(every)


def _digests(
    results: Path,
    plan: RunPlan,
    statuses: Mapping[str, RunStatus],
    cells: Mapping[str, dict[str, str]],
) -> dict[str, str]:
    """Map each run that has started to the digest of what MLflow shows of it, parents first."""
    found: dict[str, str] = {}
    for run_id, spec in plan.specs.items():
        status, log = statuses[run_id], results / run_id / "log.jsonl"
        if status.state == "not run" and not status.why:
            continue
        facts = [FORMAT, run_id, status.state, status.why, status.result, cells.get(run_id)]
        # A child refers to its parent's run in MLflow.
        facts += [log.stat().st_size if log.exists() else 0, *map(found.get, parents(spec))]
        found[run_id] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return found


def _cells(frame: pd.DataFrame, plan: RunPlan) -> dict[str, dict[str, str]]:
    """Map each run to its tags: the cells that show it or a run that starts from it."""
    runs = of_every_run(frame, plan.specs)
    runs["cells"] = runs.dataset + " / " + runs.row + " / " + runs.column
    tags = runs.groupby("run_id", sort=False)[["dataset", "row", "column", "cells"]]
    return tags.agg(_joined).to_dict("index")  # type: ignore[return-value]


def _names(frame: pd.DataFrame, plan: RunPlan) -> dict[str, str]:
    """Map each run to a name of its own: "MGM / seed 0 / pretrain".

    Of several rows that a run belongs to, the shortest names it. A run that a table shows has its
    column for the stage. With several datasets it names its own.
    """
    runs = of_every_run(frame.assign(shown=frame.run_id), plan.specs)
    runs = runs.sort_values("row", key=lambda row: row.str.len(), kind="stable")
    first = {run["run_id"]: run for run in reversed(runs.to_dict("records"))}
    several = frame[~frame.control].dataset.nunique() > 1
    names = dict[str, str]()
    for run_id, spec in plan.specs.items():
        parts = [f"seed {spec.seed}", spec.stage]
        # Pictures are in no row.
        if run := first.get(run_id):
            if run["dataset_seed"] >= 0 and run["dataset_seed"] != spec.seed:
                parts.insert(0, f"dataset seed {run['dataset_seed']}")
            if run["shown"] == run_id and spec.stage != "pretrain":
                parts[-1] = run["column"]
            parts = [run["row"], *[run["dataset"]] * several, *parts]
        names[run_id] = " / ".join(parts)
    counts = Counter(names.values())
    return {
        run_id: name if counts[name] == 1 else f"{name} / {run_id.rpartition('-')[2]}"
        for run_id, name in names.items()
    }


def _joined(texts: pd.Series) -> str:
    return "; ".join(dict.fromkeys(texts))[:LONGEST]


@dataclass(frozen=True)
class RunEntry:
    """A run as MLflow shows it.

    Attributes:
        begun, ended: milliseconds since 1970.
        log: a key, value, time and step per number of the log, in the order of steps.
        test: the same of the result.
    """

    name: str
    status: str
    begun: int
    ended: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    log: Sequence[tuple[str, float, int, int]]
    test: Sequence[tuple[str, float, int, int]]

    @property
    def last(self) -> int:
        return self.log[-1][3] if self.log else 0

    def continues(self, old: Any) -> bool:
        """Return whether all that MLflow has of a run is a part of this."""
        version, step = _written(old)
        shown = {key: value for key, value in old.data.metrics.items() if key.startswith("test/")}
        kept = shown.items() <= {key: value for key, value, *_ in self.test}.items()
        # A finished run does not grow.
        return version == FORMAT and kept and (step == self.last if shown else step <= self.last)

    def write(self, client: Any, old: Any) -> None:
        """Write what MLflow does not have of a run yet, without the digest."""
        from mlflow.entities import Metric, Param, RunTag

        run_id, (_, step) = old.info.run_id, _written(old)
        points = [point for point in self.log if not step or point[3] > step]
        shown = old.data.metrics.items()
        points += [point for point in self.test if (point[0], point[1]) not in shown]
        new = [Metric(*point) for point in points]
        params = [Param(*pair) for pair in self.params.items() if pair[0] not in old.data.params]
        tags = [
            RunTag(*pair) for pair in self.tags.items() if old.data.tags.get(pair[0]) != pair[1]
        ]
        for first in range(0, len(new), BATCH):
            client.log_batch(run_id, new[first : first + BATCH])
        # In one call, what says how far the log is written comes after it.
        written = RunTag(WRITTEN, f"{FORMAT} {self.last}")
        client.log_batch(run_id, params=params, tags=[*tags, written])
        for key in old.data.tags.keys() - self.tags.keys() - {RUN, DIGEST, WRITTEN}:
            if not key.startswith("mlflow."):
                client.delete_tag(run_id, key)
        client.update_run(run_id, name=self.name)
        if self.status == "RUNNING":
            client.update_run(run_id, self.status)
        else:
            client.set_terminated(run_id, self.status, self.ended)


def _written(run: Any) -> tuple[int, int]:
    """Return the format of what MLflow has of a run, and the last step of its log."""
    version, _, step = run.data.tags.get(WRITTEN, f"{FORMAT} 0").partition(" ")
    return int(version), int(step)


def _entry(
    results: Path,
    name: str,
    status: RunStatus,
    spec: Spec,
    tags: dict[str, str],
    own: Mapping[str, Any],
) -> RunEntry:
    result: dict[str, Any] = status.result or {}
    begun, ended = (_milliseconds(result.get(name)) for name in ("started", "finished"))
    lines = [] if status.state == "altered" else log_lines(results / spec.run_id)
    log = [
        (f"train/{name}", float(line[name]), _milliseconds(line.get("time")), line["step"])
        for line in _thinned(lines)
        for name in LOGGED
        if _is_number(line.get(name))
    ]
    begun = begun or (log[0][2] if log else 0)
    ended = ended or (log[-1][2] if log else begun)
    test = [
        (f"test/{name}", float(value), ended, log[-1][3] if log else 0)
        for name, value in result.get("metrics", {}).items()
        if _is_number(value)
    ]
    params = dotted(spec.model_dump(mode="json"))
    # To group runs by. NaN: it has no such number.
    params |= {
        f"start.{key}": value for key, value in own.items() if value == value and value != ""
    }
    tags |= {
        "stage": spec.stage,
        "status": {"not run": "stopped"}.get(status.state, status.state),
        "why": status.why,
        "folder": f"{results.name}/{spec.run_id}",
        "data": data_name(spec.data, result.get("data", {}).get("note", "")),
        "commit": result.get("commit", ""),
        "dirty": str(result.get("dirty", "")),
        "device": result.get("device", ""),
        "mlflow.source.name": f"mgm {spec.stage}",
    }
    return RunEntry(
        name,
        "RUNNING" if status.state == "running" else STATUS.get(status.state, "FAILED"),
        begun,
        ended,
        {key: v if isinstance(v, str) else json.dumps(v) for key, v in params.items()},
        {key: text[:LONGEST] for key, text in tags.items() if text},
        log,
        test,
    )


def _thinned(lines: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield at most about `POINTS` lines of a log, the same however far it is written."""
    last = -1
    for line in lines:
        steps: Any = line.get("steps")
        share = line["step"] / steps if _is_number(steps) and steps > 0 else 0
        part = int(POINTS * share) if 0 < share <= 1 else line["step"]
        if part != last:
            yield line
        last = part


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _milliseconds(time: Any) -> int:
    """Convert seconds since 1970, or an ISO date, to milliseconds since 1970; 0 if unknown."""
    if isinstance(time, str):
        try:
            return int(datetime.fromisoformat(time).timestamp() * 1000)
        except ValueError:
            return 0
    return int(1000 * time) if _is_number(time) and 0 < time < LARGEST / 1000 else 0


def _open(uri: str, name: str) -> tuple[Any, str, dict[str, list[Any]]]:
    """Return a client, the id of the experiment `name`, and its runs by run id."""
    for setting, value in SETTINGS.items():
        os.environ.setdefault(setting, value)
    _reach(uri)
    # MLflow takes seconds to import, and reads these settings when it is imported.
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    if experiment and experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    number = experiment.experiment_id if experiment else client.create_experiment(name)
    if not experiment or f"mlflow.sharedViewState.{VIEW}" not in experiment.tags:
        client.set_experiment_tag(number, f"mlflow.sharedViewState.{VIEW}", json.dumps(SHOWN))
        client.set_experiment_tag(number, "mlflow.experimentKind", "custom_model_development")
    held: dict[str, list[Any]] = {}
    for run in client.search_runs([number], max_results=MOST_RUNS):
        held.setdefault(run.data.tags.get(RUN, ""), []).append(run)
    return client, number, held


def _reach(uri: str) -> None:
    """Fail at once where a database cannot be used. MLflow itself retries for minutes.

    A new database file gets its name once its tables are made: those of a killed process would
    stop every later one.
    """
    kind, _, path = uri.partition("?")[0].partition(":///")
    if kind == "sqlite":
        if not Path(path).exists() or not Path(path).stat().st_size:
            from mlflow import MlflowClient

            with TemporaryDirectory(prefix=".mlflow-", dir=Path(path).parent) as folder:
                new = Path(folder, "mlflow.db")
                MlflowClient(f"sqlite:///{new}").search_experiments()
                new.replace(path)
        with closing(sqlite3.connect(path, timeout=CONNECT_S)) as file:
            file.execute("SELECT name FROM sqlite_master").fetchall()
    elif uri.startswith(("postgresql", "mysql")):
        from sqlalchemy import create_engine

        engine = create_engine(uri, connect_args={"connect_timeout": CONNECT_S})
        engine.connect().close()
        engine.dispose()


def _public(uri: str) -> str:
    """Return a tracker's address without its password."""
    return re.sub(r"(://[^/:@]*:).*@", r"\1***@", uri)


@contextmanager
def _writing(uri: str, results: Path) -> Iterator[None]:
    """Let one process at a time write. A tracker's errors become UserErrors.

    Raises:
        UserError: the tracker fails, or another process copies.
    """
    try:
        # SQLAlchemy would end with a traceback.
        _ = urlsplit(uri).port
        with file_lock(results.resolve().parent / "mlflow.db"):
            yield
    except UserError:
        raise
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
        from urllib3.exceptions import HTTPError

        known = (OSError, ValueError, sqlite3.Error, MlflowException, SQLAlchemyError, HTTPError)
        if not isinstance(error, known):
            raise
        reason = " ".join(str(error).replace(uri, _public(uri)).split())[:300]
        raise UserError(
            f"tracker {_public(uri)}: {reason}; nothing is lost, {results} has all files; sync "
            "again when the tracker is up"
        ) from None
