"""The clock of `encoding.py` and its rivals."""

import time
from collections.abc import Callable


def best_rate(run: Callable[[], object], count: int, seconds: float) -> float:
    """Items a second of the fastest of as many runs as fit into the time, after one that is not counted."""
    run()
    best, begun = 0.0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        run()
        best = max(best, count / (time.perf_counter() - started))
    return best
