"""In which order records are visited: shuffled by index, in exact epochs, or by the weights of a mixture."""

import grain.python as grain

from vlc.data.record import Source
from vlc.data.sources.mixture import Mixture


class _Fold:
    """Maps the visits of one epoch to records, where the records of some sources are visited several times."""

    def __init__(self, lengths: list[int], times: list[int]):
        self.lengths, self.times = lengths, times

    def __call__(self, visit: int) -> int:
        start = 0
        for length, times in zip(self.lengths, self.times, strict=True):
            if visit < length * times:
                return start + visit % length
            visit -= length * times
            start += length
        raise IndexError(visit)


def visits(source: Source, seed: int) -> grain.MapDataset:
    """An endless sequence of record indices, a function of the seed.

    A single source, and a mixture with the rule `epochs`, go through exact epochs, each a new permutation. A mixture
    with the rule `weights` takes its sources in turn, so that any stretch of draws holds them in the shares of their
    weights, to within one draw a source; each of them goes through exact epochs of its own.

    Nothing is read here: shuffling is by index, without a buffer.
    """
    if not isinstance(source, Mixture):
        return grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    lengths = [len(part) for part in source.sources.values()]
    weights = [source.weights[name] for name in source.sources]
    if source.rule == "epochs":
        times = [int(weight) for weight in weights]
        total = sum(n * t for n, t in zip(lengths, times, strict=True))
        return grain.MapDataset.range(total).seed(seed).shuffle().repeat().map(_Fold(lengths, times))
    parts, start = [], 0
    for number, length in enumerate(lengths):
        epochs = grain.MapDataset.range(start, start + length).seed(seed + number).shuffle()
        parts.append(epochs.repeat())
        start += length
    return grain.MapDataset.mix(parts, weights).seed(seed)
