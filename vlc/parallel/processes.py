"""Operations over all processes of a run; with one process each of them costs nothing."""

import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vlc.errors import ConfigError
from vlc.parallel.process_info import ProcessInfo
from vlc.parallel.rendezvous import Watch, rendezvous
from vlc.parallel.stop import EXIT_PREEMPTED, Stop
from vlc.storage import Place

_watch: Watch | None = None  # of this process, where several have started together
_SLOWER = 60  # seconds by which JAX's own watch lags behind ours, which has names


def start_processes(
    process: ProcessInfo,
    must_agree: dict[str, str],
    *,
    timeout: float = 300,
    heartbeat_timeout: float = 60,
    stops: bool = True,
) -> Watch | None:
    """Meets the other processes, then starts `jax.distributed`. To be called before anything asks JAX for devices.

    Args:
        place: This process's (`find_process_info`).
        about: What must be equal everywhere.
        patience: Seconds to wait for the others.
        silence: Seconds after which a process that says nothing is taken for lost.
        stops: From now on SIGTERM to any of them asks all to stop after the same step (`agreed_stop`); one
            that comes while the run still starts is not forgotten. Else it ends all of them with `EXIT_PREEMPTED`.

    Returns:
        The watch, or `None` for a process that is alone.

    Raises:
        StartError: See `rendezvous`.
    """
    global _watch
    if process.count == 1:
        return None
    _watch = watch = rendezvous(process, must_agree, timeout=timeout, heartbeat_timeout=heartbeat_timeout)
    host, port = process.address
    jax.distributed.initialize(
        f"{host}:{port + 1}", process.count, process.index,
        local_device_ids=[process.local_index] if process.local_count > 1 else None,
        initialization_timeout=int(timeout), heartbeat_timeout_seconds=int(heartbeat_timeout) + _SLOWER,
    )  # fmt: skip
    with contextlib.suppress(ValueError):  # outside the main thread there is no signal to catch
        if stops:
            signal.signal(signal.SIGTERM, lambda number, frame: watch.stop.request())
        else:
            _leave_on_sigterm(watch)
    return watch


def _leave_on_sigterm(watch: Watch) -> None:
    """By a thread, since the main one may be waiting for another process."""
    told, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.fileno())
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # in place of JAX's, which only takes note

    def listen(told: socket.socket, tell: socket.socket) -> None:
        while signal.SIGTERM not in told.recv(64):
            pass
        watch.fail("asked to. The same command goes on from here", EXIT_PREEMPTED)
        print("vlc: asked to stop. The same command goes on from here.", file=sys.stderr, flush=True)
        os._exit(EXIT_PREEMPTED)

    threading.Thread(target=listen, args=(told, tell), name="vlc-sigterm", daemon=True).start()


def agreed_stop() -> Stop | None:
    """How the processes of this run agree to stop; `None` for a process that is alone."""
    return _watch.stop if _watch is not None else None


def is_primary() -> bool:
    """Whether this is process 0, which writes what is written once."""
    return jax.process_index() == 0


def print_once(text: str) -> None:
    """Prints a line on the primary process alone."""
    if is_primary():
        print(text, flush=True)


def barrier(what: str) -> None:
    """Waits until all processes have reached this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


@contextlib.contextmanager
def primary_first(what: str) -> Iterator[None]:
    """The primary process runs the block first; then the others do, and find its files on the shared disk."""
    if not is_primary():
        barrier(what)
    yield
    if is_primary():
        barrier(what)


def local_indices(count: int) -> range:
    """The indices below `count` that are this process's share of the work."""
    return range(jax.process_index(), count, jax.process_count())


def allgather_objects(value: Any) -> list[Any]:
    """The JSON values of all processes, in their order."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(text)))
    rows = multihost_utils.process_allgather(np.pad(text, (0, int(sizes.max()) - len(text))))
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes, strict=True)]


def from_process(value: Any, index: int) -> Any:
    """The JSON value of one process, on all; the others' are not looked at."""
    if jax.process_count() == 1:
        return value
    mine = jax.process_index() == index
    text = np.frombuffer(json.dumps(value).encode() if mine else b"", np.uint8)
    size = int(multihost_utils.process_allgather(np.int32(len(text))).max())
    row = multihost_utils.broadcast_one_to_all(np.pad(text, (0, size - len(text))), is_source=mine)
    return json.loads(bytes(np.asarray(row)))


def map_over_processes[T](count: int, work: Callable[[Sequence[int]], Sequence[T]], *, most: int = 1 << 30) -> list[T]:
    """A function's results for the numbers below `count`, each process computing its share of them.

    Args:
        count: How many numbers there are.
        work: Gives a JSON value for each of some numbers.
        most: Numbers that it is called for at once.
    """
    size = max(1, min(most, -(-count // jax.process_count())))
    parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
    mine = {str(part): list(work(parts[part])) for part in local_indices(len(parts))}
    made = {part: rows for of_one in allgather_objects(mine) for part, rows in of_one.items()}
    return [row for part in range(len(parts)) for row in made[str(part)]]


def check_shared(folder: Place, option: str) -> None:
    """Makes sure that all processes see the same folder; makes it where it is not there.

    Of a bucket it makes sure that it is there and can be written, also for one process.

    Raises:
        ConfigError: They do not, or it cannot be written.
    """
    if jax.process_count() == 1 and isinstance(folder, Path):
        return
    mark = folder / f".seen-{allgather_objects(secrets.token_hex(8))[0]}"
    try:
        if is_primary():
            folder.mkdir(parents=True, exist_ok=True)
            mark.write_bytes(b"")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror}). Name another place by {option}.") from error
    barrier("a mark is left")
    blind = [index for index, seen in enumerate(allgather_objects(mark.exists())) if not seen]
    if is_primary():
        mark.unlink(missing_ok=True)
    if blind:
        raise ConfigError(
            f"{folder}: process {blind[0]} does not find there what process 0 has written. {option} must be on a "
            "disk that all processes share, or in a bucket (gs://, s3://)."
        )


def all_processes(fine: bool) -> bool:
    """Whether a condition holds on every process."""
    if jax.process_count() == 1:
        return fine
    return bool(np.all(multihost_utils.process_allgather(np.array(fine))))


def sum_over_processes(numbers: np.ndarray) -> np.ndarray:
    """Elementwise sums of uint32 arrays over all processes, modulo 2^32."""
    if jax.process_count() == 1:
        return numbers
    return np.sum(multihost_utils.process_allgather(numbers), axis=0, dtype=np.uint32)


def fetch(tree: Any) -> Any:
    """Arrays of the devices as NumPy arrays, whole on every process that has a part of them."""
    if all(x.is_fully_addressable for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
