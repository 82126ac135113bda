"""Whether a caption is put together as people put them together: by runs of three words of the training data."""

from collections.abc import Iterable, Sequence

_BORDER = "\0"


class Fluency:
    """Knows which words follow each other in a corpus.

    A judge of pictures and texts hardly sees the order of words, so what it alone rewards becomes a heap of them (Cho
    et al., 2022, arXiv 2205.13115, section 3.3, who train a head of the text tower on texts that were cut up). What is
    cut up has runs of words that nobody wrote.
    """

    def __init__(self, corpus: Iterable[Sequence[str]]):
        """
        Args:
            corpus: Texts, as words.
        """
        self._known = {run for words in corpus for run in _runs(words)}

    def score(self, words: Sequence[str]) -> float:
        """The share of the runs of three words, beginning and end included, that the corpus has."""
        runs = _runs(words)
        return sum(run in self._known for run in runs) / len(runs)


def _runs(words: Sequence[str]) -> list[tuple[str, str, str]]:
    bordered = [_BORDER, *words, _BORDER, _BORDER]
    return list(zip(bordered, bordered[1:], bordered[2:], strict=False))
