"""Captions made wrong by rules: two parts exchanged, a word replaced by another of its kind, or the order lost.

The kinds of SugarCrepe (Hsieh et al., NeurIPS 2023, arXiv 2306.14610: swap and replace, of objects, attributes and
relations), of NegCLIP (Yuksekgonul et al., ICLR 2023, arXiv 2210.01936: parts of speech exchanged) and of ARO's word
orders. A rule looks for what would be wrong and still good English; what may be true after all is passed over: parts
that "and" joins, verbs that say the same both ways, words that some caption of the image has.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlc.curate.edits.changes import Change, Known, apply, plain, text_of
from vlc.curate.edits.replacements import replace_action, replace_attribute, replace_object, replace_relation
from vlc.curate.edits.swaps import swap_attributes, swap_nouns, swap_phrases, swap_subject_and_object
from vlc.curate.edits.words import Reader, Sentence
from vlc.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Edit:
    """A text that was made wrong, and by which rule."""

    text: str
    kind: str


def wrong_texts(
    text: str, captions: Sequence[str], reader: Reader, rng: np.random.Generator, *, count: int,
    rules: Sequence[str] = (),
) -> list[Edit]:  # fmt: skip
    """Up to `count` different texts that are almost a caption and wrong of its image, of as many rules as there are.

    Args:
        text: The caption.
        captions: All of the image: what they say is taken to be true.
        reader: Reads the parts of speech (`find_reader`).
        rng: All randomness comes from here.
        count: The most texts.
        rules: Names of `RULES`; empty: `USUAL`.

    Returns:
        Fewer than asked for, or none, where the rules find no more.

    Raises:
        ConfigError: There is no such rule.
    """
    rules = check_rules(rules)
    sentence, known = reader.read(text), Known(captions)
    rows = []
    for rule in map(str, rng.permutation(list(rules))):
        made = [Edit(apply(sentence, change), rule) for change in RULES[rule](sentence, known, rng)]
        rows.append([made[int(i)] for i in rng.permutation(len(made))])
    seen = {plain(caption) for caption in (text, *captions)}
    kept: list[Edit] = []
    for edit in (edit for turn in itertools.zip_longest(*rows) for edit in turn if edit):
        if len(kept) < count and plain(edit.text) not in seen:
            seen.add(plain(edit.text))
            kept.append(edit)
    return kept


def check_rules(rules: Sequence[str]) -> tuple[str, ...]:
    """The rules themselves, or `USUAL` where none is named; ConfigError where there is no such rule."""
    for rule in rules:
        if rule not in RULES:
            raise ConfigError(f'There is no rule "{rule}" for wrong texts.{did_you_mean(rule, RULES)}')
    return tuple(rules) or USUAL


def shuffle_words(sentence: Sentence, known: Known, rng: np.random.Generator) -> Iterator[Change]:
    """Another order of the words, no longer a sentence (ARO's); not among the usual rules."""
    places = [i for i, word in enumerate(sentence.words) if word.text[:1].isalnum()]
    if len(places) > 2:
        order = rng.permutation(places)
        yield [
            (place, place + 1, text_of(sentence, int(other), int(other) + 1))
            for place, other in zip(places, order, strict=True)
        ]


RULES: dict[str, Callable[[Sentence, Known, np.random.Generator], Iterator[Change]]] = {
    rule.__name__: rule
    for rule in (
        swap_nouns, swap_attributes, swap_phrases, swap_subject_and_object, replace_object, replace_attribute,
        replace_relation, replace_action, shuffle_words,
    )
}  # fmt: skip
USUAL = tuple(rule for rule in RULES if rule != "shuffle_words")
