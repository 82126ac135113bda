"""What can be measured exactly because scenes carry their truth: binding, matched galleries, pointing, facts."""

from collections.abc import Sequence

import numpy as np

from vlc.data.captions import split_sentences
from vlc.data.record import Record
from vlc.data.sources import Scenes
from vlc.data.sources.scenes import language, world
from vlc.evaluate.metrics.ranking import ranks, recall
from vlc.evaluate.metrics.regions import patch_cover
from vlc.evaluate.metrics.retrieval import token_scores
from vlc.evaluate.metrics.zero_shot import accuracy, class_scores
from vlc.inference import Model

TEMPLATES = ("a {}", "a picture of a {}", "there is a {}.", "a {} is shown.")


def open_test_scenes(model: Model, count: int) -> Scenes:
    """Scenes of the test split, drawn by the settings that the model was trained with."""
    data = model.config.data
    return Scenes(side=data.image.size, split="test", length=count, **data.scenes.to_dict())


def edit_twin_accuracy(model: Model, scenes: Scenes, count: int) -> dict[str, dict[str, float]]:
    """Accuracy on pairs of scenes that differ in one thing, both described in the same words but for it.

    `text`: the image prefers its own caption. `image`: the caption prefers its own image. `group`: both captions and
    both images are right (Winoground, Thrush et al. 2022). Ties count as wrong; chance is 1/2, 1/2 and 1/6.

    Args:
        model: The model.
        scenes: Where twins come from.
        count: Pairs for each edit.

    Returns:
        By edit of `world.EDITS`, accuracies by embedding and, with the suffix `_tokens`, by late interaction; an edit
        that these scenes cannot have (a swap in scenes of one object) is not there.
    """
    results = {}
    for edit in world.EDITS:
        twins = _collect_twins(scenes, edit, count)
        if not twins:
            continue
        images = [record.image for pair in twins for record in pair]
        texts = [record.captions["long"][0] for pair in twins for record in pair]
        image, text = model.encode_image(images), model.encode_text(texts)
        i2t, t2i = token_scores(image.tokens, text, one_way=model.one_way)
        cosine = image.embed @ text.embed.T
        by_tokens = {f"{name}_tokens": value for name, value in _pair_accuracy(i2t, t2i).items()}
        results[edit] = _pair_accuracy(cosine, cosine) | by_tokens
    return results


def _collect_twins(scenes: Scenes, edit: str, count: int) -> list[tuple[Record, Record]]:
    twins = (scenes.edit_twin(index, edit) for index in range(len(scenes)))
    found = []
    for pair in twins:
        if pair is not None:
            found.append(pair)
        if len(found) == count:
            break
    return found


def _pair_accuracy(i2t: np.ndarray, t2i: np.ndarray) -> dict[str, float]:
    """From scores of images and captions that stand in pairs: rows 0 and 1 are twins, and so on."""
    pairs = np.arange(len(i2t)).reshape(-1, 2)
    a, b = pairs[:, 0], pairs[:, 1]
    text = np.stack([i2t[a, a] > i2t[a, b], i2t[b, b] > i2t[b, a]], axis=1)
    image = np.stack([t2i[a, a] > t2i[b, a], t2i[b, b] > t2i[a, b]], axis=1)
    return {
        "text": float(text.mean()),
        "image": float(image.mean()),
        "group": float((text.all(axis=1) & image.all(axis=1)).mean()),
    }


def matched_gallery_recall(model: Model, scenes: Scenes, groups: int, size: int = 8) -> dict[str, float]:
    """Text-to-image R@1 among `size` scenes that share colours, shapes or places; chance is 1/size.

    A model that only counts colours is at chance where colours are shared.
    """
    results = {}
    for keep in ("colour", "shape", "place"):
        records = [record for index in range(groups) for record in scenes.matched(index, keep, size)]
        image = model.encode_image([record.image for record in records])
        text = model.encode_text([record.captions["long"][0] for record in records])
        _, by_tokens = token_scores(image.tokens, text, one_way=model.one_way)
        for name, scores in (("embed", image.embed @ text.embed.T), ("tokens", by_tokens)):
            blocks = [scores[i : i + size, i : i + size].T for i in range(0, len(records), size)]
            rank = np.concatenate([ranks(block, np.eye(size, dtype=bool)) for block in blocks])
            results[f"same_{keep}_{name}"] = float((rank < 1).mean())
    return results


def sentence_recall(model: Model, records: Sequence[Record]) -> dict[str, float]:
    """Recall when one sentence of the long caption, not all of it, is to find its image."""
    sentences = [split_sentences(record.captions["long"][0])[1] for record in records]
    image = model.encode_image([record.image for record in records])
    text = model.encode_text(sentences)
    belongs = np.eye(len(records), dtype=bool)
    _, by_tokens = token_scores(image.tokens, text, one_way=model.one_way)
    by_embed = recall(ranks((image.embed @ text.embed.T).T, belongs), "t2i")
    return by_embed | {f"{k}_tokens": v for k, v in recall(ranks(by_tokens.T, belongs), "t2i").items()}


def pointing_game(model: Model, scenes: Scenes, count: int) -> dict[str, float]:
    """Whether the patch that a phrase is most similar to shows the object that it names.

    A phrase points at the patch that its last token is most similar to: a causal text tower has read the whole phrase
    only there. A hit needs that patch to be covered by the visible part of the named object by at least a quarter.

    Returns:
        `accuracy`; `first` and `later`, that of phrases that name an object for the first time in the caption, and
        again; `blind`, that of pointing at a random object; `patch`, that of pointing at a random patch; and `phrases`,
        how many there were.
    """
    hits, later, blind, patch = [], [], [], []
    grid = model.grid
    for index in range(count):
        scene, style = scenes.scene(index)
        record = scenes[index]
        caption = language.long_caption(scene, style)
        image, text = model.encode_image(record.image), model.encode_text(caption.text)
        spans = model.tokenizer.spans(caption.text)
        shown = patch_cover(record.extra["masks"], grid) >= 0.25
        for position, phrase in enumerate(caption.phrases):
            tokens = [
                i for i, (start, end) in enumerate(spans)
                if start < phrase.end and end > phrase.start and i < text.mask.sum()
            ]  # fmt: skip
            if not tokens or not shown[phrase.index].any():
                continue
            heat = image.tokens[0] @ text.tokens[0, tokens[-1]]
            hits.append(shown[phrase.index].reshape(-1)[heat.argmax()])
            later.append(any(one.index == phrase.index for one in caption.phrases[:position]))
            blind.append(np.mean([shown[phrase.index][other].mean() for other in shown if other.any()]))
            patch.append(shown[phrase.index].mean())
    return {
        "accuracy": float(np.mean(hits)),
        "first": float(np.mean(np.array(hits)[~np.array(later)])),
        "later": float(np.mean(np.array(hits)[np.array(later)])),
        "blind": float(np.mean(blind)),
        "patch": float(np.mean(patch)),
        "phrases": len(hits),
    }


def attribute_classification(model: Model, scenes: Scenes, count: int) -> dict[str, dict[str, float]]:
    """Zero-shot classification of one-object scenes by colour and by shape, with a prompt ensemble."""
    single = scenes.subset(objects=(1, 1), overlap_rate=0.0)
    records = [single[index] for index in range(count)]
    image = model.encode_image([record.image for record in records])
    results = {}
    for attribute, templates in (("colour", [t.replace("{}", "{} shape") for t in TEMPLATES]), ("shape", TEMPLATES)):
        classes = world.ATTRIBUTES[attribute]
        labels = [classes.index(getattr(record.extra["scene"].objects[0], attribute)) for record in records]
        for by in ("embed", "tokens"):
            scores = class_scores(model, image, classes, templates, by=by)
            results[f"{attribute}_{by}"] = accuracy(scores, labels) | {"chance": 1 / len(classes)}
    return results
