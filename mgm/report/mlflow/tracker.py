"""The experiment of a results folder in MLflow:

opened, locked, its runs found, its failures said in one line.
"""

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgm.errors import UserError
from mgm.report.mlflow.record import PARENT, number_text
from mgm.results.lock import wait_for_flock

SETTINGS = {  # of MLflow, unless the user has set them
    # a tracker that is down is said to be so within seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def default_uri(results: Path) -> str:
    """One sqlite file for all names, beside their folders: results/mlflow.db."""
    return f"sqlite:///{results.resolve().parent / 'mlflow.db'}"


def database(uri: str) -> Path | None:
    """The file of a sqlite tracker."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@dataclass
class TrackedRun:
    """A run in MLflow. Of one that was written just now, the last three are empty."""

    id: str
    tags: dict[str, str]
    model: str = ""  # id of the logged model of its weights
    status: str = ""
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)  # the last of each


class Tracker:
    """The experiment of `results`, with `runs` by run id as they were when it was opened or as they
    were written since.
    """

    def __init__(self, uri: str, results: Path, create: bool = True):
        """
        Raises:
            UserError: there is no such experiment, and it is not to be made.
            OSError, sqlite3.Error: the database cannot be made or read.
        """
        missing = UserError(
            f"{uri}: has no experiment {results.name}; run `mgm sync {results.name}` first"
        )
        if path := database(uri):
            if not create and not path.exists():
                raise missing
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(
                sqlite3.connect(path, timeout=10)
            ) as file:  # MLflow itself would try a broken file for minutes
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
        beside = (
            None
            if uri.startswith("http")
            else (results.resolve().parent / "mlflow-artifacts" / results.name).as_uri()
        )
        self.experiment_id = (
            experiment.experiment_id
            if experiment
            else self.client.create_experiment(results.name, beside)
        )
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
        """The tag by which MLflow's pages show a run below its parent."""
        return next(
            ({PARENT: self.runs[name][0].id} for name in parents if self.runs.get(name)), {}
        )


@contextmanager
def writing(uri: str, results: Path) -> Iterator[None]:
    """Let one process at a time mirror a folder of results to a tracker.

    Where folders cannot be locked, nothing is held.
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
    """Let sqlite not wait for the disk at each of MLflow's many commits:

    what a power cut takes, the next sync brings back.
    """
    from sqlalchemy import Engine, event

    def connected(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(
                "PRAGMA cache_size = -200000"
            )  # 200 MB: indexes of millions of points are written all over

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


@contextmanager
def as_user_error(uri: str, results: Path) -> Iterator[None]:
    """Say in one line what a tracker fails with. What is no error of files, network, database or
    MLflow is a mistake of ours and keeps its traceback."""
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
            f"tracker {uri}: {reason}; nothing is lost, {results} has it all; sync again when "
            "the tracker is up"
        ) from None
