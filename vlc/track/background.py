"""A tool by a thread of its own: a network that hangs, or a disk that is full, makes no step wait."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from vlc.track.tracker import TrackedRun, Tracker

_WAITING = 10_000  # calls
_PATIENCE = 60.0  # seconds that closing waits for
log = logging.getLogger("vlc")


class Background:
    """Calls a tracker one call after another; says once where that fails."""

    def __init__(self, tracker: Tracker, run: TrackedRun):
        self.tracker = tracker
        self._calls: queue.Queue[Callable[[], Any] | None] = queue.Queue(_WAITING)
        self._said: set[str] = set()
        self._started = False
        self._thread = threading.Thread(target=self._work, args=(run,), name=f"vlc-{tracker.name}", daemon=True)
        self._thread.start()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._put(lambda: self.tracker.write(step, metrics))

    def picture(self, step: int, name: str, png: bytes) -> None:
        self._put(lambda: self.tracker.picture(step, name, png))

    def close(self) -> None:
        """Waits for what was told before, for a minute."""
        with contextlib.suppress(queue.Full):
            self._calls.put(None, timeout=_PATIENCE)
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            self._say(f"did not finish in {_PATIENCE:.0f} s; what is left is not sent")

    def _put(self, call: Callable[[], Any]) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._say("does not keep up; some is left out")

    def _work(self, run: TrackedRun) -> None:
        self._started = self._try(lambda: self.tracker.start(run))
        while (call := self._calls.get()) is not None:
            if self._started:
                self._try(call)
        if self._started:
            self._try(self.tracker.close)

    def _try(self, call: Callable[[], Any]) -> bool:
        try:
            call()
        except Exception as error:  # of whatever library
            first = (str(error).strip().splitlines() or [""])[0]
            self._say(f"{type(error).__name__}: {first}"[:300])
            return False
        return True

    def _say(self, what: str) -> None:
        if not self._said:
            log.warning("%s cannot be written (%s); training goes on without.", self.tracker.name, what)
        self._said.add(what)
