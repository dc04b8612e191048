"""Mirrors results to MLflow, for its dashboard. The files are the truth: a tracker that is slow, down or deleted loses nothing.

One experiment per results folder, one MLflow run per run folder, named by the run id and found again by the digest of what was mirrored:
what has not changed is not touched. A run that went on grows by the new lines of its log, one whose past is another is replaced. The
digest is taken away first and written last, so what an interruption leaves is replaced too. Runs whose folder is gone, and tags that
others gave, are left as they are. Weights stay where they are, named by path and digest, unless copies are asked for.

results/<name>/mlflow-sync.json keeps what was mirrored and to where, so that a sync with nothing to do need not read the files again.
Deleting it costs only time.

Of two that mirror at once the second waits for the first. Where folders cannot be locked (some network file systems), and of copies, both
write: one that loses a run to the other waits for its end and begins anew, and the next sync removes what is there twice.
"""

import json
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mgm.console import show, track
from mgm.errors import UserError
from mgm.experiments.registry import Registry
from mgm.report.mlflow.artifacts import artifacts
from mgm.report.mlflow.models import log_model, model_tags
from mgm.report.mlflow.points import insert_points
from mgm.report.mlflow.record import DIGEST, STEP, Entry, Record, Records, is_ours
from mgm.runs import files
from mgm.runs.lock import wait_for_flock
from mgm.spec import Spec, parents

PARENT, WEIGHTS = "mlflow.parentRunId", "weights.copied"  # tags: MLflow's own, by which its pages nest runs; digest of the copy in MLflow
BATCH = 800  # metrics in one call: MLflow takes 1000 metrics, parameters and tags together
TRIES = 5  # of a sync that loses runs to another
QUIET_S = 1.0  # longer than a run takes to be written
FOLLOW_S = 10.0  # between two looks at the files
STATUS = {"finished": "FINISHED", "running": "RUNNING", "failed": "FAILED", "altered": "FAILED", "stopped": "KILLED"}
SETTINGS = {  # of MLflow, unless the user has set them
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a tracker that is down is said to be so within seconds
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class RunDeletedError(Exception):
    """Another sync removed a run that this one was writing."""


@dataclass(frozen=True)
class Summary:
    uri: str
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    weights: int = 0

    def __str__(self) -> str:
        copied = f", weights of {self.weights} copied" if self.weights else ""
        return f"{self.created} runs created, {self.updated} updated, {self.unchanged} unchanged{copied} in {self.uri}"


@dataclass(frozen=True)
class Stamp:
    """What the last sync left: the runs it mirrored, where to, and the database's file as it was then (empty for a server)."""

    uri: str = ""
    database: list[int] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def read(cls, results: Path) -> "Stamp":
        """The stamp of `results`; an empty one where there is none that can be read."""
        try:
            fields = json.loads((results / "mlflow-sync.json").read_text())
            return cls(fields["uri"], fields["database"], {run_id: Entry(*entry) for run_id, entry in fields["runs"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    @classmethod
    def now(cls, uri: str, entries: dict[str, Entry]) -> "Stamp":
        path = _database(uri)
        facts = path.stat() if path and path.exists() else None
        return cls(uri, [facts.st_ino, facts.st_size, facts.st_mtime_ns] if facts else [], entries)

    def write(self, results: Path) -> None:
        with suppress(OSError):  # results that cannot be written to: it costs only time
            text = json.dumps({"uri": self.uri, "database": self.database, "runs": self.entries})
            files.write(results / "mlflow-sync.json", text + "\n")


def default_uri(results: Path) -> str:
    """One sqlite file for all names, beside their folders: results/mlflow.db."""
    return f"sqlite:///{results.resolve().parent / 'mlflow.db'}"


def sync(registry: Registry, results: Path, uri: str = "", weights: bool = False, distrusted: Collection[str] = ()) -> Summary:
    """Mirror the runs of `registry` that have left something in `results` (`results/<name>`) to the tracker at `uri`.

    Args:
        weights: copy the weights too.
        distrusted: run ids to be replaced in MLflow, whatever their digests say.

    Raises:
        UserError: the tracker cannot be reached or written to; nothing is lost.
    """
    uri, stamp = uri or default_uri(results), Stamp.read(results)
    records = Records(registry, results, stamp.entries)
    if not records.scan():
        return Summary(uri)
    with lock(results), as_user_error(uri, results):
        if stamp.database and stamp == Stamp.now(uri, records.entries) and not (weights or distrusted):
            return Summary(uri, unchanged=len(records.entries))
        return _reconcile(uri, results, records, weights, distrusted)


def follow(registry: Registry, results: Path, uri: str = "", weights: bool = False, every: float = FOLLOW_S) -> None:
    """`sync` while jobs run, every few seconds in which a file changed, until every run is finished. Says on stdout what it did; a tracker
    that fails is named on stderr and tried again."""
    uri, records = uri or default_uri(results), Records(registry, results, Stamp.read(results).entries)
    mirrored: list[str] = []  # digests of what MLflow has
    said = ""
    while True:
        entries = records.scan().values()
        digests, finished = [entry.digest for entry in entries], sum(entry.status == "finished" for entry in entries)
        try:
            if digests != mirrored:
                with lock(results), as_user_error(uri, results):
                    print(_reconcile(uri, results, records, weights, until_level=False), flush=True)
            mirrored, said = digests, ""
        except UserError as error:
            if str(error) != said:
                show(f"mgm: {error}")
            said = str(error)
        if digests == mirrored and finished == len(registry.specs):
            return
        time.sleep(every)


def _reconcile(
    uri: str, results: Path, records: Records, weights: bool, distrusted: Collection[str] = (), until_level: bool = True
) -> Summary:
    """Reconcile MLflow with `records`, again if another sync takes runs away, and stamp what was mirrored.

    Args:
        until_level: look again, until a look at the whole database finds nothing to do; only then the next sync need not look.
    """
    total = Summary(uri)
    for _ in range(TRIES):
        stamp = Stamp.now(uri, records.entries)  # before the look: what another sync writes meanwhile changes the database's file
        try:
            summary = Tracker(uri, results).reconcile(records, weights, distrusted)
        except RunDeletedError:
            _wait_until_quiet(uri, results)
            continue
        is_level = not (summary.created or summary.updated)
        if total == Summary(uri):
            total = summary
        if is_level or not until_level or not stamp.database:
            replace(stamp, database=stamp.database if is_level else []).write(results)
            return total
        weights, distrusted = False, ()
    raise UserError(f"{uri}: other syncs of {results.name} go on changing its runs; sync again when they have ended")


def _wait_until_quiet(uri: str, results: Path) -> None:
    """Let the other sync end: return when nothing has changed in MLflow for a time. It is random, lest two wait for each other and go on
    together, each removing what the other begins."""
    before, now = None, Tracker(uri, results).runs
    while now != before:
        time.sleep(random.uniform(QUIET_S, 3 * QUIET_S))
        before, now = now, Tracker(uri, results).runs


@dataclass
class TrackedRun:
    """A run in MLflow."""

    id: str
    tags: dict[str, str]
    model: str = ""  # id of the logged model of its weights


class Tracker:
    """The experiment of a results folder in MLflow, and its runs as they were when it was opened or as they were written since."""

    def __init__(self, uri: str, results: Path, create: bool = True):
        """
        Raises:
            UserError: there is no such experiment, and it is not to be made.
            OSError, sqlite3.Error: the database cannot be made or read.
        """
        missing = UserError(f"{uri}: has no experiment {results.name}; run `mgm sync {results.name}` first")
        if path := _database(uri):
            if not create and not path.exists():
                raise missing
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path, timeout=10)) as database:  # MLflow itself would try a broken file for minutes
                database.execute("SELECT name FROM sqlite_master").fetchall()
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        with fast_sqlite():
            self.uri, self.client = uri, MlflowClient(tracking_uri=uri)
            experiment = self.client.get_experiment_by_name(results.name)
            if experiment is None and not create:
                raise missing
            if experiment and experiment.lifecycle_stage == "deleted":
                self.client.restore_experiment(experiment.experiment_id)
            beside = None if uri.startswith("http") else (results.resolve().parent / "mlflow-artifacts" / results.name).as_uri()
            self.experiment_id = experiment.experiment_id if experiment else self._create(results.name, beside)
            self.runs: dict[str, list[TrackedRun]] = {}
            for run in self.search_runs():
                models = [output.model_id for output in run.outputs.model_outputs] if run.outputs else []
                self.runs.setdefault(run.info.run_name, []).append(TrackedRun(run.info.run_id, dict(run.data.tags), *models[:1]))

    def _create(self, name: str, beside: str | None) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.create_experiment(name, beside)
        except MlflowException:  # another sync was quicker, of a copy of these results
            if experiment := self.client.get_experiment_by_name(name):
                return experiment.experiment_id
            raise

    def search_runs(self) -> Iterator[Any]:
        token: str | None = None
        while token != "":
            found = self.client.search_runs([self.experiment_id], max_results=1000, page_token=token)
            yield from found
            token = found.token or ""

    def reconcile(self, records: Records, weights: bool = False, distrusted: Collection[str] = ()) -> Summary:
        """Make the runs of MLflow those of `records`."""
        specs, due = records.registry.specs, dict[str, Entry]()
        for run_id, entry in records.entries.items():
            wanted, runs = self._nested(specs[run_id]) | {DIGEST: entry.digest}, self.runs.get(run_id, [])
            is_level = len(runs) == 1 and wanted.items() <= runs[0].tags.items()
            if run_id in distrusted or not is_level or any(parent in due for parent in parents(specs[run_id])):
                due[run_id] = entry
        counts = Counter[str](unchanged=len(records.entries) - len(due))
        with fast_sqlite():
            for run_id, entry in track(due.items(), "runs mirrored to MLflow", len(due)):
                counts[self._reconcile_run(run_id, entry, records, run_id not in distrusted)] += 1
            copies = sum(self._copy_weights(record) for run_id in records.entries if (record := records.read(run_id))) if weights else 0
        return Summary(self.uri, **counts, weights=copies)

    def _nested(self, spec: Spec) -> dict[str, str]:
        """The tag by which MLflow's pages show a run below its parent."""
        return next(({PARENT: self.runs[name][0].id} for name in parents(spec) if self.runs.get(name)), {})

    def _reconcile_run(self, run_id: str, entry: Entry, records: Records, is_trusted: bool) -> str:
        tracked, nested = self.runs.get(run_id, []), self._nested(records.registry.specs[run_id])
        wanted = nested | {DIGEST: entry.digest}
        keep = next((run for run in tracked if is_trusted and wanted.items() <= run.tags.items()), None)
        record = None if keep else records.read(run_id)
        if record:
            keep = next((run for run in tracked if is_trusted and nested.items() <= run.tags.items() and record.continues(run.tags)), None)
        for run in tracked:
            if run is not keep:
                self.client.delete_run(run.id)
                if run.model:
                    self.client.delete_logged_model(run.model)
        if record:
            keep = self._write(record, record.tags | nested, keep)
            records.entries[run_id] = entry._replace(status=record.status, digest=record.digest)
        self.runs[run_id] = [keep] if keep else []
        return "created" if not tracked else "unchanged" if len(tracked) == 1 and not record else "updated"

    def _write(self, record: Record, tags: dict[str, str], keep: TrackedRun | None) -> TrackedRun:
        """Create the run, or let `keep` grow."""
        from mlflow.entities import Metric, Param, RunTag

        client = self.client
        run_id = keep.id if keep else client.create_run(self.experiment_id, record.start, run_name=record.run_id).info.run_id
        done, others, model = -1, dict[str, str](), keep.model if keep else ""
        with self._noticing_deletion(run_id):
            if keep:
                done, others = int(keep.tags[STEP]), {name: tag for name, tag in keep.tags.items() if not is_ours(name)}
                client.set_tag(run_id, DIGEST, "")
                for gone in keep.tags.keys() - tags.keys() - others.keys():
                    client.delete_tag(run_id, gone)
            points = [point for point in record.curve if point[3] > done]
            if not keep and points and _database(self.uri):
                insert_points(client, run_id, points)
                points = []
            metrics = [Metric(*point) for point in points]
            if record.status == "finished" and not (keep and keep.tags.get("status") == "finished"):
                models = [self.runs[name][0].model for name in record.parents if self.runs.get(name)]
                model, tested = log_model(client, self.experiment_id, run_id, record, [*filter(None, models)])
                metrics += tested
            elif model:
                client.set_logged_model_tags(model, model_tags(record))
            while len(metrics) > BATCH:
                client.log_batch(run_id, metrics[:BATCH])
                metrics = metrics[BATCH:]
            with TemporaryDirectory() as folder:
                for name, content in artifacts(record).items():
                    (Path(folder) / name).write_bytes(content())
                client.log_artifacts(run_id, folder)
            if record.status != "running":
                client.set_terminated(run_id, STATUS[record.status], record.end)
            elif keep:
                client.update_run(run_id, STATUS[record.status])
            params = [] if keep else [Param(*pair) for pair in record.params.items()]
            client.log_batch(run_id, metrics, params, [RunTag(*pair) for pair in tags.items()])
        return TrackedRun(run_id, others | tags, model)

    @contextmanager
    def _noticing_deletion(self, run_id: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException:
            if self.client.get_run(run_id).info.lifecycle_stage == "deleted":
                raise RunDeletedError(run_id) from None
            raise

    def _copy_weights(self, record: Record) -> bool:
        """Copy the weights among the run's artefacts; False: there are none, or MLflow has them."""
        wanted, run = record.facts.get("weights.sha256", ""), self.runs[record.run_id][0]
        if record.weights is None or run.tags.get(WEIGHTS) == wanted:
            return False
        if (found := files.file_digest(record.weights)) != wanted:
            raise UserError(f"{record.weights}: digest {found[:12]} is not the result's {wanted[:12]}; delete the run and run it again")
        with self._noticing_deletion(run.id):
            self.client.log_artifact(run.id, str(record.weights))
            self.client.set_tag(run.id, WEIGHTS, wanted)
        run.tags[WEIGHTS] = wanted
        return True


@contextmanager
def lock(results: Path) -> Iterator[None]:
    """Be the one process that mirrors these results, or others beside them, to a tracker."""
    folder = os.open(results.resolve().parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # folders cannot be locked here; see above
            wait_for_flock(folder, f"{results.parent}: another process mirrors to MLflow; waiting for it")
        yield
    finally:
        os.close(folder)


def _database(uri: str) -> Path | None:
    """The file of a sqlite tracker."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextmanager
def fast_sqlite() -> Iterator[None]:
    """Let sqlite not wait for the disk at each of MLflow's many commits: what a power cut takes, the next sync brings back."""
    from sqlalchemy import Engine, event

    def connected(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA cache_size = -200000")  # 200 MB: indexes of millions of points are written all over

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


@contextmanager
def as_user_error(uri: str, results: Path) -> Iterator[None]:
    """Say in one line what a tracker fails with. What is no error of files, network, database or MLflow is a mistake of ours and keeps its
    traceback."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, OSError | sqlite3.Error):
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError
            from urllib3.exceptions import HTTPError

            if not isinstance(error, MlflowException | SQLAlchemyError | HTTPError):
                raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"tracker {uri}: {reason}; nothing is lost, {results} has it all; sync again when the tracker is up") from None
