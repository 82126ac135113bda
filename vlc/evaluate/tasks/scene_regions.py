"""Regions of generated scenes, whose truth is known: boxes that queries find, and captions of given boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlc.data.boxes import box_iou
from vlc.data.controls import Controls
from vlc.data.record import Record
from vlc.data.regions import Region
from vlc.data.sources import Scenes
from vlc.data.sources.scenes import language
from vlc.evaluate.metrics.regions import box_recall, patch_cover
from vlc.inference import Model

LENGTHS = (1, 2, 3, 4)  # words of a caption of an object: `circle` to `large striped red circle`


def entities(record: Record) -> list[Region]:
    """The objects of a scene of which something can be seen."""
    return [region for region in record.regions if region.kind == "entity"]


def found_boxes(model: Model, scenes: Scenes, count: int) -> dict[str, float]:
    """How well queries find the objects of scenes, by IoU of at least 0.5.

    Returns:
        `recall` of objects by all queries; `precision` and `named` of those that chose a text and not nothing: whether
        the box is an object's, and whether the text is that object's as well.
    """
    records = [scenes[index] for index in range(count)]
    texts = sorted({region.captions["brief"][0] for record in records for region in entities(record)})
    everything = model.detect([record.image for record in records], texts)
    truth = [[region.box for region in entities(record)] for record in records]
    recall = box_recall([np.array([one.box for one in found]) for found in everything], [np.array(t) for t in truth])
    right, named = [], []
    for record, found in zip(records, everything, strict=True):
        regions = entities(record)
        for one in found:
            if one.score < 0.5:
                continue
            iou, _ = box_iou(np.array(one.box), np.array([region.box for region in regions]))
            best = int(iou.argmax())
            right.append(iou[best] >= 0.5)
            named.append(right[-1] and one.text == regions[best].captions["brief"][0])
    share = {"precision": right, "named": named}
    return {"recall": recall} | {name: float(np.mean(some)) if some else 0.0 for name, some in share.items()}


def answered_boxes(model: Model, scenes: Scenes, count: int) -> dict[str, float]:
    """Where is the red star? The boxes that the captioner writes for the objects of scenes.

    Returns:
        `iou`: the mean, 0 where it writes none; `half`: share of at least 0.5; `other`: the mean IoU with the other
        objects of the scene, which were not asked for.
    """
    asked = [(record, region) for record in map(scenes.__getitem__, range(count)) for region in entities(record)]
    texts = [region.captions["brief"][0] for _, region in asked]
    found = model.locate([record.image for record, _ in asked], texts)
    own, other = [], []
    for (record, region), box in zip(asked, found, strict=True):
        others = [one.box for one in entities(record) if one is not region]
        iou, _ = box_iou(np.array(box or (0, 0, 0, 0)), np.array([region.box, *others]))
        own.append(iou[0])
        other += iou[1:].tolist()
    return {"iou": float(np.mean(own)), "half": float(np.mean(np.array(own) >= 0.5)), "other": float(np.mean(other))}


def caption_grounding(model: Model, scenes: Scenes, count: int) -> dict[str, float]:
    """Where the captioner looks when it writes the words of an object that is there.

    Of the captions that it writes itself; a mention counts where it fits one object of the scene alone.

    Returns:
        `mass`: how much of the attention of a mention's last word lies on its object; `mass_other`: on the mean of the
        others; `pointing`: whether the object covers a quarter or more of the patch that is looked at most; `mentions`:
        how many there were.
    """
    grid, records = model.grid, [scenes[index] for index in range(count)]
    pixels = np.stack([model.preprocess(record.image) for record in records])
    written = model.caption([record.image for record in records])
    ids = model.tokenizer.encode(written, model.caption_length + 1)
    looked = model.caption_attention(pixels, ids[:, :-1])
    mass, other, pointing = [], [], []
    for record, text, row in zip(records, written, looked, strict=True):
        cover = patch_cover(record.extra["masks"], grid).reshape(len(record.extra["masks"]), -1)
        spans = model.tokenizer.spans(text)
        for place, mention in zip(_mentions(text), language.read_facts(text).mentions, strict=True):
            fitting = language.matching_objects(record.extra["scene"], mention)
            tokens = [i for i, (start, end) in enumerate(spans) if start < place[1] and end > place[0]]
            if len(fitting) != 1 or not tokens or tokens[-1] > len(row):
                continue
            heat = row[tokens[-1] - 1]  # of the position before, which writes it
            on = cover @ heat
            mass.append(on[fitting[0]])
            other += np.delete(on, fitting[0]).tolist()
            pointing.append(cover[fitting[0], heat.argmax()] >= 0.25)
    found = {"mass": mass, "mass_other": other, "pointing": pointing}
    return {name: float(np.mean(some)) if some else 0.0 for name, some in found.items()} | {
        "mentions": float(len(mass))
    }


def _mentions(text: str) -> list[tuple[int, int]]:
    """Where the mentions of objects stand in a text, in the order of `language.read_facts`."""
    return [match.span() for match in language.MENTION.finditer(text.lower())]


def region_captions(model: Model, scenes: Scenes, count: int) -> dict[str, Any]:
    """What captions of given boxes say, and whether they are of the length that was asked for.

    Returns:
        `named`: share of captions that name the shape of their object; `true`: that say nothing else than what it is;
        `unique`: that say what is true of no other object of the scene as well; `duplicates`: equal captions of two
        objects of a scene; of a model that compares embeddings, `retrieved`: share of captions whose own region is the
        one of the scene that is most like them, and `retrieved_whole`: of captions that are not told the region; where
        lengths were shown in training, `length` and `length_named` by words: share of captions of that length, and the
        shape named.
    """
    records = [scenes[index] for index in range(count)]
    images = [record.image for record in records]
    boxes = [[region.box for region in entities(record)] for record in records]
    written = model.caption(images, boxes=boxes)
    made: dict[str, Any] = _judged(records, written)
    if "embed" in model.compares:
        vectors = model.encode_regions(images, boxes=boxes)
        whole = [[text] * len(some) for text, some in zip(model.caption(images), boxes, strict=True)]
        made |= {"retrieved": _retrieved(model, vectors, written), "retrieved_whole": _retrieved(model, vectors, whole)}
    lengths = [words for words in LENGTHS if words in Controls.of(model.config).lengths]
    if lengths:
        made["length"], made["length_named"] = {}, {}
        for words in lengths:
            said = model.caption(images, boxes=boxes, control={"length": words})
            flat = [text for texts in said for text in texts]
            made["length"][words] = float(np.mean([len(text.split()) == words for text in flat]))
            made["length_named"][words] = _judged(records, said)["named"]
    return made


def _retrieved(model: Model, vectors: Sequence[np.ndarray], written: Sequence[Sequence[str]]) -> float:
    """How often a caption is more like its own region than like any other of its image; equal captions cannot be for
    both (URECA: a caption is to find its own region)."""
    texts = iter(model.encode_text([text for some in written for text in some]).embed)
    found = []
    for regions, some in zip(vectors, written, strict=True):
        scores = regions @ np.array([next(texts) for _ in some]).reshape(len(some), -1).T
        others = np.where(np.eye(len(some), dtype=bool), -np.inf, scores)
        found += (np.diagonal(scores) > others.max(axis=0)).tolist() if len(some) > 1 else []
    return float(np.mean(found))


def _judged(records: Sequence[Record], written: Sequence[Sequence[str]]) -> dict[str, float]:
    named, true, unique, duplicates = [], [], [], []
    for record, texts in zip(records, written, strict=True):
        scene, masks = record.extra["scene"], record.extra["masks"]
        seen = [i for i in range(len(scene.objects)) if masks[i].any()]
        for place, (index, text) in enumerate(zip(seen, texts, strict=True)):
            mentions = language.read_facts(text).mentions
            fitting = [language.matching_objects(scene, mention) for mention in mentions]
            named.append(any(mention["shape"] == scene.objects[index].shape for mention in mentions))
            true.append(bool(fitting) and all(index in some for some in fitting))
            unique.append(true[-1] and any(some == [index] for some in fitting))
            duplicates.append(text in texts[:place] or text in texts[place + 1 :])
    return {
        name: float(np.mean(some))
        for name, some in (("named", named), ("true", true), ("unique", unique), ("duplicates", duplicates))
    }
