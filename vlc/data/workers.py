"""Work shared among processes that end with the one that started them."""

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from vlc.errors import DataError

_shared: Any = None


def die_with_parent(index: int = 0, count: int = 1) -> None:
    """Makes a worker end with its parent, even when that is killed; without it workers live on for ever.

    The kernel's signal of a parent's death (`prctl`) is that of the thread which started the worker. Grain starts its
    workers in threads that end first, and a worker that is killed with a lock in its hands makes its parent wait for
    ever when it closes; so a worker of `multiprocessing` waits for its parent process instead.
    """
    del index, count
    parent = multiprocessing.parent_process()
    if parent is None:  # a command of its own
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    else:
        threading.Thread(target=_die_after, args=(parent,), name="vlc-die-with-parent", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _die_after(parent: Any) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


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
        except BaseException:
            # Stopped: what is running is not waited for. Else all processes are, those that are only starting too: they
            # read files that the caller may take away.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(function: Callable[[Any, Any], Any], shared: Any) -> None:
    global _shared
    die_with_parent()
    _shared = (function, shared)


def _call(task: Any) -> Any:
    function, shared = _shared
    return function(shared, task)
