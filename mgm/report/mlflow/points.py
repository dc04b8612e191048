"""The points of a new run's curves, put into the database of MLflow at once.

MLflow's log_batch makes an object of each: 70 microseconds a point, 600 points a run, half the time of a first sync.
"""

from collections.abc import Sequence
from typing import Any

from mgm.report.mlflow.record import Metric


def insert_points(client: Any, run_id: str, points: Sequence[Metric]) -> None:
    """Insert points, by step, of a run that has none yet, with the last of each key as its latest, as log_batch does."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric
    from sqlalchemy import insert

    store, rows, latest = client._tracking_client.store, [], {}  # MlflowClient has no other name for it
    for key, value, time, step in points:
        is_nan, number = store.sanitize_metric_value(value)
        rows.append({"run_uuid": run_id, "key": key, "value": number, "timestamp": time, "step": step, "is_nan": is_nan})
        latest[key] = rows[-1]
    with store.ManagedSessionMaker(read_only=False) as session:
        session.execute(insert(SqlMetric), rows)
        session.execute(insert(SqlLatestMetric), list(latest.values()))
