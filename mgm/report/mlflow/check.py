"""`mgm sync --check`: compare MLflow with the files. It writes nothing."""

from collections.abc import Iterator
from pathlib import Path

from mgm.console import track
from mgm.paper.registry import Registry
from mgm.report.mlflow.artifacts import artifacts
from mgm.report.mlflow.points import Point, held_points, point
from mgm.report.mlflow.record import Records, RunRecord
from mgm.report.mlflow.sync import DIGEST, STATUS
from mgm.report.mlflow.tracker import Tracker, as_user_error, default_uri
from mgm.spec import parents


def check(registry: Registry, results: Path, uri: str = "") -> dict[str, list[str]]:
    """Run id -> what differs between its files and MLflow, a line each: status, parameters, tags,
    every point of every metric, artefacts.

    Raises:
        UserError: the tracker cannot be reached, or has nothing of these results.
    """
    uri, records = uri or default_uri(results), Records(registry, results)
    signatures = records.signatures()
    if not signatures:
        return {}
    with as_user_error(uri, results):
        tracker = Tracker(uri, results, create=False)
        several = track(records.read(signatures), "runs compared with MLflow", len(signatures))
        found = {
            record.run_id: list(_differences(tracker, record, signatures[record.run_id]))
            for record in several
        }
    return {run_id: lines for run_id, lines in found.items() if lines}


def _differences(tracker: Tracker, record: RunRecord, signature: str) -> Iterator[str]:
    same, client = tracker.runs.get(record.run_id, []), tracker.client
    if len(same) != 1:
        yield f"is in MLflow {len(same)} times"
        return
    run = client.get_run(same[0].id)
    if run.info.status != STATUS[record.status]:
        yield f"status is {run.info.status} in MLflow, {STATUS[record.status]} by its files"
    tags = {name: value for name, value in run.data.tags.items() if record.is_ours(name)}
    yield from _unequal("parameter", run.data.params, record.params)
    yield from _unequal(
        "tag", tags, record.tags | tracker.nested(parents(record.spec)) | {DIGEST: signature}
    )
    models = (
        [client.get_logged_model(output.model_id) for output in run.outputs.model_outputs]
        if run.outputs
        else []
    )
    held_weights, weights = (
        [model.tags.get("weights.sha256", "") for model in models],
        record.tags.get("weights.sha256"),
    )
    if held_weights != [weights] * bool(weights):
        yield f"models in MLflow are of weights {held_weights}, {weights or 'none'} by its files"
    held, wanted = held_points(client, run), set(map(point, (*record.curve, *record.final)))
    for key in sorted({one[0] for one in held ^ wanted}):
        sides = [
            _told([one for one in some if one[0] == key]) for some in (held - wanted, wanted - held)
        ]
        yield f"metric {key} has {sides[0]} in MLflow alone, {sides[1]} in its files alone"
    files = {file.path for file in client.list_artifacts(run.info.run_id)} - {"weights.safetensors"}
    if missing := artifacts(record).keys() - files:
        yield f"artefacts {', '.join(sorted(missing))} are not in MLflow"


def _unequal(kind: str, held: dict[str, str], wanted: dict[str, str]) -> Iterator[str]:
    for name in sorted({*held, *wanted}):
        if held.get(name) != wanted.get(name):
            yield f"{kind} {name} is {_shown(held.get(name))} in MLflow, {_shown(wanted.get(name))} by its files"


def _shown(value: str | None) -> str:
    return (
        "missing"
        if value is None
        else repr(value if len(value) <= 60 else value[:59] + "\N{HORIZONTAL ELLIPSIS}")
    )


def _told(points: list[Point]) -> str:
    _, step, time, value = min(points, default=("", 0, 0, ""))
    return f"{len(points)} points ({value} at step {step}, {time} ms)" if points else "none"
