"""Mirrors results to MLflow, for its dashboard. The files are the truth: a tracker that is slow, down or deleted loses nothing.

One experiment per results folder, one MLflow run per run folder, named by the run id and found again by the digest of what was mirrored:
what has not changed is not touched. A run that went on grows by the new lines of its log, one whose past is another is replaced. The
digest is taken away first and written last, so what an interruption leaves is replaced too. Runs whose folder is gone, and tags that
others gave, are left as they are. Weights stay where they are, named by path and digest, unless copies are asked for.

Of two that mirror at once the second waits for the first. Where folders cannot be locked (some network file systems), and of copies, both
write: one that loses a run to the other waits for its end and begins anew, and the next sync removes what is there twice.
"""

import fcntl
import gc
import os
import random
import sqlite3
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mgm.errors import UserError
from mgm.experiments.registry import Registry
from mgm.report.mlflow import artifacts as album
from mgm.report.mlflow.record import DIGEST, FINAL, STEP, Mirror, Mirrors, digest_of, is_ours
from mgm.runs.files import file_digest

PARENT, WEIGHTS = "mlflow.parentRunId", "weights.copied"  # tags: MLflow's own, by which its pages nest runs; digest of the copy in MLflow
BATCH = 1000  # MLflow's limit of metrics in one call
TRIES, TAKEN = 5, "Current state is deleted"  # MLflow's words, where another sync removed a run that this one still writes, as there twice
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
MIRRORED = """SELECT runs.name, tags.value FROM runs JOIN experiments ON experiments.experiment_id = runs.experiment_id
    LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = ?
    WHERE experiments.name = ? AND runs.lifecycle_stage = 'active'"""


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
    uri = uri or default_uri(results)
    mirrors = Mirrors(registry, results).read()
    if not mirrors:
        return Summary(uri)
    with _alone(results), one_line(uri, results):
        if not (weights or distrusted) and _read_sqlite(uri, results.name) >= {(mirror.run_id, (mirror.digest,)) for mirror in mirrors}:
            return Summary(uri, unchanged=len(mirrors))  # without importing mlflow, which takes longer than all the rest
        for _ in range(TRIES - 1):
            try:
                return Tracker(uri, results).level(mirrors, weights, distrusted)
            except Exception as error:
                if TAKEN not in str(error):
                    raise
            _until_quiet(uri, results)
        return Tracker(uri, results).level(mirrors, weights, distrusted)


def _until_quiet(uri: str, results: Path) -> None:
    """Let the other sync end: return when nothing has changed in MLflow for a time. It is random, lest two wait for each other and go on
    together, each removing what the other begins."""
    before, now = None, Tracker(uri, results).held
    while now != before:
        time.sleep(random.uniform(QUIET_S, 3 * QUIET_S))
        before, now = now, Tracker(uri, results).held


def follow(registry: Registry, results: Path, uri: str = "", weights: bool = False, every: float = FOLLOW_S) -> None:
    """`sync` while jobs run, every few seconds in which a file changed, until every run is finished. Says on stdout what it did; a tracker
    that fails is named on stderr and tried again."""
    uri = uri or default_uri(results)
    reader, told = Mirrors(registry, results), ""
    level: list[str] = []  # digests of what MLflow has
    while True:
        mirrors = reader.read()
        digests = [mirror.digest for mirror in mirrors]
        try:
            if digests != level:
                with _alone(results), one_line(uri, results):
                    print(Tracker(uri, results).level(mirrors, weights), flush=True)
            level, told = digests, ""
        except UserError as error:
            if str(error) != told:
                print(f"mgm: {error}", file=sys.stderr, flush=True)
            told = str(error)
        if digests == level and sum(mirror.status == "finished" for mirror in mirrors) == len(registry.specs):
            return
        time.sleep(every)


@dataclass
class Held:
    """A run in MLflow."""

    id: str
    tags: dict[str, str]


class Tracker:
    """The experiment of a results folder in MLflow, and its runs as they were when it was opened or as they were written since."""

    def __init__(self, uri: str, results: Path, create: bool = True):
        """
        Raises:
            UserError: there is no such experiment, and it is not to be made.
        """
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        with _quick():
            self.uri, self.client = uri, MlflowClient(tracking_uri=uri)
            experiment = self.client.get_experiment_by_name(results.name)
            if experiment is None and not create:
                raise UserError(f"{uri}: has no experiment {results.name}; run `mgm sync {results.name}` first")
            if experiment and experiment.lifecycle_stage == "deleted":
                self.client.restore_experiment(experiment.experiment_id)
            beside = None if uri.startswith("http") else (results.resolve().parent / "mlflow-artifacts" / results.name).as_uri()
            self.experiment_id = experiment.experiment_id if experiment else self._created(results.name, beside)
            self.held: dict[str, list[Held]] = {}
            for run in self.runs():
                self.held.setdefault(run.info.run_name, []).append(Held(run.info.run_id, dict(run.data.tags)))

    def _created(self, name: str, beside: str | None) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.create_experiment(name, beside)
        except MlflowException:  # another sync was quicker, of a copy of these results
            if experiment := self.client.get_experiment_by_name(name):
                return experiment.experiment_id
            raise

    def runs(self) -> Iterator[Any]:
        token: str | None = None
        while token != "":
            found = self.client.search_runs([self.experiment_id], max_results=500, page_token=token)
            yield from found
            token = found.token or ""

    def level(self, mirrors: Sequence[Mirror], weights: bool = False, distrusted: Collection[str] = ()) -> Summary:
        """Make the runs of MLflow those of `mirrors`, whose parents come first."""
        counts = {"created": 0, "updated": 0, "unchanged": 0}
        with _quick():
            for mirror in mirrors:
                old = sorted(self.held.get(mirror.run_id, []), key=lambda held: held.tags.get(DIGEST) != mirror.digest)
                keep = next((held for held in old if mirror.run_id not in distrusted and mirror.continues(held.tags)), None)
                for held in old:
                    if held is not keep:
                        self.client.delete_run(held.id)
                parent = next((self.held[name][0].id for name in mirror.parents if name in self.held), "")
                tags = mirror.tags | ({PARENT: parent} if parent else {})
                if keep and tags.items() <= keep.tags.items():
                    changed = False
                else:
                    keep, changed = self._write(mirror, tags, keep), True
                self.held[mirror.run_id] = [keep]
                counts["unchanged" if not changed else "updated" if old else "created"] += 1
            copies = sum(self._copy_weights(mirror) for mirror in mirrors) if weights else 0
        return Summary(self.uri, **counts, weights=copies)

    def _write(self, mirror: Mirror, tags: dict[str, str], keep: Held | None) -> Held:
        """Create the run, or let `keep` grow."""
        from mlflow.entities import Metric, Param, RunTag

        client = self.client
        if keep:
            run_id, done, others = keep.id, int(keep.tags[STEP]), {name: tag for name, tag in keep.tags.items() if not is_ours(name)}
            client.set_tag(run_id, DIGEST, "")
            for gone in keep.tags.keys() - tags.keys() - others.keys():
                client.delete_tag(run_id, gone)
        else:
            run_id, done, others = client.create_run(self.experiment_id, mirror.start, run_name=mirror.run_id).info.run_id, -1, {}
        final = [] if keep and keep.tags[FINAL] == digest_of(mirror.final) else mirror.final
        metrics = [*(Metric(*metric) for metric in mirror.curve if metric[3] > done), *(Metric(*metric) for metric in final)]
        for start in range(0, len(metrics), BATCH):
            client.log_batch(run_id, metrics[start : start + BATCH])
        with TemporaryDirectory() as folder:
            album.write(mirror, Path(folder))
            client.log_artifacts(run_id, folder)
        if mirror.status != "running":
            client.set_terminated(run_id, STATUS[mirror.status], mirror.end)
        elif keep:
            client.update_run(run_id, STATUS[mirror.status])
        params = [] if keep else [Param(*pair) for pair in mirror.params.items()]
        client.log_batch(run_id, params=params, tags=[RunTag(*pair) for pair in tags.items()])
        return Held(run_id, others | tags)

    def _copy_weights(self, mirror: Mirror) -> bool:
        """The weights among the run's artefacts; False: there are none, or MLflow has them."""
        wanted, held = mirror.facts.get("weights.sha256", ""), self.held[mirror.run_id][0]
        if mirror.weights is None or held.tags.get(WEIGHTS) == wanted:
            return False
        if (found := file_digest(mirror.weights)) != wanted:
            raise UserError(f"{mirror.weights}: digest {found[:12]} is not the result's {wanted[:12]}; delete the run and run it again")
        self.client.log_artifact(held.id, str(mirror.weights))
        self.client.set_tag(held.id, WEIGHTS, wanted)
        held.tags[WEIGHTS] = wanted
        return True


@contextmanager
def _alone(results: Path) -> Iterator[None]:
    """The one process that mirrors these results, or others beside them, to a tracker."""
    folder = os.open(results.resolve().parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{results.parent}: another process mirrors to MLflow; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            pass  # folders cannot be locked here; see above
        yield
    finally:
        os.close(folder)


def _read_sqlite(uri: str, experiment: str) -> set[tuple[str, tuple[str, ...]]]:
    """(run id, digests) of what is mirrored, read past MLflow; empty for another kind of tracker, or a file without its tables.

    Raises:
        OSError, sqlite3.Error: the file cannot be made or opened (MLflow itself would try for minutes).
    """
    if not uri.startswith("sqlite:///"):
        return set()
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=10)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return set()
        rows = database.execute(MIRRORED, (DIGEST, experiment)).fetchall()
    digests: dict[str, tuple[str, ...]] = {}
    for name, digest in rows:
        digests[name] = (*digests.get(name, ()), digest)
    return set(digests.items())


@contextmanager
def _quick() -> Iterator[None]:
    """MLflow's database layer without its two largest costs: waiting for the disk at each of sqlite's many commits (what a power cut
    takes, the next sync brings back), and Python looking for garbage among the millions of objects that metrics become."""
    from sqlalchemy import Engine, event

    def connected(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connected)
    before = gc.get_threshold()
    gc.set_threshold(200_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        event.remove(Engine, "connect", connected)


@contextmanager
def one_line(uri: str, results: Path) -> Iterator[None]:
    """Whatever a tracker fails with, in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _is_trackers(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"tracker {uri}: {reason}; nothing is lost, {results} has it all; sync again when the tracker is up") from None


def _is_trackers(error: Exception) -> bool:
    """Of the file system, the network, the database or MLflow; anything else is a mistake of ours and keeps its traceback."""
    return isinstance(error, OSError | sqlite3.Error) or type(error).__module__.split(".")[0] in (
        "mlflow",
        "sqlalchemy",
        "requests",
        "urllib3",
    )
