"""When to stop early: SIGTERM on any process stops all of them at the same step."""

import contextlib
import signal
from typing import Any

from vlc.parallel import agreed_stop


class StopOnSigterm:
    """Turns SIGTERM into an answer that the loop asks for after every step."""

    def __init__(self) -> None:
        self._together = agreed_stop()
        self._caught = False
        self._before: Any = None
        if self._together is None:  # else it is caught already
            with contextlib.suppress(ValueError):  # outside the main thread there is no signal to catch
                self._before = signal.signal(signal.SIGTERM, self._catch)

    def _catch(self, number: int, frame: Any) -> None:
        del number, frame
        self._caught = True

    def asked(self, step: int) -> bool:
        """Whether to stop after this step; to be asked after each."""
        return self._together.after(step) if self._together is not None else self._caught

    @property
    def alone_and_asked(self) -> bool:
        """Whether this process, which runs alone, was asked to stop."""
        return self._caught

    def restore(self) -> None:
        """Puts back what SIGTERM did before."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
