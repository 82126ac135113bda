"""The digest of what was seen is that of the examples, however their rows are shared among processes."""

from types import SimpleNamespace

import numpy as np

from vlc.data.record import REASONS
from vlc.train.examples_seen import ExamplesSeen


def total(batches, shares):
    """The sum over processes that hold these rows each."""
    digest, counts = 0, {}
    for rows, counted in shares:
        examples_seen = ExamplesSeen(SimpleNamespace(rows=np.array(rows), counted=np.array(counted)), 0)
        for step, (index, skipped) in enumerate(batches):
            examples_seen.add(step, {"index": index[rows], "skipped": skipped[rows]})
        seen, found = examples_seen.total()
        digest += seen
        for reason, count in found.items():
            counts[reason] = counts.get(reason, 0) + count
    return digest % 2**32, counts


def test_shares_do_not_matter_and_examples_do(rng):
    batches = [(rng.integers(0, 10**6, 8), rng.integers(0, len(REASONS), 8).astype(np.int8)) for _ in range(5)]
    alone = total(batches, [(list(range(8)), [True] * 8)])
    assert total(batches, [([0, 3, 5], [True] * 3), ([1, 2, 4, 6, 7], [True] * 5)]) == alone
    # A row that two processes hold counts once.
    assert total(batches, [([0, 1, 2, 3, 4], [True] * 5), ([4, 5, 6, 7], [False, True, True, True])]) == alone
    assert sum(alone[1].values()) == sum(int((skipped > 0).sum()) for _, skipped in batches)
    other = [(index.copy(), skipped) for index, skipped in batches]
    other[3][0][2] += 1
    assert total(other, [(list(range(8)), [True] * 8)])[0] != alone[0]
    swapped = [batches[1], batches[0], *batches[2:]]
    assert total(swapped, [(list(range(8)), [True] * 8)])[0] != alone[0]
