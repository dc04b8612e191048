"""All runs of a results folder as one pandas table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.errors import UserError
from mgm.results.archive import unpack
from mgm.results.result import RunStatus, examine
from mgm.spec import Finetune, Pretrain, Probe, Spec, data_name, parents, read_spec

# Integer columns that may be empty. Without a type of their own they would become floats.
INTEGERS = ("epochs", "seed", "n_test")
SPEC_COLUMNS = (
    "run_id",
    "verb",
    "dataset",
    "data",
    "backbone",
    "mask",
    "ratio",
    "edge",
    "guidance",
    "epochs",
    "seed",
    "parent",
)
RESULT_COLUMNS = ("n_test", "commit", "digest", "wall_s", "device")


# Joins the tables, and the rows, of a run that is in several.
SEPARATOR = " | "


def frame(results: Path, suite: Any = None) -> pd.DataFrame:
    """Read every run in `results`, one row per run, sorted by run id.

    Columns:
        run_id, dataset, backbone, mask, ratio, edge, guidance, epochs, seed: fields of the spec.
        verb: the stage.
        data: the dataset's name for readers.
        parent: run ids, joined by spaces.
        status: run, altered, failed, running or not run.
        why: the reason of any status other than run.
        table, row: where the run is in the tables, several joined by " | ". Empty if it is in
            none, or without a suite.
        metrics.NAME: one column per metric.
        n_test: number of test videos.
        commit: ends in -dirty, as in `git describe --dirty`.
        digest: digest of the data.
        wall_s, device: duration and device of the run.

    A fine-tuning or probe run has the mask, ratio, edge and guidance of the pretraining run that it
    starts from. If it starts from random weights, its mask is "none". Numbers are empty unless the
    status is `run`.

    Args:
        suite: a `mgm.study.suite.Suite`, as `mgm.study.suite.read_suite` returns it.

    Raises:
        UserError: there is no such folder.
    """
    specs = read_specs(results)
    statuses = examine_all(results, specs)
    shown = _shown(suite)
    rows = [
        _row(run_id, specs, statuses[run_id])
        | dict(zip(("table", "row"), map(SEPARATOR.join, zip(*shown.get(run_id, [("", "")])))))
        for run_id in sorted(statuses)
    ]
    metrics = sorted({name for row in rows for name in row if name.startswith("metrics.")})
    table = pd.DataFrame(
        rows, columns=[*SPEC_COLUMNS, "status", "why", "table", "row", *metrics, *RESULT_COLUMNS]
    )
    return table.astype(
        dict.fromkeys(INTEGERS, "Int64") | dict.fromkeys(["ratio", "wall_s", *metrics], "float64")
    )


def _shown(suite: Any) -> dict[str, list[tuple[str, str]]]:
    """Return the (table, row) pairs of each run that a table shows, without repetition."""
    shown: dict[str, dict[tuple[str, str], None]] = {}
    for study in suite.studies.values() if suite else ():
        for value in suite.values[study.study]:
            for table in study.parts:
                if study.shows(table, value.dataset, value.row, value.column):
                    shown.setdefault(value.run.run_id, {})[table, value.row] = None
    return {run_id: list(places) for run_id, places in shown.items()}


def read_specs(results: Path) -> dict[str, Spec | UserError]:
    """Return the spec of each run id, or the error that reading it raised.

    Specs are read from the runs' folders, and from `results`/specs.

    Raises:
        UserError: there is no such folder.
    """
    unpack(results)
    if not results.is_dir():
        raise UserError(
            f"{results}: no such folder of results; correct the name, or run its experiments first"
        )
    places = {path.stem: path for path in (results / "specs").glob("*.json")}
    for folder in results.iterdir():
        if (folder / "spec.json").exists() or (folder / "result.json").exists():
            places[folder.name] = folder / "spec.json"
    return {run_id: _spec(run_id, place) for run_id, place in places.items()}


def examine_all(
    results: Path,
    specs: Mapping[str, Spec | UserError],
    weights: bool = False,
) -> dict[str, RunStatus]:
    """Return the status of each run.

    If a run is altered, the runs that start from it are altered too, since the origin of their
    weights is unknown.

    Args:
        weights: verify the weights too, as `examine` does.
    """
    statuses: dict[str, RunStatus] = {}

    def state(run_id: str) -> str:
        if run_id not in statuses:
            spec = specs[run_id]
            if isinstance(spec, UserError):
                statuses[run_id] = RunStatus("altered", str(spec))
            else:
                statuses[run_id] = examine(results / run_id, spec, weights)
                known = [parent for parent in parents(spec) if parent in specs]
                if altered := [parent for parent in known if state(parent) == "altered"]:
                    why = f"{run_id}: its parent {altered[0]} is altered"
                    statuses[run_id] = RunStatus("altered", why)
        return statuses[run_id].state

    for run_id in specs:
        state(run_id)
    return statuses


def _spec(run_id: str, place: Path) -> Spec | UserError:
    try:
        spec = read_spec(place)
    except UserError as error:
        return error
    return (
        spec
        if spec.run_id == run_id
        else UserError(f"{place}: is the spec of {spec.run_id}, not of {run_id}")
    )


def _row(run_id: str, specs: Mapping[str, Spec | UserError], status: RunStatus) -> dict[str, Any]:
    row: dict[str, Any] = {"run_id": run_id, "status": status.state, "why": status.why}
    spec, result = specs[run_id], status.result
    if not isinstance(spec, UserError):
        note = result["data"]["note"] if result else ""
        from_random = isinstance(spec, Finetune | Probe) and not spec.parent
        row |= {
            "verb": spec.stage,
            "dataset": spec.data.dataset,
            "data": data_name(spec.data, note),
            "backbone": spec.model.backbone,
            "seed": spec.seed,
            "parent": " ".join(parents(spec)),
            "epochs": spec.optim.epochs if hasattr(spec, "optim") else None,
            "mask": "none" if from_random else None,
        }
        if start := pretraining_of(spec, specs):
            fields = start.mask.model_dump(include={"ratio", "edge", "guidance"})
            row |= fields | {"mask": start.mask.name}
    if result:
        row |= {f"metrics.{name}": value for name, value in result["metrics"].items()}
        row |= {name: result[name] for name in ("n_test", "wall_s", "device")}
        row |= {"commit": commit_of(result), "digest": result["data"]["digest"]}
    return row


def pretraining_of(
    spec: Spec | UserError, specs: Mapping[str, Spec | UserError]
) -> Pretrain | None:
    """Return the pretraining run that a run is or starts from; None if it has none or several."""
    while not isinstance(spec, UserError | Pretrain):
        above = [specs[parent] for parent in parents(spec) if parent in specs]
        if isinstance(spec, Finetune):
            above = above[:1]
        if len(above) != 1:
            return None
        [spec] = above
    return spec if isinstance(spec, Pretrain) else None


def commit_of(result: Mapping[str, Any]) -> str:
    """Return the commit of a result, in the format of `git describe --dirty`."""
    return result["commit"] + ("-dirty" if result["dirty"] else "")
