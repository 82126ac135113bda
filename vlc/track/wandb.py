"""Weights & Biases. Project, entity, key and mode come from its own variables: `WANDB_PROJECT`, `WANDB_MODE`, ..."""

import io
import os
import secrets
from collections.abc import Mapping
from typing import Any

from vlc.storage import working_folder
from vlc.track.tracker import TrackedRun, Tracker


class Tool(Tracker):
    name = "wandb"

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, run: TrackedRun) -> None:
        import wandb

        folder = working_folder(run.workdir)
        folder.mkdir(parents=True, exist_ok=True)
        number = run.known.get(self.name) or secrets.token_hex(4)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "vlc", name=run.name, id=number, resume="allow", dir=str(folder),
            config={**run.config, "code": dict(run.code)}, settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        run.remember(self.name, number)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        import wandb
        from PIL import Image

        self._run.log({name: wandb.Image(Image.open(io.BytesIO(png)))}, step=step)

    def close(self) -> None:
        self._run.finish()
