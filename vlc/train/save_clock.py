"""When to save by the clock, beside every so many steps."""

import time

from vlc.parallel import allgather_objects


class SaveClock:
    """Minutes since the last save; process 0's clock counts for all."""

    def __init__(self, minutes: float):
        """
        Args:
            minutes: Between two saves; 0: the clock is not asked.
        """
        self._seconds = 60 * minutes
        self._since = 0.0
        self.restart()

    def restart(self) -> None:
        """A save was begun."""
        if self._seconds:
            self._since = time.monotonic()

    def due(self) -> bool:
        """Whether to save now; all processes ask alike."""
        if not self._seconds:
            return False
        return allgather_objects(time.monotonic() - self._since >= self._seconds)[0]
