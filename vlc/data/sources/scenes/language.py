"""Scenes in words, and words back to facts.

Every wording is chosen by a *style*, a small integer from the record's seed, so that a scene and its edit twin can be
described alike and differ only in what was changed.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlc.data.sources.scenes.world import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    SceneObject,
    relation,
)

# Generic captions begin like specific ones ("a picture of a ..."), and part from them at a word that depends on the
# image: guidance can only choose between captions where the image makes a difference.
GENERIC = (
    "a picture of a few shapes",
    "a picture of a few objects",
    "a picture of a few things",
    "a picture of a few coloured shapes",
)
BACKGROUND_WORDINGS = ("The background is {}.", "They are on a {} background.", "Everything is on a {} background.")
NUMBERS = dict(enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1))
RELATION_WORDINGS = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "in front of": ("in front of", "partly covering"),
    "behind": ("behind", "partly hidden by"),
}
_MIDDLE = 0.08  # nearer to it than this, an object is on no side
_RELATION_OF = {wording: name for name, wordings in RELATION_WORDINGS.items() for wording in wordings}


@dataclass(frozen=True)
class Phrase:
    """A stretch `[start, end)` of characters of a caption that names object `index` of the scene."""

    index: int
    start: int
    end: int


@dataclass(frozen=True)
class Caption:
    """A caption with the phrases in it that name objects."""

    text: str
    phrases: tuple[Phrase, ...]


def describe_object(obj: SceneObject) -> str:
    """Size, texture, colour, shape: `large striped red circle`."""
    return f"{obj.size} {obj.texture} {obj.colour} {obj.shape}"


def article(phrase: str) -> str:
    """`a` or `an`."""
    return "an" if phrase[0] in "aeiou" else "a"


class _Writer:
    """Joins pieces of text and keeps where the objects are named."""

    def __init__(self) -> None:
        self.text = ""
        self.phrases: list[Phrase] = []

    def add(self, text: str) -> None:
        self.text += text

    def name(self, index: int, text: str) -> None:
        self.phrases.append(Phrase(index, len(self.text), len(self.text) + len(text)))
        self.text += text

    def done(self) -> Caption:
        return Caption(self.text, tuple(self.phrases))


def long_caption(scene: Scene, style: int) -> Caption:
    """One sentence for each object, saying where it stands to the one before, and one for the background."""
    rng = np.random.default_rng((91, style))
    order = rng.permutation(len(scene.objects))
    writer = _Writer()
    for position, index in enumerate(order):
        phrase = describe_object(scene.objects[index])
        existential = bool(rng.integers(2))
        writing = int(rng.integers(2))
        which = article(phrase)
        writer.add(f"There is {which} " if existential else f"{which.capitalize()} ")
        writer.name(int(index), phrase)
        if position == 0:
            writer.add(". " if existential else " is shown. ")
            continue
        anchor = int(order[position - 1])
        where = RELATION_WORDINGS[relation(scene, int(index), anchor)][writing]
        writer.add(f" {where} the " if existential else f" is {where} the ")
        other = scene.objects[anchor]
        writer.name(anchor, f"{other.colour} {other.shape}")
        writer.add(". ")
    writer.add(BACKGROUND_WORDINGS[rng.integers(len(BACKGROUND_WORDINGS))].format(scene.background))
    return writer.done()


def short_caption(scene: Scene, style: int) -> Caption:
    """All objects by colour and shape: `a red circle, a blue star and a green heart`."""
    return _list_objects(scene, np.random.default_rng((92, style)).permutation(len(scene.objects)))


def _list_objects(scene: Scene, order: Sequence[int] | np.ndarray) -> Caption:
    writer = _Writer()
    for position, index in enumerate(order):
        obj = scene.objects[index]
        if position:
            writer.add(" and " if position == len(order) - 1 else ", ")
        phrase = f"{obj.colour} {obj.shape}"
        writer.add(article(phrase) + " ")
        writer.name(int(index), phrase)
    return writer.done()


def varied_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Some of the objects with some of their attributes, and sometimes the background: all lengths from 2 words on."""
    order = rng.permutation(len(scene.objects))[: rng.integers(1, len(scene.objects) + 1)]
    chance = rng.random() ** 0.5  # drawn for the whole caption, so that long and short ones are common
    said = []
    for obj in (scene.objects[i] for i in order):
        said.append([word for word in (obj.size, obj.texture, obj.colour) if rng.random() < chance] + [obj.shape])
    text = _join_phrases(said)
    return f"{text} on a {scene.background} background" if rng.random() < 0.3 else text


def brief_caption(scene: Scene, rng: np.random.Generator, *, place_rate: float = 0.0, opposite: bool = False) -> str:
    """Some of the objects by their shape and at most one thing more: `a star on the left and a small circle`.

    What says little can only be told from other captions by what it says: with all attributes named, colours do.

    Args:
        scene: The scene.
        rng: All randomness comes from here.
        place_rate: Chance that it is said where in the picture the first object stands.
        opposite: Say that it stands on the other side, which is wrong; all else is the same.
    """
    order = rng.permutation(len(scene.objects))[: rng.integers(1, len(scene.objects) + 1)]
    places = bool(place_rate) and rng.random() < place_rate
    said = []
    for position, obj in enumerate(scene.objects[i] for i in order):
        more = ([], [obj.size], [obj.texture], [obj.colour])[rng.integers(4)]
        where = _side(obj, opposite) if places and position == 0 else []
        said.append([*more, obj.shape, *where])
    return _join_phrases(said)


def _side(obj: SceneObject, opposite: bool) -> list[str]:
    """`on the left`, `at the top`, ...; nothing of what stands in the middle."""
    dx, dy = obj.x - 0.5, obj.y - 0.5
    if max(abs(dx), abs(dy)) < _MIDDLE:
        return []
    sides, first = (
        (("on the left", "on the right"), dx < 0) if abs(dx) > abs(dy) else (("at the top", "at the bottom"), dy < 0)
    )
    return [sides[int(first == opposite)]]


def _join_phrases(said: list[list[str]]) -> str:
    phrases = [" ".join(words) for words in said]
    phrases = [f"{article(phrase)} {phrase}" for phrase in phrases]
    return ", ".join(phrases[:-1]) + (" and " if len(phrases) > 1 else "") + phrases[-1]


def alt_text(scene: Scene, rng: np.random.Generator, *, generic_rate: float = 0.5, wrong_rate: float = 0.2) -> str:
    """Text as the web has it: often generic, sometimes about something else, seldom complete.

    Args:
        scene: The scene.
        rng: Draws the kind of text.
        generic_rate: Chance of a text that would fit any scene.
        wrong_rate: Chance, otherwise, that the text names an object that is not there.
    """
    if rng.random() < generic_rate:
        return generic_caption(rng)
    if rng.random() < wrong_rate:
        taken = {(o.colour, o.shape) for o in scene.objects}
        free = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in taken]
        colour, shape = free[rng.integers(len(free))]
        return f"a picture of {article(colour)} {colour} {shape}"
    obj = scene.objects[rng.integers(len(scene.objects))]
    form = rng.integers(3)
    if form == 0:
        return f"a picture of {article(obj.colour)} {obj.colour} {obj.shape}"
    if form == 1:
        return f"a picture of {article(obj.shape)} {obj.shape}"
    return f"a picture of {NUMBERS[len(scene.objects)]} shapes"


def generic_caption(rng: np.random.Generator) -> str:
    """A caption that says nothing particular."""
    return GENERIC[rng.integers(len(GENERIC))]


def specific_caption(scene: Scene) -> str:
    """All objects from left to right, behind the words with which a generic caption begins."""
    order = sorted(range(len(scene.objects)), key=lambda i: scene.objects[i].x)
    return "a picture of " + _list_objects(scene, order).text


# -- words back to facts ----------------------------------------------------------------------------------------------

_WORDS = r"(?:(?P<size>{})\s+)?(?:(?P<texture>{})\s+)?(?:(?P<colour>{})\s+)?(?P<shape>{})".format(
    *("|".join(values) for values in (SIZES, TEXTURES, COLOURS, SHAPES))
)
MENTION = re.compile(rf"\b{_WORDS}\b")
_RELATION = re.compile("|".join(sorted(map(re.escape, _RELATION_OF), key=len, reverse=True)))
_BACKGROUND = re.compile(rf"\bbackground is ({'|'.join(BACKGROUNDS)})\b|\b({'|'.join(BACKGROUNDS)}) background\b")


@dataclass(frozen=True)
class Facts:
    """What a caption claims: objects by the attributes named, relations between two mentions, the background."""

    mentions: tuple[dict[str, str], ...]
    relations: tuple[tuple[int, str, int], ...]
    background: str | None

    @property
    def count(self) -> int:
        """Specific facts named: every attribute and every relation is one, and so is the background."""
        return sum(map(len, self.mentions)) + len(self.relations) + (self.background is not None)


def read_facts(text: str) -> Facts:
    """Reads the claims of a caption written in the words of this module. Unknown words are passed over."""
    text = text.lower()
    mentions: list[dict[str, str]] = []
    relations: list[tuple[int, str, int]] = []
    for sentence in text.split("."):
        found = list(MENTION.finditer(sentence))
        first = len(mentions)
        mentions += [{k: v for k, v in match.groupdict().items() if v} for match in found]
        for i, (left, right) in enumerate(itertools.pairwise(found)):
            between = _RELATION.search(sentence, left.end(), right.start())
            if between:
                relations.append((first + i, _RELATION_OF[between.group()], first + i + 1))
    background = _BACKGROUND.search(text)
    name = (background.group(1) or background.group(2)) if background else None
    return Facts(tuple(mentions), tuple(relations), name)


def matching_objects(scene: Scene, mention: dict[str, str]) -> list[int]:
    """The objects of the scene of which everything that the mention says is true."""
    return [
        i
        for i, obj in enumerate(scene.objects)
        if all(getattr(obj, attribute) == mention[attribute] for attribute in ATTRIBUTES if attribute in mention)
    ]


def is_true(scene: Scene, text: str) -> bool:
    """Whether all that a text in the words of this module claims is so; a text that claims nothing is true."""
    facts = read_facts(text)
    found = [matching_objects(scene, mention) for mention in facts.mentions]
    related = all(relation_holds(scene, found[i], name, found[j]) for i, name, j in facts.relations)
    return all(found) and related and facts.background in (None, scene.background)


def relation_holds(scene: Scene, subjects: list[int], name: str, anchors: list[int]) -> bool:
    """Whether some subject stands so to some anchor."""
    return any(relation(scene, i, j) == name for i in subjects for j in anchors if i != j)


assert set(_RELATION_OF.values()) == set(RELATIONS)
