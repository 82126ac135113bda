"""Claims about generated scenes, whose truth is known: the exact reader and the exact judge."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vlc.data.sources.scenes.language import read_facts
from vlc.data.sources.scenes.world import ATTRIBUTES, Scene, relation
from vlc.units.claim import Claim

_QUALITIES = tuple(name for name in ATTRIBUTES if name != "shape")


def read_scene_claims(text: str) -> list[Claim]:
    """What a caption in the words of scenes says; other words are passed over.

    A mention that adds nothing to one before it, as `the red star` after `a large red star`, is about the same thing.
    """
    facts = read_facts(text)
    things: list[dict[str, str]] = []
    number = []
    for mention in facts.mentions:
        known = [i for i, thing in enumerate(things) if mention.items() <= thing.items()]
        number.append(known[0] if known else len(things))
        if not known:
            things.append(mention)
    claims = [claim for i, thing in enumerate(things) for claim in _of_thing(thing, i)]
    for one, name, other in facts.relations:
        subject, anchor = things[number[one]]["shape"], things[number[other]]["shape"]
        claims.append(Claim("relation", subject, name, anchor, number[one], number[other]))
    if facts.background:
        claims.append(Claim("attribute", "background", facts.background))
    return list(dict.fromkeys(claims))


def _of_thing(thing: dict[str, str], number: int) -> list[Claim]:
    said = [Claim("attribute", thing["shape"], thing[name], mention=number) for name in _QUALITIES if name in thing]
    return [Claim("object", thing["shape"], mention=number), *said]


def claims_of_scene(scene: Scene) -> list[Claim]:
    """All objects with their attributes, and the background; how two stand to each other is not counted."""
    objects = [{name: getattr(obj, name) for name in ATTRIBUTES} for obj in scene.objects]
    claims = [claim for i, thing in enumerate(objects) for claim in _of_thing(thing, i)]
    return [*claims, Claim("attribute", "background", scene.background)]


def judge_by_scene(scene: Scene, claims: Sequence[Claim]) -> tuple[Float[np.ndarray, " N"], dict[int, int]]:
    """1 for what is so, 0 for what is not; and the object that each thing of the text is taken to be.

    A thing is the object of its shape of which most of what is said holds, each object but once while there are
    others; so `a red star and a red star` says something false of a scene of one.
    """
    meant = _objects_meant(scene, claims)
    return np.array([float(_holds(scene, claim, meant)) for claim in claims]), meant


def _objects_meant(scene: Scene, claims: Sequence[Claim]) -> dict[int, int]:
    said: dict[int, list[Claim]] = {}
    for claim in claims:
        if claim.mention >= 0 and claim.kind != "relation":
            said.setdefault(claim.mention, []).append(claim)
    rows = [
        (sum(_fits(scene, claim, i) for claim in about), -number, -i)
        for number, about in said.items()
        for i, obj in enumerate(scene.objects)
        if obj.shape == about[0].subject
    ]
    meant: dict[int, int] = {}
    for _, number, i in sorted(rows, reverse=True):
        if -number not in meant and -i not in meant.values():
            meant[-number] = -i
    return meant


def _fits(scene: Scene, claim: Claim, i: int) -> bool:
    return claim.kind == "object" or claim.predicate in {getattr(scene.objects[i], name) for name in _QUALITIES}


def _holds(scene: Scene, claim: Claim, meant: dict[int, int]) -> bool:
    if claim.subject == "background":
        return claim.predicate == scene.background
    if claim.mention not in meant:
        return False
    if claim.kind != "relation":
        return _fits(scene, claim, meant[claim.mention])
    other = meant.get(claim.anchor)
    return other is not None and relation(scene, meant[claim.mention], other) == claim.predicate
