"""Copy results to MLflow, for its dashboard.

The files are the source. If the tracker is slow, down or deleted, nothing is lost. A results
folder is an MLflow experiment, and a run's folder is an MLflow run, whose tag `mgm.run` has the
folder's name. The tag `mgm.digest` says from which files it was written. It is written last, so the
next sync replaces a half written run. A run in training keeps its MLflow run and gets only the new
points.

A run with weights has a logged model of MLflow 3. The model is external, so no file is copied. A
finetuning run has its parent's model as input. A probe adds its metrics to its parent's model.
Runs stay in MLflow after their folders are deleted.
"""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from mgm.console import show, track
from mgm.errors import UserError
from mgm.reading import file_digest
from mgm.report.mlflow.record import VARYING, Record, Records
from mgm.results.lock import wait_for_flock
from mgm.spec import parents
from mgm.study.registry import Registry

RUN = "mgm.run"  # tag: run id
DIGEST = "mgm.digest"  # tag: digest of the files that the MLflow run was written from
PARENT = "mlflow.parentRunId"  # tag with which MLflow's pages nest runs
WEIGHTS = "weights.copied"  # tag: digest of the weights among the run's artefacts
EXTERNAL = "mlflow.model.isExternal"  # tag of a model with weights outside MLflow
MOST_RUNS = 50_000  # per experiment; the most that MLflow returns at once
BATCH = 800  # metrics per call; MLflow takes 1000 metrics, parameters and tags together
FOLLOW_S = 10.0  # seconds between two checks of the files
# Settings of MLflow that the user has not set. They report an unreachable tracker in seconds.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True)
class Summary:
    """Number of runs per outcome of a sync. `left` counts the registry's runs to be finished."""

    uri: str
    left: int
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    weights: int = 0

    def __str__(self) -> str:
        copied = f", weights of {self.weights} copied" if self.weights else ""
        return (
            f"{self.created} runs created, {self.updated} updated, {self.unchanged} unchanged"
            f"{copied} in {self.uri}"
        )


def default_uri(results: Path) -> str:
    """Return the address of results/mlflow.db, one sqlite file for all names."""
    return f"sqlite:///{results.resolve().parent / 'mlflow.db'}"


def sync(registry: Registry, results: Path, uri: str = "", weights: bool = False) -> Summary:
    """Mirror the runs of `registry` that have files in `results` (`results/<name>`).

    Args:
        uri: MLflow's tracking address. The default is a database next to the results.
        weights: also copy the weights.

    Raises:
        UserError: the tracker cannot be reached or written.
    """
    uri, records = uri or default_uri(results), Records(registry, results)
    if not (digests := records.digests()):
        return Summary(uri, left=len(registry.specs))
    with _writing(uri, results):
        mirror, counts = Mirror(uri, results), Counter[str]()
        for run_id, digest in track(digests.items(), "runs mirrored to MLflow", len(digests)):
            counts[mirror.update(records, run_id, digest)] += 1
        if weights:
            counts["weights"] = sum(mirror.copy_weights(run_id) for run_id in digests)
        finished = [run for run in registry.specs if mirror.tag(run, "status") == "finished"]
        del counts["empty"]
        return Summary(uri, len(registry.specs) - len(finished), **counts)


def follow(
    registry: Registry, results: Path, uri: str = "", weights: bool = False, every: float = FOLLOW_S
) -> None:
    """Mirror whenever a file has changed, until every run is finished.

    Print a line per sync to stdout. Print a tracker's error to stderr, and try again.
    """
    mirrored, reported = dict[str, str](), ""
    while True:
        try:
            if (digests := Records(registry, results).digests()) != mirrored:
                summary = sync(registry, results, uri, weights)
                print(summary, flush=True)
                if not summary.left:
                    return
                mirrored, reported = digests, ""
        except UserError as error:
            if str(error) != reported:
                show(f"mgm: {error}")
            reported = str(error)
        time.sleep(every)


def serve(registry: Registry, results: Path, port: int, weights: bool = False) -> None:
    """Serve MLflow's pages on 127.0.0.1, and mirror the runs meanwhile, until the server ends.

    The server ends with this process, also if it is terminated.

    Raises:
        UserError: the database cannot be written.
    """
    uri = default_uri(results)
    with _writing(uri, results):
        experiment = Mirror(uri, results).experiment_id
    # SystemExit runs the `finally` below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Without a line per request, which would hide ours.
    command += ["--uvicorn-opts", "--no-access-log --log-level warning"]
    # Jobs are for language models, and take six processes.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # A group of its own, since the server has worker processes.
    server = subprocess.Popen(command, start_new_session=True, env=environment)
    try:
        while server.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.2)
        page = f"http://127.0.0.1:{port}/#/experiments/{experiment}/runs"
        show(f"{page}?workflowType=machine_learning shows {results.name}. Ctrl-C ends it.")
        mirror = {"target": follow, "args": (registry, results, uri, weights), "daemon": True}
        threading.Thread(**mirror).start()  # type: ignore[arg-type]
        server.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


class Mirror:
    """The MLflow experiment of `results`. `runs` has its runs by run id."""

    def __init__(self, uri: str, results: Path):
        if uri.startswith("sqlite:///"):
            path = Path(uri.removeprefix("sqlite:///"))
            path.parent.mkdir(parents=True, exist_ok=True)
            # MLflow itself retries a broken file for minutes.
            with closing(sqlite3.connect(path, timeout=10)) as file:
                file.execute("SELECT name FROM sqlite_master").fetchall()
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        # MLflow takes seconds to import, and reads these settings when it is imported.
        from mlflow import MlflowClient

        self.client, self.results = MlflowClient(tracking_uri=uri), results
        if experiment := self.client.get_experiment_by_name(results.name):
            self.experiment_id = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                self.client.restore_experiment(self.experiment_id)
        else:
            folder = results.resolve().parent / "mlflow-artifacts" / results.name
            artifacts = None if uri.startswith("http") else folder.as_uri()
            self.experiment_id = self.client.create_experiment(results.name, artifacts)
        self.runs: dict[str, list[Any]] = {}
        for run in self.client.search_runs([self.experiment_id], max_results=MOST_RUNS):
            # Runs of an earlier format have the run id as their name.
            run_id = run.data.tags.get(RUN, run.info.run_name)
            self.runs.setdefault(run_id, []).append(run)

    def tag(self, run_id: str, name: str) -> str | None:
        runs = self.runs.get(run_id)
        return runs[0].data.tags.get(name) if runs else None

    def models(self, run_ids: Iterable[str]) -> list[str]:
        """Return the ids of the logged models that these runs made."""
        runs = (run for run_id in run_ids for run in self.runs.get(run_id, []))
        return [made.model_id for run in runs if run.outputs for made in run.outputs.model_outputs]

    def update(self, records: Records, run_id: str, digest: str) -> str:
        """Write a run unless MLflow has it. Parents come first, since a run refers to theirs.

        Returns:
            created, updated, unchanged, or empty for a folder without a run's files.
        """
        spec, held = records.registry.specs[run_id], self.runs.get(run_id, [])
        marks = {DIGEST: digest}
        if parent := next((name for name in parents(spec) if self.runs.get(name)), None):
            marks[PARENT] = self.runs[parent][0].info.run_id
        if len(held) == 1 and marks.items() <= held[0].data.tags.items():
            return "unchanged"
        if not (record := records.read(run_id)):
            return "empty"
        kept = next((run for run in held if self._grows(run, record)), None)
        for run in held:
            if run is not kept:
                self._delete(run.info.run_id)
        self.runs[run_id] = [self._write(record, marks, kept)]
        return "updated" if held else "created"

    def _grows(self, run: Any, record: Record) -> bool:
        """Return whether an MLflow run is a whole, earlier state of this record."""
        unfinished = run.data.tags.get("status") in ("running", "stopped", "failed")
        if not unfinished or DIGEST not in run.data.tags or run.data.params != record.params:
            return False
        points = {(step, at) for key, _, at, step in record.curve if key == "train/loss"}
        history = self.client.get_metric_history(run.info.run_id, "train/loss")
        return {(point.step, point.timestamp) for point in history} <= points

    def _delete(self, mlflow_id: str) -> None:
        query = f"source_run_id = '{mlflow_id}'"
        for model in self.client.search_logged_models([self.experiment_id], query):
            self.client.delete_logged_model(model.model_id)
        self.client.delete_run(mlflow_id)

    def _write(self, record: Record, marks: dict[str, str], kept: Any) -> Any:
        """Write the whole run, or only what the MLflow run `kept` lacks."""
        from mlflow import entities

        client, points = self.client, record.curve
        if kept:
            mlflow_id = kept.info.run_id
            # Without this tag, a sync that ends here is followed by one that writes the whole run.
            client.delete_tag(mlflow_id, DIGEST)
            for name in kept.data.tags.keys() - record.tags.keys() - marks.keys():
                if name in VARYING or name.startswith("table."):
                    client.delete_tag(mlflow_id, name)
            history = client.get_metric_history(mlflow_id, "train/loss")
            last = max((point.step for point in history), default=-1)
            points = [point for point in points if point[3] > last]
        else:
            # The tag comes with the run, so that the next sync finds a half written one.
            tags = {RUN: record.spec.run_id}
            created = client.create_run(self.experiment_id, record.start, tags, record.name)
            mlflow_id = created.info.run_id
        metrics = [entities.Metric(*point) for point in points]
        if record.status == "FINISHED":
            metrics += self._link(record, mlflow_id)
        for first in range(0, len(metrics), BATCH):
            client.log_batch(mlflow_id, metrics[first : first + BATCH])
        params = [entities.Param(*pair) for pair in record.params.items()]
        client.log_batch(mlflow_id, params=params)
        with TemporaryDirectory() as folder:
            for name, content in record.files.items():
                (Path(folder) / name).write_bytes(content)
            client.log_artifacts(mlflow_id, folder)
        if record.status == "RUNNING":
            client.update_run(mlflow_id, "RUNNING", record.name)
        else:
            client.update_run(mlflow_id, name=record.name)
            client.set_terminated(mlflow_id, record.status, record.end)
        tags = record.tags | marks | {RUN: record.spec.run_id}
        client.log_batch(mlflow_id, tags=[entities.RunTag(*pair) for pair in tags.items()])
        return client.get_run(mlflow_id)

    def _link(self, record: Record, mlflow_id: str) -> list[Any]:
        """Link a finished run to its dataset and its parents' models, and create its own model.

        Returns:
            The test metrics of its own model, or of the model that it tested.
        """
        from mlflow import entities

        name, digest = record.tags["data"], record.tags.get("data.digest", "")
        source = {"dataset": name, "digest": digest, "note": record.tags.get("data.note", "")}
        data = entities.Dataset(name, digest, "mgm prepare", json.dumps(source))
        used = self.models(parents(record.spec))
        self.client.log_inputs(
            mlflow_id,
            [entities.DatasetInput(data)] if digest else [],
            [entities.LoggedModelInput(model) for model in used],
        )
        tested = used[0] if len(used) == 1 else None
        if "weights.sha256" in record.tags:
            tested = self.client.create_logged_model(
                self.experiment_id,
                record.spec.run_id,
                mlflow_id,
                record.tags | {EXTERNAL: "true"},
                record.params,
                record.spec.stage,
            ).model_id
            self.client.finalize_logged_model(tested, entities.LoggedModelStatus.READY)
            output = entities.LoggedModelOutput(tested, record.last)
            self.client.log_outputs(mlflow_id, [output])
        on = name if digest else None
        return [entities.Metric(*metric, tested, on, digest, mlflow_id) for metric in record.final]

    def copy_weights(self, run_id: str) -> bool:
        """Copy a run's weights to its artefacts. Return False if nothing is to be copied."""
        wanted = self.tag(run_id, "weights.sha256")
        path = self.results / run_id / "weights.safetensors"
        if not wanted or not path.is_file() or self.tag(run_id, WEIGHTS) == wanted:
            return False
        if (digest := file_digest(path)) != wanted:
            raise UserError(
                f"{path}: digest {digest[:12]} differs from the result's {wanted[:12]}; "
                "delete the run and run it again"
            )
        mlflow_id = self.runs[run_id][0].info.run_id
        self.client.log_artifact(mlflow_id, str(path))
        self.client.set_tag(mlflow_id, WEIGHTS, wanted)
        return True


def register(results: Path, uri: str, run_ids: Iterable[str]) -> list[str]:
    """Register the models of mirrored runs in MLflow, and return one line per run.

    A model that is registered already keeps its version.

    Raises:
        UserError: a run is not in MLflow, or has no weights.
    """
    with _writing(uri, results):
        mirror, lines = Mirror(uri, results), list[str]()
        for run_id in run_ids:
            if not (models := mirror.models([run_id])):
                raise UserError(
                    f"{run_id}: has no model in MLflow; name a finished pretraining or finetuning "
                    f"run of {results.name}"
                )
            version = _version(mirror.client, run_id, models[0])
            lines.append(f"{run_id}: version {version} in MLflow")
        return lines


def _version(client: Any, name: str, model: str) -> str:
    """Return a logged model's version in registered model `name`. Create it if missing."""
    from mlflow.models.utils import get_external_mlflow_model_spec

    held = client.get_logged_model(model)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.source == held.artifact_location:
            return str(version.version)
    # MLflow's registry needs a file MLmodel among the model's artefacts.
    with TemporaryDirectory() as folder:
        get_external_mlflow_model_spec(held).save(str(Path(folder) / "MLmodel"))
        client.log_model_artifacts(model, folder)
    created = client.create_model_version(
        name, held.artifact_location, held.source_run_id, model_id=model
    )
    return str(created.version)


@contextmanager
def _writing(uri: str, results: Path) -> Iterator[None]:
    """Let one process at a time mirror a results folder. A tracker's errors become UserErrors.

    There is no lock if the file system cannot lock folders.
    """
    try:
        # SQLAlchemy would end with a traceback.
        _ = urlsplit(uri).port
    except ValueError as error:
        raise UserError(f"tracker {uri}: is not an address ({error}); correct it") from None
    folder = os.open(results.resolve().parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            wait_for_flock(
                folder, f"{results.parent}: another process mirrors to MLflow; waiting for it"
            )
        yield
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
        from urllib3.exceptions import HTTPError

        known = OSError | sqlite3.Error | MlflowException | SQLAlchemyError | HTTPError
        if not isinstance(error, known):
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"tracker {uri}: {reason}; nothing is lost, {results} has all files; sync again when "
            "the tracker is up"
        ) from None
    finally:
        os.close(folder)
