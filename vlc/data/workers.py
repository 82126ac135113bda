"""Work shared among processes that end with the one that started them."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from vlc.errors import DataError

_shared: Any = None


def die_with_parent(index: int = 0, count: int = 1) -> None:
    """Makes a worker end with its parent, even when that is killed; without it workers live on for ever."""
    del index, count
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_work[T](function: Callable[[Any, Any], T], shared: Any, tasks: Iterable[Any], workers: int) -> Iterator[T]:
    """Calls `function(shared, task)` for each task; results come in the order of the tasks.

    Args:
        function: Of the top level of a module, so that another process finds it.
        shared: Sent to each process once.
        tasks: Small values.
        workers: Processes; with 0 or 1 all is done in this one.

    Raises:
        DataError: A process was killed, as happens when memory runs out.
    """
    tasks = list(tasks)
    if workers < 2 or len(tasks) < 2:
        for task in tasks:
            yield function(shared, task)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(function, shared)) as pool:
        try:
            yield from pool.map(_call, tasks)
        except BrokenProcessPool as error:
            raise DataError(
                "A worker process was killed, probably because memory ran out. What is finished is kept: run the same "
                f"command again with fewer workers (there were {workers})."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start(function: Callable[[Any, Any], Any], shared: Any) -> None:
    global _shared
    die_with_parent()
    _shared = (function, shared)


def _call(task: Any) -> Any:
    function, shared = _shared
    return function(shared, task)
