"""The tools by name."""

import importlib
import importlib.util
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from vlc.errors import ConfigError, did_you_mean
from vlc.storage import Place, write_json
from vlc.track.background import Background
from vlc.track.code_state import code_state
from vlc.track.tracker import TrackedRun

# The package that a tool needs. Each has a module of its name here, with a class `Tool`.
TRACKERS = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
_KNOWN = "track.json"


def check_trackers(names: Sequence[str]) -> None:
    """Makes sure that the tools exist and are installed.

    Raises:
        ConfigError: One does not, or is not, or is named twice.
    """
    if len(set(names)) < len(names):
        raise ConfigError(f"config.track names a tool twice: {', '.join(names)}.")
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f'config.track names "{name}", which is not known.{did_you_mean(name, TRACKERS)}')
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise ConfigError(
                f"config.track names {name}, which is not installed: pip install 'vlc-jax[{name}]', or leave it out."
            )


def open_trackers(names: Sequence[str], workdir: Place, config: Mapping[str, Any], first_step: int) -> list[Background]:
    """Starts the tools; those that know the workdir's run go on with it.

    Args:
        names: Of `TRACKERS`.
        workdir: The run's; what the tools call it is kept there, in `track.json`.
        config: As JSON.
        first_step: The step that this start goes on from.
    """
    if not names:
        return []
    known, lock = known_to(workdir), threading.Lock()

    def remember(tool: str, name: str) -> None:
        with lock:  # each tool has a thread of its own
            known[tool] = name
            write_json(workdir / _KNOWN, known)

    run = TrackedRun(workdir, config, code_state(), first_step, dict(known), remember)
    return [Background(importlib.import_module(f"vlc.track.{name}").Tool(), run) for name in names]


def known_to(workdir: Place) -> dict[str, str]:
    """By tool, what it calls the run of a workdir."""
    try:
        found = json.loads((workdir / _KNOWN).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(tool): str(name) for tool, name in found.items()} if isinstance(found, dict) else {}
