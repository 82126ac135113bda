"""Trackio, a local board of Hugging Face's. Project, folder and Space come from `TRACKIO_PROJECT`, `TRACKIO_DIR` and
`TRACKIO_SPACE_ID`."""

import io
import os
import secrets
from collections.abc import Mapping
from typing import Any

from vlc.track.tracker import TrackedRun, Tracker, flatten


class Tool(Tracker):
    name = "trackio"

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, run: TrackedRun) -> None:
        import trackio

        name = run.known.get(self.name) or f"{run.name}-{secrets.token_hex(2)}"
        told = {**flatten(run.config), **{f"code.{key}": value for key, value in run.code.items()}}
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT") or "vlc", name=name, resume="allow", config=told, embed=False
        )
        run.remember(self.name, name)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        import trackio
        from PIL import Image

        self._run.log({name: trackio.Image(Image.open(io.BytesIO(png)).convert("RGB"))}, step=step)

    def close(self) -> None:
        self._run.finish()
