"""The thread that puts batches on the devices: order, errors, and what it tells of the input."""

import threading
import time

import jax
import numpy as np
import pytest

from vlc.errors import DataError
from vlc.train.feed import Feed, slow_stage


class Batches:
    """Counts up; raises after `good` batches."""

    def __init__(self, good: int, seconds=(0.0, 0.02, 0.001), delay: float = 0.0):
        self.good, self.seconds, self.delay, self.count, self.closed = good, seconds, delay, 0, False

    def __next__(self):
        time.sleep(self.delay)
        if self.count == self.good:
            raise DataError("the source is broken")
        self.count += 1
        return {"image": np.full((4, 2), self.count), "seconds": np.tile(np.float32(self.seconds), (4, 1))}

    def close(self):
        self.closed = True


def put(batch):
    return {name: jax.device_put(array) for name, array in batch.items()}


def test_batches_come_in_order_and_an_error_where_it_happened():
    feed = Feed(Batches(good=5), put, {"image"})
    for count in range(1, 6):
        host, arrays = next(feed)
        assert int(arrays["image"][0, 0]) == count == host["image"][0, 0] and set(arrays) == {"image"}
    for _ in range(2):  # asked again it does not wait for ever
        with pytest.raises(DataError, match="the source is broken"):
            next(feed)
    feed.close()


def test_it_runs_ahead_of_the_step_but_not_without_bound():
    batches = Batches(good=100)
    feed = Feed(batches, put, {"image"})
    deadline = time.time() + 10
    while batches.count < 3 and time.time() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert batches.count == 3  # two that are ready, and one in hand
    feed.close()
    assert batches.closed and not any(thread.name == "vlc-feed" for thread in threading.enumerate())


def test_waiting_and_the_slow_stage_are_reported():
    feed = Feed(Batches(good=100, delay=0.02), put, {"image"})
    for _ in range(4):
        next(feed)
    report = feed.report()
    assert report["input_wait"] > 0.5 and slow_stage(report) == "image"
    assert np.isclose(report["input/image"], 20.0) and np.isclose(report["input/text"], 1.0)
    feed.pause()
    assert feed.report()["input/image"] == 0.0
    feed.close()
