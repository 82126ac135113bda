"""Changes of a caption: words put in place of others, and the text that comes of it."""

import re
from collections.abc import Iterator, Sequence

from vlc.curate.edits import kinds
from vlc.curate.edits.words import Sentence

# First and last + 1 word that goes, and the words in its place.
Change = list[tuple[int, int, str]]


class Known:
    """What the captions of an image say, as words."""

    def __init__(self, captions: Sequence[str]):
        self.words = " " + " ".join(re.findall(r"[\w'-]+", " ".join(captions).lower())) + " "

    def says(self, words: Sequence[str]) -> bool:
        """Whether any of these words, or of their plurals, is in a caption."""
        return any(f" {form} " in self.words for word in words for form in (word, kinds.plural(word)) if form)


def exchange(sentence: Sentence, one: tuple[int, int], other: tuple[int, int]) -> Change:
    return [(*one, text_of(sentence, *other)), (*other, text_of(sentence, *one))]


def text_of(sentence: Sentence, start: int, stop: int) -> str:
    """Words of a sentence as they stand in its middle."""
    words = sentence.words[start:stop]
    parts = [
        (word.text.lower() if start + i == 0 and not word.tag.startswith("NNP") else word.text)
        + (word.space if start + i < stop - 1 else "")
        for i, word in enumerate(words)
    ]
    return "".join(parts)


def apply(sentence: Sentence, change: Change) -> str:
    """The changed text, with "a" or "an" as it must be and a capital where there was one."""
    new = {start: (stop, text) for start, stop, text in change}
    parts, place = [], 0
    while place < len(sentence.words):
        stop, text = new.get(place, (place + 1, sentence.words[place].text))
        if place in new and parts:
            parts[-1] = _article(parts[-1], text)
        parts.append(text + sentence.words[stop - 1].space)
        place = stop
    text = "".join(parts)
    return text[:1].upper() + text[1:] if sentence.words and sentence.words[0].text[:1].isupper() else text


def _article(word: str, following: str) -> str:
    """`a` or `an`, as it must be before what follows; another word as it is."""
    vowel = re.match(r"[aeio]|u(?!ni|ki|s)", following.lower()) and not following.lower().startswith(("one", "euro"))
    return re.sub(r"^([Aa])n?(?=\s*$)", r"\1n" if vowel else r"\1", word)


def plain(text: str) -> str:
    return " ".join(re.findall(r"[\w'-]+", text.lower()))


def attributes_at(sentence: Sentence) -> Iterator[tuple[int, str]]:
    """Attributes that stand right before what they belong to or before another; alone, without "and"."""
    for place, word in enumerate(sentence.words[:-1]):
        fits = word.role in ("amod", "nummod") if word.role else bool(word.tag) and word.tag in ("JJ", "CD")
        around = {sentence.words[i].text.lower() for i in (place - 1, place + 1) if i >= 0}
        joined = any(w.head == place and w.role == "conj" for w in sentence.words)
        if fits and not around & {"and", "or", "-", ",", "/"} and not joined:
            yield place, word.lemma
