"""Texts whose words no longer stand as people put them: what a head for grammar is to tell from real ones."""

from collections.abc import Callable

import numpy as np

_LONGEST = 4  # words that are repeated, left out, ... at a time
_TRIES = 8


def break_text(text: str, rng: np.random.Generator) -> str:
    """A text broken in one of five ways: a run of words repeated, left out, put in elsewhere, or exchanged with
    another, or all words shuffled (Cho et al., 2022, arXiv 2205.13115, section 3.3).

    Args:
        text: Any.
        rng: All randomness comes from here.

    Returns:
        Another text, or an empty one where a text has too few words to be broken.
    """
    words = text.split()
    if len(words) < 2:
        return ""
    for _ in range(_TRIES):
        broken = _WAYS[rng.integers(len(_WAYS))](words, rng)
        if broken and broken != words:
            return " ".join(broken)
    return ""


def _run(count: int, rng: np.random.Generator) -> tuple[int, int]:
    """Beginning and end of one to four words."""
    length = int(rng.integers(1, min(_LONGEST, count - 1) + 1))
    start = int(rng.integers(count - length + 1))
    return start, start + length


def _repeat(words: list[str], rng: np.random.Generator) -> list[str]:
    start, stop = _run(len(words), rng)
    return words[:stop] + words[start:]


def _leave_out(words: list[str], rng: np.random.Generator) -> list[str]:
    start, stop = _run(len(words), rng)
    return words[:start] + words[stop:]


def _put_in(words: list[str], rng: np.random.Generator) -> list[str]:
    start, stop = _run(len(words), rng)
    place = int(rng.integers(len(words) + 1))
    return words[:place] + words[start:stop] + words[place:]


def _exchange(words: list[str], rng: np.random.Generator) -> list[str]:
    (a, b), (c, d) = sorted(_run(len(words), rng) for _ in range(2))
    return words[:a] + words[c:d] + words[b:c] + words[a:b] + words[d:] if b <= c else []


def _shuffle(words: list[str], rng: np.random.Generator) -> list[str]:
    return [words[int(i)] for i in rng.permutation(len(words))]


_WAYS: tuple[Callable[[list[str], np.random.Generator], list[str]], ...] = (
    _repeat, _leave_out, _put_in, _exchange, _shuffle,
)  # fmt: skip
