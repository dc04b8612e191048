"""Mirrors results to MLflow, for its dashboard. The files are the truth: a tracker that is slow,
down or deleted loses nothing.

One experiment per results folder, one MLflow run per run folder, named by the run id. A tag,
`mgm.digest`, holds the signature of the files
that were mirrored: what has not changed is not read. A run that went on grows by what its record
has more, one that is no earlier state of its record is replaced. The tag is emptied first and
written last, so what an interruption leaves is replaced too. Runs whose folder is gone, and tags
that others gave, are left as they are. Weights stay where they are, named by path and digest,
unless copies are asked for.

results/<name>/mlflow-sync.json tells which files a sync found mirrored, in which state of the
database, so that the next one need not ask MLflow. Deleting it costs only time.

Of two that mirror at once the second waits for the first. Where folders cannot be locked (some
network file systems), and of copies, one that loses a run to the other says so and is to be called
again; the next sync removes what is there twice.
"""

import json
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mgm.console import show, track
from mgm.errors import UserError
from mgm.paper.registry import Registry
from mgm.reading import file_digest
from mgm.report.mlflow.artifacts import artifacts
from mgm.report.mlflow.models import log_model, model_tags
from mgm.report.mlflow.points import held_points, insert_points, point
from mgm.report.mlflow.record import Metric, Records, RunRecord, digest_of
from mgm.report.mlflow.tracker import PARENT, TrackedRun, Tracker, database, default_uri, writing
from mgm.results import files
from mgm.spec import parents

DIGEST, WEIGHTS = (
    "mgm.digest",
    "weights.copied",
)  # tags: signature of what was mirrored; digest of the copy in MLflow
BATCH = 800  # metrics in one call: MLflow takes 1000 metrics, parameters and tags together
FOLLOW_S = 10.0  # between two looks at the files
STATUS = {
    "finished": "FINISHED",
    "running": "RUNNING",
    "failed": "FAILED",
    "altered": "FAILED",
    "stopped": "KILLED",
}


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


def sync(
    registry: Registry,
    results: Path,
    uri: str = "",
    weights: bool = False,
    distrusted: Collection[str] = (),
) -> Summary:
    """Mirror the runs of `registry` that have left something in `results` (`results/<name>`) to the
    tracker at `uri`.

    Args:
        weights: copy the weights too.
        distrusted: run ids to be replaced in MLflow, whatever their tags say.

    Raises:
        UserError: the tracker cannot be reached or written to; nothing is lost.
    """
    uri, records, stamp = (
        uri or default_uri(results),
        Records(registry, results),
        results / "mlflow-sync.json",
    )
    signatures, total = records.signatures(), None
    state = _state(uri, signatures)
    if not signatures or (
        state and not (weights or distrusted) and stamp.is_file() and stamp.read_text() == state
    ):
        return Summary(uri, unchanged=len(signatures))
    with writing(uri, results):
        # until a look at the whole database finds nothing to do: only then the next sync need not
        # look
        while True:
            state = _state(
                uri, signatures
            )  # before the look: what is written meanwhile changes the database's file
            summary = Mirror(uri, results).update(records, signatures, distrusted, weights)
            total, weights, distrusted = total or summary, False, ()
            if not (summary.created or summary.updated):
                with suppress(OSError):  # results that cannot be written to: it costs only time
                    files.write(stamp, state)
                return total


def _state(uri: str, signatures: Mapping[str, str]) -> str:
    """What a sync finds, as JSON; empty for a tracker whose file is not here."""
    path = database(uri)
    if path is None or not path.exists():
        return ""
    stat = path.stat()
    return (
        json.dumps(
            {
                "uri": uri,
                "database": [stat.st_ino, stat.st_size, stat.st_mtime_ns],
                "runs": digest_of(signatures),
            }
        )
        + "\n"
    )


def follow(
    registry: Registry, results: Path, uri: str = "", weights: bool = False, every: float = FOLLOW_S
) -> None:
    """`sync` while jobs run, every few seconds in which a file changed, until every run is
    finished. Says on stdout what it did; a tracker that fails is named on stderr and tried
    again."""
    uri, records = uri or default_uri(results), Records(registry, results)
    mirrored: dict[str, str] = {}
    said, finished = "", set[str]()
    while True:
        try:
            if (signatures := records.signatures()) != mirrored:
                with writing(uri, results):
                    mirror = Mirror(uri, results)
                    print(mirror.update(records, signatures, (), weights), flush=True)
                finished = {
                    name
                    for name, runs in mirror.runs.items()
                    if runs and runs[0].tags.get("status") == "finished"
                }
                mirrored, said = signatures, ""
        except UserError as error:
            if str(error) != said:
                show(f"mgm: {error}")
            said = str(error)
        if finished >= registry.specs.keys():
            return
        time.sleep(every)


class Mirror(Tracker):
    """The experiment, whose runs become those of a results folder."""

    def update(
        self,
        records: Records,
        signatures: Mapping[str, str],
        distrusted: Collection[str],
        weights: bool,
    ) -> Summary:
        """Create, let grow or replace what is not level, parents first, for a run must name its
        parent's run in MLflow.
        """
        specs, due = records.registry.specs, dict[str, str]()
        for run_id, signature in signatures.items():
            is_level = run_id not in distrusted and self._is_level(
                run_id, self.nested(parents(specs[run_id])) | {DIGEST: signature}
            )
            if not is_level or any(parent in due for parent in parents(specs[run_id])):
                due[run_id] = signature
        counts = Counter(unchanged=len(signatures) - len(due))
        for record in track(records.read(due), "runs mirrored to MLflow", len(due)):
            tags = record.tags | self.nested(parents(record.spec)) | {DIGEST: due[record.run_id]}
            counts[self._update_run(record, tags, record.run_id not in distrusted)] += 1
        copies = (
            sum(
                self._copy_weights(run, records.results)
                for runs in self.runs.values()
                for run in runs
            )
            if weights
            else 0
        )
        return Summary(self.uri, **counts, weights=copies)

    def _is_level(self, run_id: str, tags: Mapping[str, str]) -> bool:
        runs = self.runs.get(run_id, [])
        return len(runs) == 1 and tags.items() <= runs[0].tags.items()

    def _update_run(self, record: RunRecord, tags: dict[str, str], is_trusted: bool) -> str:
        """Write a run where it is not level, and say what this was, in a word of `Summary`."""
        if is_trusted and self._is_level(record.run_id, tags):
            return "unchanged"
        tracked = self.runs.get(record.run_id, [])
        earlier = (
            (run, lacking)
            for run in tracked
            if is_trusted and (lacking := self._lacking(run, record, tags)) is not None
        )
        keep, points = next(earlier, (None, record.curve))
        for run in tracked:
            if run is not keep:
                self.client.delete_run(run.id)
                if run.model:
                    self.client.delete_logged_model(run.model)
        self.runs[record.run_id] = [self._write(record, tags, keep, points)]
        return "updated" if tracked else "created"

    def _lacking(
        self, run: TrackedRun, record: RunRecord, tags: Mapping[str, str]
    ) -> list[Metric] | None:
        """The points that the run in MLflow lacks, if it is wholly written and an earlier state of
        this record; else None.
        """
        there, wanted = (
            self.client.get_run(run.id),
            {point(metric): metric for metric in record.curve},
        )
        same = (
            bool(run.tags.get(DIGEST))
            and there.data.params == record.params
            and run.tags.get(PARENT) == tags.get(PARENT)
        )
        same &= run.tags.get("weights.sha256") in (None, tags.get("weights.sha256"))
        held = held_points(self.client, there)
        if not same or not held <= wanted.keys() | set(map(point, record.final)):
            return None
        return [metric for key, metric in wanted.items() if key not in held]

    def _write(
        self, record: RunRecord, tags: dict[str, str], run: TrackedRun | None, points: list[Metric]
    ) -> TrackedRun:
        """Create the run, or let it grow by these points."""
        from mlflow import entities

        client, others = self.client, dict[str, str]()
        if run:
            others = {name: tag for name, tag in run.tags.items() if not record.is_ours(name)}
            client.set_tag(run.id, DIGEST, "")
            for gone in run.tags.keys() - tags.keys() - others.keys():
                client.delete_tag(run.id, gone)
        was, run = (
            run,
            run
            or TrackedRun(
                client.create_run(
                    self.experiment_id, record.start, run_name=record.run_id
                ).info.run_id,
                {},
            ),
        )
        if not was and points and database(self.uri):
            insert_points(client, run.id, points)
            points = []
        metrics = [entities.Metric(*one) for one in points]
        if record.status == "finished" and run.tags.get("status") != "finished":
            models = [
                self.runs[name][0].model for name in parents(record.spec) if self.runs.get(name)
            ]
            run.model, tested = log_model(
                client, self.experiment_id, run.id, record, [*filter(None, models)]
            )
            metrics += tested
        elif run.model:
            client.set_logged_model_tags(run.model, model_tags(record))
        while len(metrics) > BATCH:
            client.log_batch(run.id, metrics[:BATCH])
            metrics = metrics[BATCH:]
        with TemporaryDirectory() as folder:
            for name, content in artifacts(record).items():
                (Path(folder) / name).write_bytes(content)
            client.log_artifacts(run.id, folder)
        if record.status != "running":
            client.set_terminated(run.id, STATUS[record.status], record.end)
        elif was:
            client.update_run(run.id, STATUS[record.status])
        params = [] if was else [entities.Param(*pair) for pair in record.params.items()]
        client.log_batch(run.id, metrics, params, [entities.RunTag(*pair) for pair in tags.items()])
        return TrackedRun(run.id, others | tags, run.model)

    def _copy_weights(self, run: TrackedRun, results: Path) -> bool:
        """Copy the weights among the run's artefacts; False: there are none, or MLflow has them."""
        wanted, path = (
            run.tags.get("weights.sha256"),
            results.parent / run.tags.get("weights.path", ""),
        )
        if not path.is_file() or run.tags.get(WEIGHTS) == wanted:
            return False
        if (found := file_digest(path)) != wanted:
            raise UserError(
                f"{path}: digest {found[:12]} is not the result's {str(wanted)[:12]}; delete the run and run it again"
            )
        self.client.log_artifact(run.id, str(path))
        self.client.set_tag(run.id, WEIGHTS, wanted)
        run.tags[WEIGHTS] = str(wanted)
        return True
