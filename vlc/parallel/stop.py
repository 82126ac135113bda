"""How processes agree to stop after the same step, when any of them is asked to.

JAX has such an agreement (`multihost_utils.reached_preemption_sync_point`), but where the signal comes to several
processes before their first step it is not always reached. Here process 0 asks all for the last step that they may
have begun. The answer comes from the thread that listens, so that no process waits for one that waits in a
collective. From then on a process that has taken a step waits for the decision: the largest answer, which all of them
can reach.
"""

import threading
from collections.abc import Callable
from typing import Any

from vlc.parallel.process_info import ProcessInfo

EXIT_PREEMPTED = 75  # stopped by SIGTERM, and the same command goes on from there; EX_TEMPFAIL of sysexits.h


class Stop:
    """One process's side. Messages are `{"stop": "request" | "when" | "at" | "after", ...}`."""

    def __init__(self, process: ProcessInfo, tell: Callable[[dict[str, Any]], None]):
        """
        Args:
            place: This process's.
            tell: Sends to the others: process 0 to all, the rest to process 0.
        """
        self._place, self._tell = process, tell
        self._changed = threading.Condition(threading.RLock())
        self._taken = 0  # steps, as the loop last told
        self._held = False  # the loop must not begin another step without the decision
        self._after: int | None = None  # the step that all stop after, once it is decided
        self._answers: dict[int, int] = {}

    def request(self) -> None:
        """Asks for a stop; may be called from a signal handler's thread."""
        threading.Thread(target=self.hear, args=(self._place.index, {"stop": "request"}), daemon=True).start()

    def after(self, step: int) -> bool:
        """Whether all stop after this step, of which the loop asks each time that one is taken."""
        with self._changed:
            self._taken = step
            while self._held and self._after is None:
                self._changed.wait()
            return self._after is not None and step >= self._after

    def hear(self, sender: int, message: dict[str, Any]) -> None:
        """What another process, or this one, has to say about stopping."""
        kind = message["stop"]
        with self._changed:
            if kind == "request":
                self._requested()
            elif kind == "when":
                self._held = True
                self._tell({"stop": "at", "step": self._taken + 1})
            elif kind == "at":
                self._answers[sender] = message["step"]
                self._conclude()
            elif kind == "after":
                self._decided(message["step"])

    def _requested(self) -> None:
        if self._place.index:
            self._tell({"stop": "request"})
        elif not self._held:
            self._held = True
            self._answers[0] = self._taken + 1
            self._tell({"stop": "when"})
            self._conclude()

    def _conclude(self) -> None:
        if len(self._answers) == self._place.count:
            self._decided(max(self._answers.values()))
            self._tell({"stop": "after", "step": self._after})

    def _decided(self, step: int) -> None:
        self._after = step
        self._changed.notify_all()
