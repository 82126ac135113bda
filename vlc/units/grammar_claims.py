"""Claims of any English text, by its grammar (spaCy), or without one by the order of known words."""

from collections.abc import Iterator

from vlc.curate.edits.kinds import words_of
from vlc.curate.edits.words import ADJECTIVE, NOUN, NOUNS, NUMBER, PREPOSITION, Reader, Sentence
from vlc.units.claim import Claim, distinct

# Words for the picture and for places in it or parts of it: "a picture of", "on the left of".
_NO_THINGS = words_of(
    "picture image photo photograph photography view scene shot left right top bottom side middle center centre front "
    "back background foreground corner edge end part kind type group pair bunch couple lot variety number set row "
    "piece area day time other one color colour size"
)
_HELPERS = words_of("be have do seem appear look show depict feature contain include see")
_PARTICIPLES = ("VBN", "VBG")


def read_by_grammar(text: str, reader: Reader) -> list[Claim]:
    """Objects, attributes, relations and events of a text, in the order of its words and without repetitions."""
    sentence = reader.read(text)
    has_grammar = any(word.role for word in sentence.words)
    return distinct(_with_grammar(sentence) if has_grammar else _without(sentence))


def _with_grammar(sentence: Sentence) -> Iterator[Claim]:
    for place, word in enumerate(sentence.words):
        if _is_thing(sentence, place):
            yield Claim("object", _name(sentence, place), mention=place)
        if (thing := _described(sentence, place)) is not None:
            yield Claim("attribute", _name(sentence, thing), _quality(sentence, place), mention=thing)
        if word.role == "prep" or (word.tag == PREPOSITION and word.role == "agent"):
            yield from _relations(sentence, place)
        if word.tag.startswith("VB") and word.role not in ("aux", "auxpass", "amod") and word.lemma not in _HELPERS:
            yield from _events(sentence, place)


def _is_thing(sentence: Sentence, place: int) -> bool:
    word = sentence.words[place]
    return word.tag in (NOUN, NOUNS) and word.role != "compound" and word.lemma not in _NO_THINGS


def _name(sentence: Sentence, place: int) -> str:
    """Of a thing: its word in the dictionary's form, with the nouns that belong to it: `soccer ball`."""
    start = place
    while start and sentence.words[start - 1].role == "compound" and sentence.words[start - 1].head == place:
        start -= 1
    return " ".join(word.lemma for word in sentence.words[start : place + 1])


def _quality(sentence: Sentence, place: int) -> str:
    word = sentence.words[place]
    return word.text.lower() if word.tag in _PARTICIPLES else word.lemma


def _described(sentence: Sentence, place: int) -> int | None:
    """The thing that this word says a quality of, before it (`red star`) or after (`the star is red`)."""
    word = sentence.words[place]
    if word.role in ("amod", "nummod") and _is_thing(sentence, word.head):
        return word.head
    if word.role == "acomp" and word.tag == ADJECTIVE and sentence.words[word.head].lemma == "be":
        return _subject(sentence, word.head)
    return None


def _child(sentence: Sentence, head: int, *roles: str) -> int | None:
    return next((i for i, word in enumerate(sentence.words) if word.head == head and word.role in roles), None)


def _subject(sentence: Sentence, verb: int) -> int | None:
    """The thing that does it; of `a man sitting` the man, of `a man sits and reads` the one of the first verb."""
    found = _child(sentence, verb, "nsubj", "nsubjpass", "attr")
    word = sentence.words[verb]
    if found is None and word.role in ("acl", "relcl"):
        found = word.head
    if found is None and word.role in ("conj", "advcl", "xcomp") and word.head != verb:
        return _subject(sentence, word.head) if sentence.words[word.head].tag.startswith("VB") else None
    return found if found is not None and _is_thing(sentence, found) else None


def _relations(sentence: Sentence, place: int) -> Iterator[Claim]:
    """`a man on a bench`, `the star is to the left of the ring`, `a man sits on a bench`."""
    target, words = _target(sentence, place)
    head = sentence.words[place].head
    if sentence.words[head].role == "advmod":  # next to, close to
        head, words = sentence.words[head].head, f"{sentence.words[head].lemma} {words}"
    thing = head if _is_thing(sentence, head) else None
    if thing is None and sentence.words[head].tag.startswith("VB"):
        thing = _subject(sentence, head)
    if target is not None and thing is not None and thing != target:
        yield Claim("relation", _name(sentence, thing), words, _name(sentence, target), thing)


def _target(sentence: Sentence, place: int) -> tuple[int | None, str]:
    """The thing after a preposition, and the words that lead to it: `to the left of` as `left of`."""
    words = [sentence.words[place].lemma]
    noun = _child(sentence, place, "pobj")
    while noun is not None and not _is_thing(sentence, noun):
        after = _child(sentence, noun, "prep")
        if after is None:
            return None, ""
        words += [sentence.words[noun].lemma, sentence.words[after].lemma]
        noun = _child(sentence, after, "pobj")
    return noun, " ".join(words[1:] if words[:1] in (["to"], ["on"], ["at"]) and len(words) > 1 else words)


def _events(sentence: Sentence, verb: int) -> Iterator[Claim]:
    doer, done_to = _subject(sentence, verb), _child(sentence, verb, "dobj")
    if doer is not None:
        known = done_to is not None and _is_thing(sentence, done_to)
        to = _name(sentence, done_to) if known and done_to is not None else ""
        yield Claim("event", _name(sentence, doer), sentence.words[verb].lemma, to, doer)


def _without(sentence: Sentence) -> Iterator[Claim]:
    """By order alone: a quality belongs to the next noun, a preposition joins the nouns around it."""
    last, led = None, ""
    waiting: list[str] = []
    for place, word in enumerate(sentence.words):
        if word.tag in (ADJECTIVE, NUMBER):
            waiting.append(word.lemma)
        elif word.tag == PREPOSITION:
            led = word.lemma
        elif word.tag in (NOUN, NOUNS) and word.lemma not in _NO_THINGS:
            yield Claim("object", word.lemma, mention=place)
            yield from (Claim("attribute", word.lemma, quality, mention=place) for quality in waiting)
            if last is not None and led:
                yield Claim("relation", sentence.words[last].lemma, led, word.lemma, last)
            last, led, waiting = place, "", []
