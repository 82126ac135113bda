"""What a caption says of a scene, and how much of it is so."""

import numpy as np

from vlc.data.sources.scenes.language import matching_objects, read_facts, relation_holds
from vlc.data.sources.scenes.world import Scene


def caption_facts(scene: Scene, caption: str) -> dict[str, float]:
    """What a caption says of a scene.

    Returns:
        `named`: attributes and relations claimed; `mentions`: objects mentioned; `attributes`: share of the claimed
        attributes that some object has; `correct`: share of the objects mentioned that are there exactly as described;
        `covered`: share of the scene's objects that some true mention is about; `exact`: everything said is true,
        relations and background included, and every object is mentioned.
    """
    facts = read_facts(caption)
    found = [matching_objects(scene, mention) for mention in facts.mentions]
    true = [bool(objects) for objects in found]
    claims = [(attribute, value) for mention in facts.mentions for attribute, value in mention.items()]
    shown = [any(getattr(obj, attribute) == value for obj in scene.objects) for attribute, value in claims]
    covered = {index for objects in found for index in objects}
    relations = all(relation_holds(scene, found[i], name, found[j]) for i, name, j in facts.relations)
    background = facts.background in (None, scene.background)
    return {
        "named": facts.count,
        "mentions": len(facts.mentions),
        "correct": float(np.mean(true)) if true else 0.0,
        "attributes": float(np.mean(shown)) if shown else 0.0,
        "covered": len(covered) / len(scene.objects),
        "exact": float(bool(true) and all(true) and relations and background and len(covered) == len(scene.objects)),
    }
