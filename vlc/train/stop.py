"""When to stop early: SIGTERM on any process stops all of them at the same step."""

import contextlib
import signal
from typing import Any

import jax
from jax.experimental import multihost_utils


class StopOnSigterm:
    """Turns SIGTERM into an answer that the loop asks for after every step.

    With several processes JAX catches the signal on each, and lets them agree on a step that all of them reach.
    """

    def __init__(self) -> None:
        self._alone = jax.process_count() == 1
        self._caught = False
        self._before: Any = None
        if self._alone:
            with contextlib.suppress(ValueError):  # outside the main thread there is no signal to catch
                self._before = signal.signal(signal.SIGTERM, self._catch)

    def _catch(self, number: int, frame: Any) -> None:
        del number, frame
        self._caught = True

    def asked(self, step: int) -> bool:
        """Whether to stop after this step, of which each must be asked about once."""
        return self._caught if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def restore(self) -> None:
        """Puts back what SIGTERM did before."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
