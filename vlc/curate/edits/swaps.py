"""Rules that exchange two parts of a caption; all but that of attributes need a grammar."""

import itertools
from collections.abc import Iterator

import numpy as np

from vlc.curate.edits import kinds
from vlc.curate.edits.changes import Change, Known, attributes_at, exchange
from vlc.curate.edits.words import NOUN, NOUNS, Sentence, groups


def _nouns(sentence: Sentence) -> Iterator[tuple[int, tuple[int, int]]]:
    """Heads of noun phrases, with their compounds: `soccer ball` is one."""
    for place, word in enumerate(sentence.words):
        if word.tag not in (NOUN, NOUNS) or word.role == "compound":
            continue
        start = place
        while start and sentence.words[start - 1].role == "compound" and sentence.words[start - 1].tag == NOUN:
            start -= 1
        yield place, (start, place + 1)


def _governor(sentence: Sentence, place: int) -> tuple[int, str] | None:
    """The verb or noun that a subject, an object or what stands after a preposition belongs to, and by which word."""
    word = sentence.words[place]
    if word.role in ("nsubj", "dobj"):
        return word.head, word.role
    if word.role == "pobj" and sentence.words[word.head].role == "prep":
        return sentence.words[word.head].head, sentence.words[word.head].lemma
    return None


def _is_directed(sentence: Sentence, one: int, other: int) -> bool:
    """Whether what is said of two nouns is another thing when they change places."""
    governors = _governor(sentence, one), _governor(sentence, other)
    for (place, mine), theirs in zip(((one, governors[0]), (other, governors[1])), reversed(governors), strict=True):
        if theirs and theirs[0] == place and theirs[1] in kinds.DIRECTED:
            return True  # a hat on a bench
        if mine and theirs and mine[0] == theirs[0] and mine[1] == "nsubj":
            verb = sentence.words[mine[0]]
            if theirs[1] in kinds.DIRECTED or (theirs[1] == "dobj" and verb.lemma not in kinds.SYMMETRIC):
                return True
    return False


def _attributes(sentence: Sentence, place: int) -> frozenset[str]:
    return frozenset(w.lemma for w in sentence.words if w.head == place and w.role in ("amod", "nummod"))


def swap_nouns(sentence: Sentence, known: Known, rng: np.random.Generator) -> Iterator[Change]:
    """`a black dog chases a white cat` to `a black cat chases a white dog`."""
    for (one, span), (other, span_of_other) in itertools.combinations(_nouns(sentence), 2):
        a, b = sentence.words[one], sentence.words[other]
        if a.tag != b.tag or a.lemma == b.lemma or not _can_be(sentence, one, other):
            continue
        differ = _attributes(sentence, one) != _attributes(sentence, other) and b.role == "conj" and b.head == one
        if _is_directed(sentence, one, other) or differ:
            yield exchange(sentence, span, span_of_other)


def _can_be(sentence: Sentence, one: int, other: int) -> bool:
    """Whether both are things, and not the parts of a saying as in `on the side of`."""
    lemmas = {sentence.words[one].lemma, sentence.words[other].lemma}
    return not lemmas & (kinds.NO_PLACES | {"group", "pair", "bunch", "couple", "kind", "lot", "piece", "top"})


def swap_subject_and_object(sentence: Sentence, known: Known, rng: np.random.Generator) -> Iterator[Change]:
    """`a boy jumps off the rock` to `the rock jumps off a boy`; both one or both many, for the verb's sake."""
    phrases = {stop - 1: (start, stop) for start, stop in sentence.phrases}
    for one, other in itertools.permutations(phrases, 2):
        a, b = sentence.words[one], sentence.words[other]
        fit = a.role == "nsubj" and a.tag == b.tag and a.tag in (NOUN, NOUNS) and a.lemma != b.lemma
        own = any(w.tag == "PRP$" for place in (one, other) for w in sentence.words[slice(*phrases[place])])
        if fit and not own and _can_be(sentence, one, other) and _governed_alike(sentence, one, other):
            yield exchange(sentence, phrases[one], phrases[other])


def _governed_alike(sentence: Sentence, one: int, other: int) -> bool:
    governors = _governor(sentence, one), _governor(sentence, other)
    return bool(governors[0] and governors[1] and governors[0][0] == governors[1][0]) and _is_directed(
        sentence, one, other
    )


def swap_phrases(sentence: Sentence, known: Known, rng: np.random.Generator) -> Iterator[Change]:
    """`a man in a red hat on a bench` to `a man in a bench on a red hat`: what stands after different words."""
    phrases = {stop - 1: (start, stop) for start, stop in sentence.phrases}
    for one, other in itertools.combinations(phrases, 2):
        governors = _governor(sentence, one), _governor(sentence, other)
        a, b = sentence.words[one], sentence.words[other]
        if not (governors[0] and governors[1]) or a.lemma == b.lemma or not _can_be(sentence, one, other):
            continue
        words = {governors[0][1], governors[1][1]}
        parts = any(w.lemma == "of" and w.head in (one, other) for w in sentence.words)  # `full of`, `edge of`
        if {a.tag, b.tag} <= {NOUN, NOUNS} and len(words) == 2 and not words & {"nsubj", "of"} and not parts:
            yield exchange(sentence, phrases[one], phrases[other])


def swap_attributes(sentence: Sentence, known: Known, rng: np.random.Generator) -> Iterator[Change]:
    """`a black dog and a white cat` to `a white dog and a black cat`: of one kind, of different things."""
    kind_of = {word: kind for kind, row in kinds.ATTRIBUTES.items() for group in groups(row) for word in group}
    placed = [place for place, _ in attributes_at(sentence) if sentence.words[place].lemma in kind_of]
    for one, other in itertools.combinations(placed, 2):
        a, b = sentence.words[one], sentence.words[other]
        if (
            kind_of[a.lemma] == kind_of[b.lemma]
            and a.lemma != b.lemma
            and _belongs_to(sentence, one) != _belongs_to(sentence, other)
        ):
            heads = _belongs_to(sentence, one), _belongs_to(sentence, other)
            if sentence.words[heads[0]].lemma != sentence.words[heads[1]].lemma:
                yield exchange(sentence, (one, one + 1), (other, other + 1))


def _belongs_to(sentence: Sentence, place: int) -> int:
    """The noun of an attribute: its head, or without a grammar the next noun."""
    if sentence.words[place].role:
        return sentence.words[place].head
    after = range(place + 1, len(sentence.words))
    return next((i for i in after if sentence.words[i].tag in (NOUN, NOUNS)), place)
