"""Copy runs to MLflow, whose pages list and compare them.

The files are the source: if the tracker is down or deleted, nothing is lost. A results folder is an
experiment, which its tag names. Each run has two tags: its id, and the random id of its folder. So
two people who share a tracker touch only their own runs, and so do two copies of a folder. A run
that has grown is written again, one that was begun anew is copied anew, and one that is gone goes.

A run is written in one call, with the tag that says what was written. A tracker keeps a number
once, so a copy that was killed is written again.

A test has a tag per column of a study's tables, such as "table4e: Fine-tuned", whose value is its
row. So MLflow's groups by this tag are the column's numbers.
"""

import json
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import pandas as pd

from mgm.console import progress, show
from mgm.errors import UserError
from mgm.files import held as is_held
from mgm.files import locked, write_text
from mgm.results.frame import load
from mgm.results.run import FROZEN, LOCK, RESULT, Status, log_lines, status
from mgm.spec import Spec, dotted

RUN, FOLDER, STATE, NAME = "mgm.run", "mgm.folder", "mgm.state", "mgm.name"
LOGGED = ("loss", "lr", "grad_norm", "coverage", "trivial_loss", "clips_per_s", "memory_mb")
# A run that was stopped goes on later. MLflow shows KILLED in red, like FAILED.
STATUS = {"finished": "FINISHED", "failed": "FAILED", "damaged": "FAILED", "running": "RUNNING"}
STATUS |= dict.fromkeys(("stopped", "unknown", "not run"), "SCHEDULED")
ACCURACY = "top-1 accuracy"
# What a link shows. MLflow reads it from a tag of the experiment, SHARED with the link's last word.
SHARED, ALL = "mlflow.sharedViewState.", "mgm"
SCORE, SEED = f"metrics.`{ACCURACY}`", "tags.`seed`"
# What MLflow takes in one call: params, and all together. A log has 100 lines.
MOST_PARAMS, MOST, LINES = 100, 1000, 110
MOST_RUNS = 50_000  # per experiment; the most that MLflow returns at once
LONGEST = 5000  # characters per tag
# Settings of MLflow that the user has not set. They report an unreachable tracker in seconds, and
# keep its client from printing two lines per run.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Packages whose errors are the tracker's.
TRACKERS = ("mlflow", "sqlalchemy", "sqlite3", "urllib3", "requests")


def sync(folder: Path, uri: str = "") -> str:
    """Copy the runs of `folder` (results/NAME) to MLflow, and return what was done in words.

    A second process waits for the first.

    Args:
        uri: MLflow's tracking address. The default is results/mlflow.db.
    """
    place = folder.resolve().parent
    uri = uri or f"sqlite:///{place / 'mlflow.db'}"
    counts = Counter[str]()
    with locked(place / "mlflow.lock", "mgm sync"), _one_line(folder):
        published, own = load(folder.name, folder.parent), _id_of(folder)
        tests = _tests(published.frame)
        rows_of = defaultdict[str, dict[str, str]](dict)
        for run_id, tag, row in tests[["run_id", "tag", "row"]].to_numpy():
            # Rows that share a run are one group.
            rows_of[run_id][tag] = "; ".join(filter(None, [rows_of[run_id].get(tag), row]))
        cells = dict([*published.frame.groupby("run_id", sort=False)])
        client, experiment = _open(uri, folder.name, _views(tests, [*published.studies]))
        from mlflow.exceptions import MlflowException

        mine = f"tags.`{FOLDER}` = '{own}'"
        held = defaultdict[str, list[Any]](list)
        for run in client.search_runs([experiment], mine, max_results=MOST_RUNS):
            held[run.data.tags[RUN]].append(run)
        specs = published.specs
        states = {run_id: status(folder / run_id) for run_id in specs}
        begun = [run_id for run_id, now in states.items() if now.state != "not run"]
        for run_id in held.keys() - begun:
            for run in held[run_id]:
                client.delete_run(run.info.run_id)
                counts["deleted"] += 1
        for run_id in progress(begun, "runs copied to MLflow", len(begun)):
            spec, now, lines = specs[run_id], states[run_id], log_lines(folder / run_id)
            started, ended = _span(folder / run_id, now, lines)
            # One that started at another time was begun anew since.
            same = [run for run in held[run_id] if run.info.start_time == started]
            for run in held[run_id]:
                if run not in same[:1]:
                    client.delete_run(run.info.run_id)
            run = next(iter(same), None)
            shown = cells.get(run_id, published.frame[:0])
            first = rows_of[run_id] | {RUN: run_id, FOLDER: own}
            tags = first | _tags(spec, now, lines, shown)
            if run and tags.items() <= run.data.tags.items():
                counts["unchanged"] += 1
                continue
            try:
                counts["updated" if run else "created"] += 1
                if run is None:
                    run = client.create_run(experiment, started, first)
                _write(client, run.info.run_id, lines, spec, now, tags, shown, ended)
            except MlflowException as error:
                # One run that the tracker refuses does not stop the others.
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                counts["refused"] += 1
                show(f"{run_id}: refused by MLflow: {' '.join(str(error).split())[:300]}")
    usual, more = ("created", "updated", "unchanged"), ("deleted", "refused")
    words = ", ".join(f"{counts[n]} {n}" for n in (*usual, *filter(counts.get, more)))
    # Where a server of MLflow shows them.
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={ALL}"
    return f"runs in MLflow: {words}; {page}"


def follow(
    results: Path, name: str = "", uri: str = "", every: float = 10, server: str = ""
) -> None:
    """Copy what changes, also studies that begin later. Print a line per change.

    Args:
        server: address of MLflow's pages. Print where each folder's runs are, the newest last.
    """
    last, copied = dict[Path, str](), dict[Path, Any]()
    while True:
        for folder in sorted(folders(results, name), key=_newest):
            now, is_new = _state(folder), folder not in copied
            if copied.get(folder) == now:
                continue
            try:
                line = sync(folder, uri)
                copied[folder] = now
            except UserError as error:
                line = str(error)
            if line != last.get(folder) and "0 created, 0 updated" not in line:
                show(f"{folder}: {line}")
            if server and is_new and folder in copied:
                _wait_for(server)
                show(f"{folder}: open {server}/{line.rpartition('; ')[2]}")
            last[folder] = line
        if server and not last:
            last[results] = f"{results}: no study has begun; waiting for one"
            show(last[results])
        time.sleep(every)


def _wait_for(server: str) -> None:
    """Wait up to a minute until MLflow's pages can be opened, so that the address comes last."""
    for _ in range(60):
        with suppress(OSError), urlopen(f"{server}/health", timeout=5):
            return
        time.sleep(1)


def _newest(folder: Path) -> float:
    """Return when the last result of a folder was written."""
    return max((path.stat().st_mtime for path in folder.glob(f"*/{RESULT}")), default=0.0)


def _state(folder: Path) -> list[Any]:
    """Return when the files that the copy of a folder reads were written, and which runs go on."""
    files = [path for ending in ("json", "jsonl", "txt") for path in folder.glob(f"*/*.{ending}")]
    locks = [lock for lock in folder.glob(f"*/{LOCK}") if not (lock.parent / RESULT).exists()]
    return [(path, path.stat().st_mtime_ns) for path in files] + [*filter(is_held, locks)]


def folders(results: Path, name: str = "") -> list[Path]:
    """Return the results folder `name`, or all in which a study has begun."""
    return sorted(path.parent for path in results.glob(f"{name or '*'}/{FROZEN}"))


def _id_of(folder: Path) -> str:
    """Return the random id that a results folder has in trackers. A copy of it has its own.

    tracker.id has a line per place in which the folder was: an id, the device, the inode and the
    path. The same inode on another device is the same folder if its path is, on a network disk.
    """
    path, about = folder / "tracker.id", folder.stat()
    device, inode, place = str(about.st_dev), str(about.st_ino), str(folder.resolve())
    known = path.read_text().splitlines() if path.is_file() else []
    for number, line in enumerate(known):
        own, *where = line.split(" ", 3)
        if not where:
            # An older version has written the id alone.
            known[number] = f"{own} {device} {inode} {place}"
            write_text(path, "\n".join(known) + "\n")
            return own
        if where[1] == inode and (where[0] == device or where[2] == place):
            return own
    own = uuid4().hex
    write_text(path, "\n".join([*known, f"{own} {device} {inode} {place}"]) + "\n")
    if known:
        first = known[0].split(" ", 3)[-1]
        show(f"{folder}: is a copy of {first}, so it has runs of its own in MLflow")
    return own


def _tags(
    spec: Spec, now: Status, lines: Sequence[Mapping[str, Any]], cells: pd.DataFrame
) -> dict[str, str]:
    """Return what a run is shown and found by. `STATE` changes when its files do."""
    tags = {"stage": spec.stage, "seed": str(spec.seed), "status": now.state, "why": now.why}
    if result := now.result:
        tags |= {"commit": result.commit, "dirty": str(result.dirty), "device": result.device}
    # A run that several studies show has its name in the first.
    own = cells[cells.study == cells.study.iloc[0]] if len(cells) else cells
    row, title, column = ("; ".join(own[name].unique()) for name in ("row", "title", "column"))
    words = row, title, f"seed {spec.seed}", column or spec.stage
    tags["mlflow.runName"] = " / ".join(filter(None, words))
    tags["study"] = "; ".join(cells.study.unique())
    last = lines[-1]["step"] if lines else 0
    tags[STATE] = f"{now.state} {last} {result.finished if result else ''}"
    # MLflow keeps a tag that is left out, such as why a run had failed.
    return {key: text[:LONGEST] for key, text in tags.items() if text or key == "why"}


def _write(
    client: Any,
    mlflow_id: str,
    lines: Sequence[Mapping[str, Any]],
    spec: Spec,
    now: Status,
    tags: Mapping[str, str],
    cells: pd.DataFrame,
    ended: int,
) -> None:
    """Write a run. Its tags come with its numbers, last, so what was killed is written again."""
    from mlflow.entities import Metric, Param, RunTag

    fields = [*dotted(spec.model_dump(mode="json")).items()][:MOST_PARAMS]
    last = lines[-1]["step"] if lines else 0
    metrics = now.result.metrics if now.result else {}
    points = [Metric(*point, ended, last) for point in _shown(metrics, spec, cells)]
    points += [
        Metric(f"train/{name}", float(line[name]), _milliseconds(line["time"]), line["step"])
        for line in lines[:: 1 + len(lines) // LINES]
        for name in LOGGED
        if line.get(name) is not None
    ]
    if now.state == "running":
        client.update_run(mlflow_id, "RUNNING")
    else:
        client.set_terminated(mlflow_id, STATUS[now.state], ended)
    client.log_batch(
        mlflow_id,
        points[: MOST - len(fields) - len(tags)],
        [Param(key, str(value)) for key, value in fields],
        [RunTag(*tag) for tag in tags.items()],
    )


def _shown(
    metrics: Mapping[str, float], spec: Spec, cells: pd.DataFrame
) -> Iterator[tuple[str, float]]:
    """Yield the metrics of a result, named by the columns that show them: "Fine-tuned top-1"."""
    for metric, value in metrics.items():
        words = "top-1" if metric == "top1" else metric.replace("_", " ")
        own: list[Any] = [*cells[cells.metric == metric].itertuples()]
        names = {f"{cell.column} {cell.row if cell.control else words}" for cell in own}
        if metric == "top1":
            yield ACCURACY, value
        for name in sorted(names) or [f"{spec.stage} {words}"]:
            yield _valid(name) or spec.stage, value


def _valid(name: str) -> str:
    """Return a name without signs that MLflow refuses. It refuses paths too, such as ".."."""
    return re.sub(r"[^\w\-. :]", "", name)[:250].strip(" .")


def _tests(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of tests, those of fine-tuning first, with the `tag` of their column."""
    tests = frame[(frame.metric == "top1") & ~frame.control & ~frame.derived]
    several = tests.groupby("study").title.transform("nunique") > 1
    names = tests.study + ": " + (tests.title + ": ").where(several, "") + tests.column
    tests = tests.assign(tag=[*map(_valid, names)], probe=tests.stage != "finetune")
    return tests.sort_values("probe", kind="stable")


def _views(tests: pd.DataFrame, studies: Sequence[str]) -> dict[str, Any]:
    """Return what links show, by their last word.

    STUDY is the first column of a study's tables, by row, and STUDY-2 the second. ALL is the first
    column that has a number, or else all runs.
    """
    views = {ALL: _view("study")}
    for study in studies:
        views[study] = _view("study", searchFilter=f"tags.study LIKE '%{study}%'")
        own = tests[tests.study == study]
        for number, (tag, of) in enumerate(own.groupby("tag", sort=False), start=1):
            key = {"mode": "tag", "groupByData": tag}
            view = _view(
                str(tag),
                searchFilter=f"tags.`{tag}` != ''",
                groupBy={"aggregateFunction": "average", "groupByKeys": [key]},
                groupsExpanded={f"tag.{tag}.{row}": False for row in of.row},
            )
            views[f"{study}-{number}" if number > 1 else study] = view
            if "groupBy" not in views[ALL] and (of.status == "finished").any():
                views[ALL] = view
    return views


def _view(tag: str, **fields: Any) -> dict[str, Any]:
    """Return a state of MLflow's page of runs, with the column `tag`."""
    columns = [SCORE, f"tags.`{tag}`", SEED, "tags.`stage`", "tags.`status`"]
    widths = {"attributes.`Run Name`": 300, SCORE: 190, "runDateAndNestInfo": 125}
    return {
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", *columns, "duration", "runDateAndNestInfo"],
        "columnWidths": widths,  # pixels
        # MLflow loads 100 runs and averages those. In order of seeds, rows have as many.
        "orderByKey": SEED,
        "orderByAsc": True,
        **fields,
    }


def _span(folder: Path, now: Status, lines: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return a run's start and end, in milliseconds since 1970. Its pauses are left out.

    It starts with the first line of its log, which stays when it is continued.
    """
    result = now.result
    # A run that failed before its first step has only its spec.
    other = result.started if result else (folder / "spec.json").stat().st_mtime
    started = _milliseconds(lines[0]["time"] if lines else other)
    if result:
        return started, started + int(1000 * result.wall_s)
    return started, _milliseconds(lines[-1]["time"]) if lines else started


def _milliseconds(moment: str | float) -> int:
    """Convert seconds since 1970, or an ISO date, to milliseconds since 1970."""
    seconds = datetime.fromisoformat(moment).timestamp() if isinstance(moment, str) else moment
    return int(1000 * seconds)


def _open(uri: str, name: str, views: Mapping[str, Any]) -> tuple[Any, str]:
    """Return a client and the id of the experiment `name`, whose links show `views`."""
    for setting, value in SETTINGS.items():
        os.environ.setdefault(setting, value)
    # MLflow takes seconds to import, and reads these settings when it is imported.
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client = MlflowClient(tracking_uri=uri)
    named = client.search_experiments(ViewType.ALL, filter_string=f"tags.`{NAME}` = '{name}'")
    if found := next(iter(named), None) or client.get_experiment_by_name(name):
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        # It stays the folder's if a reader renames it.
        experiment = found.experiment_id
    else:
        experiment = client.create_experiment(name)
    tags = {
        NAME: name,
        # Else the page opens as one for traces of language models.
        "mlflow.experimentKind": "custom_model_development",
        **{SHARED + key: json.dumps(view) for key, view in views.items()},
    }
    for tag, text in tags.items():
        client.set_experiment_tag(experiment, tag, text)
    return client, experiment


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    """Turn the errors of a tracker into one line."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in TRACKERS:
            raise
        # An address may have a password.
        public = re.sub(r"://[^/\s]*@", "://", str(error))
        reason = " ".join(public.split())[:300]
        raise UserError(
            f"tracker: {reason}; nothing is lost, {folder} has all files; sync again when the "
            "tracker is up"
        ) from None
