"""The MLflow experiment of a results folder: open and lock it, read its runs, register models.

A run with weights has a logged model of MLflow 3. The model is external, so no file is copied. It
has the run's parameters, tags (with path and digest of weights) and test metrics on its dataset.
A finetuning run has its parent's model as input. A probe adds its metrics to its parent's model.
"""

import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mgm.errors import UserError
from mgm.report.mlflow.record import PARENT, RunRecord, number_text
from mgm.results.lock import wait_for_flock

# MLflow's tag for a model with weights outside MLflow.
EXTERNAL = "mlflow.model.isExternal"
# Settings of MLflow that the user has not set. They report an unreachable tracker in seconds.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def default_uri(results: Path) -> str:
    """Return the address of results/mlflow.db, one sqlite file for all names."""
    return f"sqlite:///{results.resolve().parent / 'mlflow.db'}"


def database(uri: str) -> Path | None:
    """Return the file of a sqlite tracker, else None."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@dataclass
class TrackedRun:
    """A run in MLflow. `status`, `params` and `metrics` are empty after a write."""

    id: str
    tags: dict[str, str]
    model: str = ""  # id of the logged model of its weights
    status: str = ""
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)  # last value of each


class Tracker:
    """The MLflow experiment of `results`.

    `runs` has its runs by run id, as read at the start or written since.
    """

    def __init__(self, uri: str, results: Path, create: bool = True):
        """
        Raises:
            UserError: there is no such experiment, and `create` is False.
            OSError, sqlite3.Error: the database cannot be created or read.
        """
        missing = UserError(
            f"{uri}: has no experiment {results.name}; run `mgm sync {results.name}` first"
        )
        if path := database(uri):
            if not create and not path.exists():
                raise missing
            path.parent.mkdir(parents=True, exist_ok=True)
            # MLflow itself retries a broken file for minutes.
            with closing(sqlite3.connect(path, timeout=10)) as file:
                tables = file.execute("SELECT name FROM sqlite_master").fetchall()
            if not create and ("experiments",) not in tables:
                raise missing
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self.uri, self.client = uri, MlflowClient(tracking_uri=uri)
        experiment = self.client.get_experiment_by_name(results.name)
        if experiment is None and not create:
            raise missing
        if experiment and experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        if experiment:
            self.experiment_id = experiment.experiment_id
        else:
            folder = results.resolve().parent / "mlflow-artifacts" / results.name
            artifacts = None if uri.startswith("http") else folder.as_uri()
            self.experiment_id = self.client.create_experiment(results.name, artifacts)
        self.runs: dict[str, list[TrackedRun]] = {}
        token: str | None = None
        while token != "":
            found = self.client.search_runs(
                [self.experiment_id], max_results=1000, page_token=token
            )
            for run in found:
                outputs = run.outputs.model_outputs if run.outputs else []
                held = TrackedRun(
                    run.info.run_id,
                    dict(run.data.tags),
                    next((output.model_id for output in outputs), ""),
                    run.info.status,
                    dict(run.data.params),
                    {key: number_text(value) for key, value in run.data.metrics.items()},
                )
                self.runs.setdefault(run.info.run_name, []).append(held)
            token = found.token or ""

    def nested(self, parents: Collection[str]) -> dict[str, str]:
        """Return the tag that makes MLflow's pages show a run below its parent."""
        return next(
            ({PARENT: self.runs[name][0].id} for name in parents if self.runs.get(name)), {}
        )


@contextmanager
def writing(uri: str, results: Path) -> Iterator[None]:
    """Lock a results folder, so that one process at a time mirrors it.

    There is no lock if the file system cannot lock folders.
    """
    folder = os.open(results.resolve().parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            wait_for_flock(
                folder, f"{results.parent}: another process mirrors to MLflow; waiting for it"
            )
        with as_user_error(uri, results), _fast_sqlite():
            yield
    finally:
        os.close(folder)


@contextmanager
def _fast_sqlite() -> Iterator[None]:
    """Let sqlite skip the wait for the disk at each of MLflow's many commits.

    After a power cut the next sync restores what is missing.
    """
    from sqlalchemy import Engine, event

    def connected(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")
            # 200 MB, since writes to indexes of millions of points are scattered.
            connection.execute("PRAGMA cache_size = -200000")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


@contextmanager
def as_user_error(uri: str, results: Path) -> Iterator[None]:
    """Turn a tracker's errors into a UserError of one line.

    Errors other than those of files, network, database and MLflow keep their traceback.
    """
    try:
        yield
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
        from urllib3.exceptions import HTTPError

        if not isinstance(
            error, OSError | sqlite3.Error | MlflowException | SQLAlchemyError | HTTPError
        ):
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"tracker {uri}: {reason}; nothing is lost, {results} has all files; sync again when "
            "the tracker is up"
        ) from None


def log_model(
    client: Any, experiment_id: str, run_id: str, record: RunRecord, parent_models: list[str]
) -> tuple[str, list[Any]]:
    """Link a finished run to its dataset and its parents' models, and create its own model.

    Args:
        parent_models: ids of the models that the run starts from.

    Returns:
        The id of its model, empty without weights, and its test metrics. The caller logs these.
    """
    from mlflow.entities import (
        Dataset,
        DatasetInput,
        LoggedModelInput,
        LoggedModelOutput,
        LoggedModelStatus,
        Metric,
    )

    name, digest = record.facts["data"], record.facts["data.digest"]
    source = json.dumps({"dataset": name, "digest": digest, "note": record.facts["data.note"]})
    data = [DatasetInput(Dataset(name, digest, "mgm prepare", source))] if digest else []
    client.log_inputs(run_id, data, [LoggedModelInput(model) for model in parent_models])
    model = ""
    if record.facts["weights.sha256"]:
        made = client.create_logged_model(
            experiment_id,
            record.run_id,
            run_id,
            record.tags | {EXTERNAL: "true"},
            record.params,
            record.facts["verb"],
        )
        model = client.finalize_logged_model(made.model_id, LoggedModelStatus.READY).model_id
        client.log_outputs(run_id, [LoggedModelOutput(model, record.last)])
    tested = model or (parent_models[0] if len(parent_models) == 1 else None)
    tested_on = (name, digest) if digest else (None, None)
    return model, [
        Metric(*metric, tested, tested_on[0], tested_on[1], run_id) for metric in record.final
    ]


def register(results: Path, uri: str, run_ids: Iterable[str]) -> list[str]:
    """Register the models of mirrored runs in MLflow, and return one line per run.

    A model that is registered already keeps its version.

    Raises:
        UserError: a run is not in MLflow, or has no weights.
    """
    with writing(uri, results):
        tracker = Tracker(uri, results, create=False)
        for run_id in run_ids:
            if not any(run.model for run in tracker.runs.get(run_id, [])):
                raise UserError(
                    f"{run_id}: has no model in MLflow; name a finished pretraining or finetuning "
                    f"run of {results.name}"
                )
        return [
            f"{run_id}: version "
            f"{_version(tracker.client, run_id, tracker.runs[run_id][0].model)} in MLflow"
            for run_id in run_ids
        ]


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
    return str(
        client.create_model_version(
            name, held.artifact_location, held.source_run_id, model_id=model
        ).version
    )
