"""MLflow. Server and experiment come from its own variables: `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`."""

import io
import os
import time
from collections.abc import Mapping
from typing import Any

from vlc.track.tracker import TrackedRun, Tracker, flatten

_AT_ONCE = 100  # parameters of a request


class Tool(Tracker):
    name = "mlflow"

    def __init__(self) -> None:
        self._client: Any = None
        self._number = ""

    def start(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        self._number = run.known.get(self.name, "")
        if self._number:
            self._client.update_run(self._number, status="RUNNING")
        else:
            self._number = self._begin(run)
            run.remember(self.name, self._number)
        self._client.log_dict(self._number, dict(run.config), f"config-{run.first_step}.json")
        for name, value in run.code.items():
            self._client.set_tag(self._number, f"code.{name}", value)

    def _begin(self, run: TrackedRun) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "vlc"
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known is not None else self._client.create_experiment(name)
        number = self._client.create_run(experiment, run_name=run.name).info.run_id
        settings = [Param(key, str(value)) for key, value in flatten(run.config).items()]
        for first in range(0, len(settings), _AT_ONCE):
            self._client.log_batch(number, params=settings[first : first + _AT_ONCE])
        return number

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        # In its files "loss" and "loss/clip" cannot both be.
        named = {name if "/" in name else f"train/{name}": value for name, value in metrics.items()}
        self._client.log_batch(self._number, [Metric(name, value, now, step) for name, value in named.items()])

    def picture(self, step: int, name: str, png: bytes) -> None:
        from PIL import Image

        self._client.log_image(self._number, Image.open(io.BytesIO(png)), f"{name}/{step:09d}.png")

    def close(self) -> None:
        self._client.set_terminated(self._number)
