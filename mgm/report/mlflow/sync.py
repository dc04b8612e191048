"""Mirror results to MLflow, for its dashboard.

The files are the source. If the tracker is slow, down or deleted, nothing is lost. A results
folder is an MLflow experiment, and a run's folder is an MLflow run of the same name. The MLflow run
depends only on the folder. It is written whole, through MLflow's public client, if the folder's
digest differs from the tag `mgm.digest`. That tag is written last, so the next sync replaces a half
written run. A run in training keeps its MLflow run and gets only the new points.

Runs stay in MLflow after their folders are deleted. Weights are recorded by path and digest, and
copied only on request. A second process that mirrors the same results waits for the first.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mgm.console import show, track
from mgm.errors import UserError
from mgm.paper.registry import Registry
from mgm.reading import file_digest
from mgm.report.mlflow.record import DIGEST, STATUSES, Records, RunRecord, artifacts
from mgm.report.mlflow.tracker import (
    TrackedRun,
    Tracker,
    as_user_error,
    default_uri,
    log_model,
    writing,
)
from mgm.spec import parents

WEIGHTS = "weights.copied"  # tag: digest of the weights among the run's artefacts
BATCH = 800  # metrics per call; MLflow takes 1000 metrics, parameters and tags together
FOLLOW_S = 10.0  # seconds between two checks of the files


@dataclass(frozen=True)
class Summary:
    """Number of runs per outcome of a sync."""

    uri: str
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


def sync(
    registry: Registry,
    results: Path,
    uri: str = "",
    weights: bool = False,
    anew: Collection[str] = (),
) -> Summary:
    """Mirror the runs of `registry` that have files in `results` (`results/<name>`).

    Args:
        uri: MLflow's tracking address. The default is a database next to the results.
        weights: also copy the weights.
        anew: run ids to replace in MLflow, even if their digests are equal.

    Raises:
        UserError: the tracker cannot be reached or written.
    """
    uri, records = uri or default_uri(results), Records(registry, results)
    if not (digests := records.digests()):
        return Summary(uri)
    with writing(uri, results):
        return Mirror(uri, results).update(records, digests, weights, anew)


def follow(
    registry: Registry, results: Path, uri: str = "", weights: bool = False, every: float = FOLLOW_S
) -> None:
    """Mirror whenever a file has changed, until every run is finished.

    Print a line per sync to stdout. Print a tracker's error to stderr, and try again.
    """
    uri, records = uri or default_uri(results), Records(registry, results)
    mirrored: dict[str, str] = {}
    reported, finished = "", set[str]()
    while True:
        try:
            if (digests := records.digests()) != mirrored:
                with writing(uri, results):
                    mirror = Mirror(uri, results)
                    print(mirror.update(records, digests, weights), flush=True)
                finished = {
                    name
                    for name, runs in mirror.runs.items()
                    if runs and runs[0].tags.get("status") == "finished"
                }
                mirrored, reported = digests, ""
        except UserError as error:
            if str(error) != reported:
                show(f"mgm: {error}")
            reported = str(error)
        if finished >= registry.specs.keys():
            return
        time.sleep(every)


def check(registry: Registry, results: Path, uri: str = "") -> dict[str, list[str]]:
    """Compare MLflow with the files, without writing.

    Returns:
        Run id -> one line per difference in status, parameters, tags or last metrics.

    Raises:
        UserError: the tracker cannot be reached, or has no experiment for these results.
    """
    uri, records = uri or default_uri(results), Records(registry, results)
    if not (digests := records.digests()):
        return {}
    with as_user_error(uri, results):
        tracker = Tracker(uri, results, create=False)
    found = {
        record.run_id: list(_differences(tracker, record, digests[record.run_id]))
        for record in track(records.read(digests), "runs compared with MLflow", len(digests))
    }
    return {run_id: lines for run_id, lines in found.items() if lines}


def _differences(tracker: Tracker, record: RunRecord, digest: str) -> Iterator[str]:
    same = tracker.runs.get(record.run_id, [])
    if len(same) != 1:
        yield f"is in MLflow {len(same)} times"
        return
    run = same[0]
    held = {name: tag for name, tag in run.tags.items() if record.is_ours(name)}
    wanted = record.tags | tracker.nested(parents(record.spec)) | {DIGEST: digest}
    for kind, ours, theirs in (
        ("status", {"": run.status}, {"": STATUSES[record.status]}),
        ("parameter", run.params, record.params),
        ("tag", held, wanted),
        ("metric", run.metrics, record.latest),
    ):
        for name in sorted({*ours, *theirs}):
            if ours.get(name) != theirs.get(name):
                what = f"{kind} {name}".strip()
                yield (
                    f"{what} is {_shown(ours.get(name))} in MLflow, {_shown(theirs.get(name))} "
                    "in its files"
                )


def _shown(value: str | None) -> str:
    if value is None:
        return "missing"
    return repr(value if len(value) <= 60 else value[:59] + "\N{HORIZONTAL ELLIPSIS}")


class Mirror(Tracker):
    """MLflow experiment that is updated from a results folder."""

    def update(
        self,
        records: Records,
        digests: Mapping[str, str],
        weights: bool = False,
        anew: Collection[str] = (),
    ) -> Summary:
        """Write the runs that differ from MLflow.

        Parents come first, since a run refers to its parent's MLflow run.
        """
        specs, due = records.registry.specs, list[str]()
        for run_id, digest in digests.items():
            before = parents(specs[run_id])
            level = self._is_level(run_id, digest, before) and run_id not in anew
            if not level or not set(before).isdisjoint(due):
                due.append(run_id)
        counts = Counter(unchanged=len(digests) - len(due))
        for record in track(records.read(due), "runs mirrored to MLflow", len(due)):
            run_id, digest = record.run_id, digests[record.run_id]
            if run_id not in anew and self._is_level(run_id, digest, parents(record.spec)):
                counts["unchanged"] += 1
                continue
            counts["updated" if self.runs.get(run_id) else "created"] += 1
            self.runs[run_id] = [self._write(record, digest, self._kept(record, run_id in anew))]
        several = [run for runs in self.runs.values() for run in runs] if weights else []
        copies = sum(self._copy_weights(run, records.results) for run in several)
        return Summary(self.uri, **counts, weights=copies)

    def _is_level(self, run_id: str, digest: str, before: Collection[str]) -> bool:
        runs, tags = self.runs.get(run_id, []), self.nested(before) | {DIGEST: digest}
        return len(runs) == 1 and tags.items() <= runs[0].tags.items()

    def _kept(self, record: RunRecord, anew: bool) -> TrackedRun | None:
        """Return the MLflow run that this record continues, if any, and delete others."""
        held = self.runs.get(record.run_id, [])
        kept = next((run for run in held if not anew and record.continues(run.tags)), None)
        for run in held:
            if run is not kept:
                self.client.delete_run(run.id)
                if run.model:
                    self.client.delete_logged_model(run.model)
        return kept

    def _write(self, record: RunRecord, digest: str, kept: TrackedRun | None) -> TrackedRun:
        """Write the whole run, or only what the MLflow run `kept` lacks."""
        from mlflow import entities

        client, before = self.client, parents(record.spec)
        tags, others, model = record.tags | self.nested(before) | {DIGEST: digest}, {}, ""
        if kept:
            run_id = kept.id
            others = {name: tag for name, tag in kept.tags.items() if not record.is_ours(name)}
            for gone in kept.tags.keys() - tags.keys() - others.keys():
                client.delete_tag(run_id, gone)
        else:
            run = client.create_run(self.experiment_id, record.start, run_name=record.run_id)
            run_id = run.info.run_id
        points = record.curve_after(kept.tags) if kept else record.curve
        metrics = [entities.Metric(*point) for point in points]
        if record.status == "finished":
            models = [self.runs[name][0].model for name in before if self.runs.get(name)]
            model, tested = log_model(
                client, self.experiment_id, run_id, record, [*filter(None, models)]
            )
            metrics += tested
        while len(metrics) > BATCH:
            client.log_batch(run_id, metrics[:BATCH])
            metrics = metrics[BATCH:]
        params = [entities.Param(*pair) for pair in record.params.items()]
        client.log_batch(run_id, metrics, params)
        with TemporaryDirectory() as folder:
            for name, content in artifacts(record).items():
                (Path(folder) / name).write_bytes(content)
            client.log_artifacts(run_id, folder)
        if record.status != "running":
            client.set_terminated(run_id, STATUSES[record.status], record.end)
        elif kept:
            client.update_run(run_id, STATUSES[record.status])
        client.log_batch(run_id, tags=[entities.RunTag(*pair) for pair in tags.items()])
        return TrackedRun(run_id, others | tags, model)

    def _copy_weights(self, run: TrackedRun, results: Path) -> bool:
        """Copy a run's weights to its artefacts. Return False if nothing is to be copied."""
        wanted = run.tags.get("weights.sha256")
        path = results.parent / run.tags.get("weights.path", "")
        if not path.is_file() or run.tags.get(WEIGHTS) == wanted:
            return False
        if (found := file_digest(path)) != wanted:
            raise UserError(
                f"{path}: digest {found[:12]} differs from the result's {str(wanted)[:12]}; "
                "delete the run and run it again"
            )
        self.client.log_artifact(run.id, str(path))
        self.client.set_tag(run.id, WEIGHTS, wanted)
        run.tags[WEIGHTS] = str(wanted)
        return True
