"""MLflow: an experiment per grid, a run per row. MLFLOW_TRACKING_URI says where, as MLflow has it."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.time import get_current_time_millis

from robustbench_local.storage.sinks.sink import Entry, Sink

_LONGEST = 6000  # characters of a parameter that MLflow takes


class Mlflow(Sink):
    """By a client of its own: no run of the user's is touched."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._client = MlflowClient()

    def send(self, entry: Entry) -> None:
        now = get_current_time_millis()
        run = self._client.create_run(
            self._experiment(entry.grid), start_time=now, run_name=entry.name, tags={"robustbench_local.key": entry.key}
        )
        figures = [Metric(name, value, now, 0) for name, value in entry.figures.items()]
        about = [Param(name, str(value)[:_LONGEST]) for name, value in entry.about.items()]
        self._client.log_batch(run.info.run_id, figures, about)
        self._client.set_terminated(run.info.run_id)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))
