"""Weights as MLflow 3's logged models, for its pages of models: one a run that has weights,
external, so nothing is copied.

A model carries its run's parameters and tags, among them the path and digest of its weights, and
the run's test metrics on its dataset. A finetuned run also names its parent's model as its input; a
probe tests its parent's model, which then carries the probe's metrics.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mgm.errors import UserError
from mgm.report.mlflow.record import RunRecord
from mgm.report.mlflow.tracker import Tracker, writing

EXTERNAL = "mlflow.model.isExternal"  # MLflow's tag: the weights are elsewhere


def log_model(
    client: Any, experiment_id: str, run_id: str, record: RunRecord, parent_models: list[str]
) -> tuple[str, list[Any]]:
    """Link a finished run in MLflow with its dataset and models, and make its own.

    Return its model's id, empty if it has no weights, and its test metrics, which name dataset and
    model and are yet to be logged.

    Args:
        parent_models: ids of the models that the run starts from.
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
    """Register the models of runs that are mirrored, those that are not yet; return a line per run.

    Raises:
        UserError: a run is not in MLflow, or has no weights.
    """
    with writing(uri, results):
        tracker = Tracker(uri, results, create=False)
        for run_id in run_ids:
            if not any(run.model for run in tracker.runs.get(run_id, [])):
                raise UserError(
                    f"{run_id}: has no model in MLflow; name a pretraining or finetuning run of "
                    f"{results.name} that is done"
                )
        return [
            f"{run_id}: version "
            f"{_version(tracker.client, run_id, tracker.runs[run_id][0].model)} in MLflow"
            for run_id in run_ids
        ]


def _version(client: Any, name: str, model: str) -> str:
    """The version of registered model `name` that is this logged model; made if there is none."""
    from mlflow.models.utils import get_external_mlflow_model_spec

    held = client.get_logged_model(model)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.source == held.artifact_location:
            return str(version.version)
    with (
        TemporaryDirectory() as folder
    ):  # the registry wants a model's description among its artefacts
        get_external_mlflow_model_spec(held).save(str(Path(folder) / "MLmodel"))
        client.log_model_artifacts(model, folder)
    return str(
        client.create_model_version(
            name, held.artifact_location, held.source_run_id, model_id=model
        ).version
    )
