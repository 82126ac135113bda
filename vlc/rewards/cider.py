"""CIDEr-D (Vedantam et al., CVPR 2015, arXiv 1411.5726, section 5), with document frequencies that are given once."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_ORDER = 4
_SIGMA = 6.0  # of the penalty of another length
_SCALE = 10.0
Vector = dict[tuple[Any, ...], float]


class Cider:
    """Scores of captions against references.

    `CIDEr-D = mean over n = 1..4 of 10 / R sum over references r of exp(-(l - l_r)^2 / (2 sigma^2)) sum over n-grams of
    min(g(c), g(r)) g(r) / (|g(c)| |g(r)|)`, `g` the counts times `log N - log df`, lengths in pairs of words. Equal to
    `pycocoevalcap` where the document frequencies are those of the captions that are scored; in training they are those
    of the training data, and do not change with the batch.
    """

    def __init__(self, corpus: Iterable[Sequence[Sequence[str]]]):
        """
        Args:
            corpus: The references of each image, as words.
        """
        self._frequency: Counter[tuple[Any, ...]] = Counter()
        count = 0
        for references in corpus:
            count += 1
            self._frequency.update({gram for words in references for gram in ngrams(words)})
        self._log_count = math.log(count) if count else 0.0

    def score(self, caption: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """Of one caption, as words; 0 where there is no reference."""
        if not references:
            return 0.0
        own, length = self._vectors(caption), _pairs(caption)
        total = np.zeros(_ORDER)
        for words in references:
            near = math.exp(-((length - _pairs(words)) ** 2) / (2 * _SIGMA**2))
            total += near * np.array([_alike(a, b) for a, b in zip(own, self._vectors(words), strict=True)])
        return float(_SCALE * total.mean() / len(references))

    def _vectors(self, words: Sequence[str]) -> list[Vector]:
        """Weighted counts by the length of n-grams."""
        found: list[Vector] = [{} for _ in range(_ORDER)]
        for gram, count in ngrams(words).items():
            rare = self._log_count - math.log(max(1.0, self._frequency[gram]))
            found[len(gram) - 1][gram] = count * rare
        return found


def _pairs(words: Sequence[str]) -> int:
    return max(len(words) - 1, 0)


def ngrams(words: Sequence[str]) -> Mapping[tuple[Any, ...], int]:
    """How often each run of one to four words stands in a text."""
    return Counter(tuple(words[i : i + n]) for n in range(1, _ORDER + 1) for i in range(len(words) - n + 1))


def _alike(caption: Vector, reference: Vector) -> float:
    """The clipped cosine of two vectors."""
    norms = math.sqrt(sum(x * x for x in caption.values())) * math.sqrt(sum(x * x for x in reference.values()))
    common = sum(min(value, reference[gram]) * reference[gram] for gram, value in caption.items() if gram in reference)
    return common / norms if norms else 0.0
