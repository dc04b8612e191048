"""Weights as MLflow 3's logged models, for its pages of models: one a run that has weights, external, so nothing is copied.

A model carries its run's parameters and tags, among them the path and digest of its weights, and the run's test metrics on its dataset. A
finetuned run also names its parent's model as its input; a probe tests its parent's model, which then carries the probe's metrics.
"""

import json
from typing import Any

from mgm.report.mlflow.record import Record

EXTERNAL = "mlflow.model.isExternal"  # MLflow's tag: the weights are elsewhere
SHOWN = (
    *("verb", "status", "scale", "seed", "data", "data.digest"),
    *("table", "row", "column", "commit", "dirty", "weights.sha256", "weights.path"),
)


def log_model(client: Any, experiment_id: str, run_id: str, record: Record, parent_models: list[str]) -> tuple[str, list[Any]]:
    """Link a finished run in MLflow with its dataset and models, and make its own.

    Return its model's id, empty if it has no weights, and its test metrics, which name dataset and model and are yet to be logged.

    Args:
        parent_models: ids of the models that the run starts from.
    """
    from mlflow.entities import Dataset, DatasetInput, LoggedModelInput, LoggedModelOutput, LoggedModelStatus, Metric

    name, digest = record.facts["data"], record.facts.get("data.digest", "")
    source = json.dumps({"dataset": name, "digest": digest, "note": record.facts.get("data.note", "")})
    data = [DatasetInput(Dataset(name, digest, "mgm prepare", source))] if digest else []
    client.log_inputs(run_id, data, [LoggedModelInput(model) for model in parent_models])
    model = ""
    if record.facts.get("weights.sha256"):
        made = client.create_logged_model(experiment_id, record.run_id, run_id, model_tags(record), record.params, record.facts["verb"])
        model = client.finalize_logged_model(made.model_id, LoggedModelStatus.READY).model_id
        client.log_outputs(run_id, [LoggedModelOutput(model, record.last)])
    tested = model or (parent_models[0] if len(parent_models) == 1 else None)
    tested_on = (name, digest) if digest else (None, None)
    return model, [Metric(*metric, tested, tested_on[0], tested_on[1], run_id) for metric in record.final]


def model_tags(record: Record) -> dict[str, str]:
    return {tag: record.facts[tag] for tag in SHOWN if tag in record.facts} | {EXTERNAL: "true"}
