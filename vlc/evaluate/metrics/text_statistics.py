"""What texts are like, whatever they are about (ImageInWords, arXiv 2405.02793, table 2): lengths, parts of speech,
how easily they are read."""

import re
from collections.abc import Sequence

import numpy as np

from vlc.curate.edits import Reader

_PARTS = {"nouns": ("NN",), "adjectives": ("JJ",), "verbs": ("VB",), "adverbs": ("RB",)}
_VOWELS = re.compile(r"[aeiouy]+")
_MTLD = 0.72  # the type-token ratio at which a stretch ends


def text_statistics(text: str, reader: Reader) -> dict[str, float]:
    """Of one text: `sentences`, `nouns`, `adjectives`, `verbs` and `adverbs`, `words_a_sentence`, `grade` and `mtld`.

    `grade`: Flesch-Kincaid's, `.39 words/sentences + 11.8 syllables/words - 15.59` (Kincaid et al., 1975), syllables
    by groups of vowels. `mtld`: words in a stretch until the share of different ones falls to .72 (McCarthy and Jarvis,
    2010); of short texts NaN. An empty text has NaN for both and 0 for the others.
    """
    words = [word for word in reader.read(text).words if word.text[:1].isalnum()]
    sentences = [part for part in re.split(r"[.!?]+(?:\s|$)", text) if part.strip()]
    count = {name: float(sum(w.tag.startswith(tags) for w in words)) for name, tags in _PARTS.items()}
    a_sentence = len(words) / len(sentences) if sentences and words else float("nan")
    syllables = sum(map(_syllables, (word.text for word in words)))
    grade = 0.39 * a_sentence + 11.8 * syllables / len(words) - 15.59 if words else float("nan")
    known = {"sentences": float(len(sentences)), "words_a_sentence": a_sentence, "grade": grade}
    return known | count | {"mtld": mtld([word.text.lower() for word in words])}


def _syllables(word: str) -> int:
    """Groups of vowels; a silent e at the end is none."""
    plain = word.lower()
    count = len(_VOWELS.findall(plain))
    silent = plain.endswith("e") and not plain.endswith(("le", "ee")) and count > 1
    return max(1, count - silent)


def mtld(words: Sequence[str]) -> float:
    """The measure of textual lexical diversity, the mean of both directions; NaN where no stretch ends."""
    found = [_stretches(words), _stretches(words[::-1])]
    return float(np.mean([len(words) / stretches if stretches else np.nan for stretches in found]))


def _stretches(words: Sequence[str]) -> float:
    whole, seen, length = 0.0, set(), 0
    for word in words:
        seen.add(word)
        length += 1
        if len(seen) / length <= _MTLD:
            whole, seen, length = whole + 1, set(), 0
    return whole + ((1 - len(seen) / length) / (1 - _MTLD) if length else 0.0)
