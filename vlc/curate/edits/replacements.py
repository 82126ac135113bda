"""Rules that put another word of its kind in the place of one (`vlc.curate.edits.kinds`)."""

from collections.abc import Iterator

import numpy as np

from vlc.curate.edits import kinds
from vlc.curate.edits.changes import Change, Known, attributes_at
from vlc.curate.edits.words import NOUN, NOUNS, VERBS, Sentence, groups


def _others(lemma: str, table: dict[str, str], known: Known) -> list[tuple[int, list[str]]]:
    """The groups that exclude a word and of which no caption says anything, with the word's place in its own group."""
    for row in table.values():
        parted = groups(row)
        for number, group in enumerate(parted):
            if lemma in group:
                rest = [other for i, other in enumerate(parted) if i != number and not known.says(other)]
                return [(group.index(lemma), other) for other in rest]
    return []


def replace_attribute(sentence: Sentence, known: Known, rng: np.random.Generator) -> Iterator[Change]:
    """`a red ball` to `a blue ball`."""
    for place, lemma in attributes_at(sentence):
        for _, group in _others(lemma, kinds.ATTRIBUTES, known):
            yield [(place, place + 1, group[0])]


def replace_object(sentence: Sentence, known: Known, rng: np.random.Generator) -> Iterator[Change]:
    """`a dog in the grass` to `a cat in the grass`; of compounds only the sport in `soccer player`."""
    sports = {word for group in groups(kinds.OBJECTS["sport"]) for word in group}
    for place, word in enumerate(sentence.words):
        before, after = (sentence.words[i].tag if 0 <= i < len(sentence.words) else "" for i in (place - 1, place + 1))
        alone = word.role != "compound" and NOUN not in (before, after) and after != NOUNS
        if word.tag not in (NOUN, NOUNS) or not (alone or word.lemma in sports):
            continue
        for _, group in _others(word.lemma, kinds.OBJECTS, known):
            new = group[0] if word.tag == NOUN else kinds.plural(group[0])
            if new:
                yield [(place, place + 1, new)]


def replace_relation(sentence: Sentence, known: Known, rng: np.random.Generator) -> Iterator[Change]:
    """`on the table` to `under the table`."""
    words = [word.text.lower() for word in sentence.words]
    phrases = sorted({word for row in kinds.RELATIONS.values() for group in groups(row) for word in group}, key=len)
    place = 0
    while place < len(words):
        named = [phrase for phrase in phrases if words[place : place + len(phrase.split())] == phrase.split()]
        stop = place + len(named[-1].split()) if named else place + 1
        if named and _is_about_a_place(sentence, place, stop):
            for at, group in _others(named[-1], kinds.RELATIONS, Known([])):
                new = group[min(at, len(group) - 1)]
                if not place or words[place - 1] != new.split()[0]:  # "runs out into"
                    yield [(place, stop, new)]
        place = stop


def _is_about_a_place(sentence: Sentence, start: int, stop: int) -> bool:
    """Whether a thing comes after a preposition, and not the day or a side."""
    inside = range(start, stop)
    if sentence.phrases:
        if sentence.words[start].role not in ("prep", "pcomp"):
            return False
        what = [w for w in sentence.words if w.role == "pobj" and w.head in inside]
    else:
        what = [w for w in sentence.words[stop : stop + 4] if w.tag in (NOUN, NOUNS)][:1]
    return bool(what) and what[0].tag in (NOUN, NOUNS) and what[0].lemma not in kinds.NO_PLACES


def replace_action(sentence: Sentence, known: Known, rng: np.random.Generator) -> Iterator[Change]:
    """`a man is sitting` to `a man is standing`."""
    for place, word in enumerate(sentence.words):
        form = VERBS.index(word.tag) if word.tag in VERBS else 0 if word.tag == "VBP" else None
        children = {w.role for w in sentence.words if w.head == place}
        if form is None or "prt" in children or word.role in ("amod", "compound"):
            continue
        for kind, row in kinds.ACTIONS.items():
            if sentence.phrases and ("dobj" in children) != (kind == "handling"):
                continue
            yield from ([(place, place + 1, new)] for new in _other_actions(word.lemma, row, form, known))


def _other_actions(lemma: str, row: str, form: int, known: Known) -> Iterator[str]:
    parted = [[verb.split() for verb in group] for group in groups(row)]
    own = [number for number, group in enumerate(parted) if any(verb[0] == lemma for verb in group)]
    for number, group in enumerate(parted):
        if own and number not in own and not known.says([form for verb in group for form in verb]):
            yield group[0][form]
