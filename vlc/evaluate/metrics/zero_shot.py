"""Zero-shot classification with prompt ensembles."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from vlc.evaluate.metrics.ranking import ranks
from vlc.evaluate.metrics.retrieval import token_scores
from vlc.inference import Model
from vlc.models import ImageEncoding, TextEncoding

_CLASSES = 16  # whose prompts' tokens are held at once


def class_scores(
    model: Model, image: ImageEncoding, classes: Sequence[str], templates: Sequence[str], *, by: str = "embed"
) -> Float[np.ndarray, "B classes"]:
    """Scores of every class.

    By embedding, the prompts' embeddings are averaged and normalised (CLIP, section 3.1.4). By tokens, the prompts'
    *similarities* are averaged (FILIP, section 3.3): prompts differ in length, so their tokens cannot be averaged.

    Args:
        model: The model.
        image: Encoded images.
        classes: Class names.
        templates: Prompts with `{}` for the name.
        by: `embed` or `tokens`.
    """
    if by == "tokens":
        return token_class_scores(model, lambda: [image.tokens], classes, templates)
    prompts = model.encode_text(fill_templates(classes, templates))
    return image.embed @ class_embeddings(prompts.embed, len(classes)).T


def fill_templates(classes: Sequence[str], templates: Sequence[str]) -> list[str]:
    """The prompts of all classes, those of a class together."""
    return [template.format(name) for name in classes for template in templates]


def class_embeddings(prompts: Float[np.ndarray, "N D"], classes: int) -> Float[np.ndarray, "classes D"]:
    """The mean of each class's prompts, normalised."""
    mean = prompts.reshape(classes, -1, prompts.shape[1]).mean(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def token_class_scores(
    model: Model, images: Callable[[], Iterable[np.ndarray]], classes: Sequence[str], templates: Sequence[str]
) -> Float[np.ndarray, "B classes"]:
    """By late interaction, the prompts of a few classes at a time.

    Args:
        model: The model.
        images: Gives blocks of image tokens; it is called for each few classes.
        classes: Class names.
        templates: Prompts with `{}` for the name.
    """
    columns = []
    for start in range(0, len(classes), _CLASSES):
        some = classes[start : start + _CLASSES]
        prompts = model.encode_text(fill_templates(some, templates))
        rows = [_mean_by_class(block, prompts, len(some), one_way=model.one_way) for block in images()]
        columns.append(np.concatenate(rows))
    return np.concatenate(columns, axis=1)


def _mean_by_class(tokens: np.ndarray, prompts: TextEncoding, classes: int, *, one_way: bool) -> np.ndarray:
    i2t, _ = token_scores(tokens, prompts, one_way=one_way)
    return i2t.reshape(len(i2t), classes, -1).mean(axis=2)


def without_later_twins(
    scores: Float[np.ndarray, "B classes"], labels: Sequence[int] | np.ndarray, classes: Sequence[str]
) -> Float[np.ndarray, "B classes"]:
    """Scores in which classes of one name do not all lose to each other.

    Their prompts, and so their scores, are the same: ImageNet has two classes `missile` and two `sunglasses`. As where
    the field takes the first best class (open_clip, CLIP_benchmark), the first of them is right for its own images, and
    the others never are.
    """
    kept, names = np.array(scores), np.asarray(classes, object)
    for number in np.unique(labels):
        later = np.flatnonzero(names == names[number])
        later = later[later > number]
        if len(later):
            kept[np.ix_(np.asarray(labels) == number, later)] = -np.inf
    return kept


def accuracy(scores: Float[np.ndarray, "B classes"], labels: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Top-1 and top-5 accuracy, and the mean of the accuracies by class. Ties count as wrong."""
    truth = np.asarray(labels)
    rank = ranks(scores, truth[:, None] == np.arange(scores.shape[1]))
    by_class = [float((rank[truth == c] < 1).mean()) for c in np.unique(truth)]
    return {"top1": float((rank < 1).mean()), "top5": float((rank < 5).mean()), "mean_class": float(np.mean(by_class))}


def by_class(
    scores: Float[np.ndarray, "B classes"], labels: np.ndarray, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Of each class that has images: its accuracy, how many images, and what it is most often taken for."""
    rank = ranks(scores, labels[:, None] == np.arange(scores.shape[1]))
    first = scores.argmax(axis=1)
    rows = []
    for number in np.unique(labels):
        of = labels == number
        wrong = first[of & (first != number)]
        rows.append(
            {
                "class": classes[int(number)],
                "top1": float((rank[of] < 1).mean()),
                "images": int(of.sum()),
                "taken_for": classes[int(np.bincount(wrong).argmax())] if len(wrong) else None,
            }
        )
    return rows
