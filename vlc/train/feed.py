"""Batches on the devices before they are asked for, and how long the step had to wait for them."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from vlc.data.pipeline import STAGES, Batch

_AHEAD = 2  # batches on the devices beside the one that is trained on
_LOOK = 1.0  # seconds between two looks at whether to wait on
_PATIENCE = 10.0  # seconds that closing waits for a batch that is being read


class Interrupted(Exception):
    """No batch came, and none is waited for any longer."""


class Feed:
    """Moves batches to the devices in a thread of its own, a few ahead of the step.

    Iterating gives pairs: the host's batch without what the model takes, and the batch on the devices. An error of the
    input is raised where the next batch is taken.

    Attributes:
        waited: Seconds that taking batches has waited since the last `report`.
    """

    def __init__(
        self, batches: Any, to_devices: Callable[[Batch], dict[str, jax.Array]], inputs: set[str],
        *, interrupted: Callable[[], bool] = lambda: False,
    ):  # fmt: skip
        """
        Args:
            batches: An iterator of host batches with `close()`.
            to_devices: Moves a batch to the devices.
            inputs: Names of what the model takes.
            interrupted: Whether to wait no longer for a batch that does not come, as from a disk that is gone.
        """
        self._interrupted = interrupted
        self.waited = 0.0
        self._batches, self._to_devices, self._inputs = batches, to_devices, inputs
        self._ready: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._stop = threading.Event()
        self._seconds = np.zeros(len(STAGES))
        self._examples = 0
        self._since = time.perf_counter()
        self._thread = threading.Thread(target=self._run, name="vlc-feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[Batch, dict[str, jax.Array]]]:
        return self

    def __next__(self) -> tuple[Batch, dict[str, jax.Array]]:
        begun = time.perf_counter()
        taken = self._take()
        self.waited += time.perf_counter() - begun
        if isinstance(taken, BaseException):
            self._ready.put(taken)  # it stays so: asking again must not wait for ever
            raise taken
        host, _ = taken
        self._seconds += host["seconds"].sum(axis=0)
        self._examples += len(host["seconds"])
        return taken

    def _take(self) -> Any:
        while True:
            try:
                return self._ready.get(timeout=_LOOK)
            except queue.Empty:
                if self._interrupted():
                    raise Interrupted from None

    def report(self) -> dict[str, float]:
        """What the input did since the last report: the share of the time that steps waited for it (`input_wait`), and
        the milliseconds of one reading thread that each stage takes for an example (`input/STAGE`)."""
        now = time.perf_counter()
        numbers = {"input_wait": self.waited / max(now - self._since, 1e-9)}
        for stage, seconds in zip(STAGES, self._seconds, strict=True):
            numbers[f"input/{stage}"] = 1e3 * float(seconds) / max(self._examples, 1)
        self.waited, self._since, self._examples = 0.0, now, 0
        self._seconds[:] = 0
        return numbers

    def pause(self) -> None:
        """Leaves out the time since the last report, which an evaluation or a compilation took."""
        self._since = time.perf_counter()
        self.waited = 0.0

    def close(self) -> None:
        """Ends the thread and the input's workers; a read that does not end is not waited for."""
        self._stop.set()
        deadline = time.perf_counter() + _PATIENCE
        while self._thread.is_alive() and time.perf_counter() < deadline:
            try:
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(0.02)
        if not self._thread.is_alive():  # else closing would wait for the read
            self._batches.close()

    def _run(self) -> None:
        try:
            with jax.transfer_guard("disallow"):
                while not self._stop.is_set():
                    host = next(self._batches)
                    arrays = self._to_devices({name: host[name] for name in self._inputs & host.keys()})
                    self._ready.put((host, arrays))
        except BaseException as error:  # whatever it is, the loop has to hear of it
            self._ready.put(error)


def slow_stage(report: dict[str, float]) -> str:
    """Where most of the time of making an example goes."""
    return max(STAGES, key=lambda stage: report[f"input/{stage}"])
