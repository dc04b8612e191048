"""Read what MLflow has of a results folder."""


def content(place, uri):
    """Return what MLflow has of each run, without its own ids and times."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(place.name)
    runs = client.search_runs([experiment.experiment_id], max_results=50_000)
    names = {run.info.run_id: run.data.tags["mgm.run"] for run in runs}
    assert len(set(names.values())) == len(runs)
    own = ("mlflow.user", "mlflow.runName", "mlflow.source.type")
    return {
        run.data.tags["mgm.run"]: (
            run.info.run_name,
            run.info.status,
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
        )
        for run in runs
    }
