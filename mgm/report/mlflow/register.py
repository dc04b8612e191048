"""`mgm sync NAME --register RUN`: a run's logged model becomes a version of a registered model of MLflow, named by the run's id."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mgm.errors import UserError
from mgm.report.mlflow.sync import Tracker, as_user_error, lock


def register(results: Path, uri: str, run_ids: Iterable[str]) -> list[str]:
    """Register the models of runs that are mirrored, those that are not yet; return a line a run.

    Raises:
        UserError: a run is not in MLflow, or has no weights.
    """
    with lock(results), as_user_error(uri, results):
        tracker = Tracker(uri, results, create=False)
        for run_id in run_ids:
            if not any(run.model for run in tracker.runs.get(run_id, [])):
                raise UserError(f"{run_id}: has no model in MLflow; name a pretraining or finetuning run of {results.name} that is done")
        return [f"{run_id}: version {_version(tracker.client, run_id, tracker.runs[run_id][0].model)} in MLflow" for run_id in run_ids]


def _version(client: Any, name: str, model: str) -> str:
    """The version of registered model `name` that is this logged model; made if there is none."""
    from mlflow.models.utils import get_external_mlflow_model_spec

    held = client.get_logged_model(model)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.source == held.artifact_location:
            return str(version.version)
    with TemporaryDirectory() as folder:  # the registry wants a model's description among its artefacts
        get_external_mlflow_model_spec(held).save(str(Path(folder) / "MLmodel"))
        client.log_model_artifacts(model, folder)
    return str(client.create_model_version(name, held.artifact_location, held.source_run_id, model_id=model).version)
