"""What training has seen: a digest of the examples, and how many records were replaced."""

import numpy as np

from vlc.data.pipeline import Batch, count_skipped
from vlc.data.record import REASONS
from vlc.parallel import Share, sum_over_processes


class ExamplesSeen:
    """Adds up over this process's rows; the totals are those of all processes, however the rows were shared.

    The digest is a sum over examples of a hash of step, row and record, modulo 2^32.
    """

    def __init__(self, share: Share, digest: int):
        self._rows, self._counted = share.rows.astype(np.uint64), share.counted
        self._start = digest
        self._sums = np.zeros(1 + len(REASONS), np.uint32)

    def add(self, step: int, batch: Batch) -> None:
        """Counts this process's rows of the batch that comes after `step` steps."""
        records = batch["index"].astype(np.uint64)[self._counted]
        hashed = _mixed(_mixed(records) + _mixed(np.uint64(step) << np.uint64(32) | self._rows[self._counted]))
        skipped = count_skipped({"skipped": batch["skipped"][self._counted]})
        self._sums[:1] += hashed.sum(keepdims=True).astype(np.uint32)
        self._sums[1:] += np.array([skipped.get(reason, 0) for reason in REASONS], np.uint32)

    def total(self) -> tuple[int, dict[str, int]]:
        """The digest, and records replaced by reason, of all processes: each of them must ask."""
        digest, *skipped = sum_over_processes(self._sums).tolist()
        counts = {reason: count for reason, count in zip(REASONS, skipped, strict=True) if count}
        return (self._start + digest) % 2**32, counts


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the input changes about half of the bits."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
