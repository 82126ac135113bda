"""What a tool that keeps runs has to do, and what it is told about a run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from vlc.storage import Place


@dataclass(frozen=True)
class TrackedRun:
    """A run, as tools are told of it.

    Attributes:
        workdir: Its place.
        config: As JSON.
        code: What of which repository runs (`code_state`).
        first_step: The step that this start goes on from.
        known: By tool, the name or number that an earlier start was given there.
        remember: Keeps such a name for later starts.
    """

    workdir: Place
    config: Mapping[str, Any]
    code: Mapping[str, Any] = field(default_factory=dict)
    first_step: int = 0
    known: Mapping[str, str] = field(default_factory=dict)
    remember: Callable[[str, str], None] = lambda tool, name: None

    @property
    def name(self) -> str:
        """The workdir's last part."""
        return PurePosixPath(str(self.workdir)).name


class Tracker(ABC):
    """A tool that keeps runs. It is called by one thread; whatever it raises is said, and ends nothing.

    Attributes:
        name: In messages.
        goes_back: Whether `start` makes it forget what comes after the first step; else it is not told again what an
            earlier start of the run has told it.
    """

    name: str
    goes_back = False

    @abstractmethod
    def start(self, run: TrackedRun) -> None:
        """Begins, or goes on with, a run."""

    @abstractmethod
    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keeps metrics of a step."""

    @abstractmethod
    def picture(self, step: int, name: str, png: bytes) -> None:
        """Keeps a picture of a step."""

    @abstractmethod
    def close(self) -> None:
        """Sends what is left; the run may go on later."""


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
