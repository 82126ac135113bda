"""What the processes of a run do together. Alone, each of these is free."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vlc.parallel.place import Place
from vlc.parallel.roll_call import Watch, call_roll
from vlc.parallel.stop import Stop

_watch: Watch | None = None  # of this process, where several have started together
_SLOWER = 60  # seconds by which JAX's own watch lags behind ours, which has names


def start_together(place: Place, about: dict[str, str], *, patience: float = 300, silence: float = 60) -> Watch | None:
    """Calls the roll, then joins this process with the others. Before anything else asks JAX for devices.

    From then on SIGTERM to any of them is a wish that all stop after the same step (`agreed_stop`); one that comes
    while the run still starts is not forgotten.

    Args:
        place: This process's (`find_place`).
        about: What must be equal everywhere.
        patience: Seconds to wait for the others.
        silence: Seconds after which a process that says nothing is taken for lost.

    Returns:
        The watch, or `None` for a process that is alone.

    Raises:
        StartError: See `call_roll`.
    """
    global _watch
    if place.count == 1:
        return None
    _watch = watch = call_roll(place, about, patience=patience, silence=silence)
    host, port = place.address
    jax.distributed.initialize(
        f"{host}:{port + 1}", place.count, place.index,
        local_device_ids=[place.local_index] if place.local_count > 1 else None,
        initialization_timeout=int(patience), heartbeat_timeout_seconds=int(silence) + _SLOWER,
    )  # fmt: skip
    with contextlib.suppress(ValueError):  # outside the main thread there is no signal to catch
        signal.signal(signal.SIGTERM, lambda number, frame: watch.stop.wish())
    return watch


def agreed_stop() -> Stop | None:
    """How the processes of this run agree to stop; `None` for a process that is alone."""
    return _watch.stop if _watch is not None else None


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line once for all processes."""
    if is_first():
        print(text, flush=True)


@contextlib.contextmanager
def first_before_others(what: str) -> Iterator[None]:
    """The first process does the block alone, then the others do it, who find what it left on the shared disk."""
    if not is_first():
        multihost_utils.sync_global_devices(what)
    yield
    if is_first() and jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def all_of_us(fine: bool) -> bool:
    """Whether it went well on every process."""
    if jax.process_count() == 1:
        return fine
    return bool(np.all(multihost_utils.process_allgather(np.array(fine))))


def sums_of_us(numbers: np.ndarray) -> np.ndarray:
    """The sums over all processes of each of some uint32, modulo 2^32."""
    if jax.process_count() == 1:
        return numbers
    return np.sum(multihost_utils.process_allgather(numbers), axis=0, dtype=np.uint32)


def fetch(tree: Any) -> Any:
    """Arrays of the devices as NumPy arrays, whole on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
