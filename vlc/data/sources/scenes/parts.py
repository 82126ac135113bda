"""The regions of a scene and the graph of what is said of them, exactly as it was drawn."""

import itertools
from collections.abc import Sequence

import numpy as np

from vlc.data.masks import Box, Mask
from vlc.data.regions import IMAGE, Edge, PartsOfPicture, Region
from vlc.data.sources.scenes import language
from vlc.data.sources.scenes.world import ATTRIBUTES, Scene, SceneObject, relation

_ALIKE = {value: values for values in ATTRIBUTES.values() for value in values}
LOOKS = ("colour", "size", "texture")  # the attributes of a region; its label is the shape


def parts_of_scene(scene: Scene, style: int, masks: np.ndarray, *, wrong: bool = False) -> PartsOfPicture:
    """Regions and graph of a scene.

    An `entity` for every object of which something can be seen, in the scene's order; a `relation` for each pair of
    neighbours in the long caption; a `composition` for objects of one colour or one shape.

    Args:
        scene: The scene.
        style: Of its captions.
        masks: The visible pixels of every object, `[objects, side, side]`.
        wrong: With wrong texts for the captions of objects.
    """
    long, short = language.long_caption(scene, style), language.short_caption(scene, style)
    seen = [i for i in range(len(scene.objects)) if masks[i].any()]
    places = {index: place for place, index in enumerate(seen)}
    regions = [_entity(scene.objects[i], masks[i], wrong=wrong) for i in seen]
    edges = [
        Edge(IMAGE, places[phrase.index], caption.text[phrase.start : phrase.end], source, 0, phrase.start)
        for source, caption in (("long", long), ("short", short)) for phrase in caption.phrases
        if phrase.index in places
    ]  # fmt: skip
    order = [phrase.index for phrase in short.phrases if phrase.index in places]
    for subject, anchor in itertools.pairwise(order):
        names = [f"{obj.colour} {obj.shape}" for obj in (scene.objects[subject], scene.objects[anchor])]
        articles = [language.article(name) for name in names]
        where = language.RELATION_WORDINGS[relation(scene, subject, anchor)][0]
        text = f"{articles[0]} {names[0]} {where} {articles[1]} {names[1]}"
        _add(regions, edges, "relation", text, [(places[subject], names[0]), (places[anchor], names[1])])
    for attribute in ("colour", "shape"):
        for value in ATTRIBUTES[attribute]:
            alike = [i for i in seen if getattr(scene.objects[i], attribute) == value]
            if len(alike) > 1:
                thing = f"{value} shapes" if attribute == "colour" else f"{value}{'es' if value == 'cross' else 's'}"
                text = f"{language.NUMBERS[len(alike)]} {thing}"
                _add(regions, edges, "composition", text, [(places[i], thing) for i in alike])
    return PartsOfPicture(tuple(regions), tuple(edges))


def _entity(obj: SceneObject, pixels: np.ndarray, *, wrong: bool) -> Region:
    mask = Mask.of(pixels)
    has = tuple(getattr(obj, look) for look in LOOKS)
    absent = tuple(value for look in LOOKS for value in ATTRIBUTES[look] if value not in has)
    captions = {
        "region": (language.describe_object(obj),),
        "brief": (f"{obj.colour} {obj.shape}",),
        "varied": _of_all_lengths(obj),
    }
    negatives = {text: _one_word_wrong(text) for texts in captions.values() for text in texts} if wrong else {}
    return Region(mask.box, mask, captions, obj.shape, has, absent, kind="entity", negatives=negatives)


def _one_word_wrong(text: str) -> tuple[str, ...]:
    """The text with one of its words replaced by another of its kind, in all ways."""
    words = text.split()
    return tuple(
        " ".join((*words[:place], other, *words[place + 1 :]))
        for place, word in enumerate(words) for other in _ALIKE.get(word, ()) if other != word
    )  # fmt: skip


def _of_all_lengths(obj: SceneObject) -> tuple[str, ...]:
    """The shape with each choice of what else can be said, of one to four words: FlexCap's n-grams."""
    words = (obj.size, obj.texture, obj.colour)
    chosen = itertools.chain.from_iterable(itertools.combinations(words, count) for count in range(len(words) + 1))
    return tuple(" ".join((*some, obj.shape)) for some in chosen)


def _add(regions: list[Region], edges: list[Edge], kind: str, text: str, members: Sequence[tuple[int, str]]) -> None:
    """A region around others, whose caption names them."""
    number, start = len(regions), 0
    box = _around([regions[place].box for place, _ in members])
    regions.append(Region(box, captions={kind: (text,)}, kind=kind))
    edges.append(Edge(IMAGE, number, ""))
    for place, words in members:
        found = text.find(words, start)
        edges.append(Edge(number, place, words, kind, 0, found if found >= 0 else text.find(words)))
        start = max(found, 0) + 1


def _around(boxes: Sequence[Box]) -> Box:
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)
