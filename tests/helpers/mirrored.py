"""Read what MLflow has of a results folder."""


def content(place, uri):
    """Return what MLflow has of each run, without its own ids and times, and without weights."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (experiment,) = [
        experiment for experiment in client.search_experiments() if experiment.name == place.name
    ]
    runs = client.search_runs([experiment.experiment_id])
    names = {run.info.run_id: run.data.tags["mgm.run"] for run in runs}
    assert len(set(names.values())) == len(runs)
    own = ("mlflow.user", "mlflow.runName", "mlflow.source.type", "weights.copied")
    models = {
        model.model_id: model.name
        for model in client.search_logged_models([experiment.experiment_id])
    }
    assert len(set(models.values())) == len(models)

    def linked(side):
        return [models[link.model_id] for link in (side or [])]

    return {
        run.data.tags["mgm.run"]: (
            run.info.run_name,
            run.info.status,
            run.info.end_time if run.info.status == "FINISHED" else None,
            run.data.params,
            {
                key: names.get(value, value)
                for key, value in run.data.tags.items()
                if key not in own
            },
            {
                key: sorted(
                    (point.step, point.timestamp, repr(point.value))
                    for point in client.get_metric_history(run.info.run_id, key)
                )
                for key in run.data.metrics
            },
            sorted(
                file.path
                for file in client.list_artifacts(run.info.run_id)
                if file.path != "weights.safetensors"
            ),
            linked(run.inputs and run.inputs.model_inputs),
            linked(run.outputs and run.outputs.model_outputs),
        )
        for run in runs
    }
