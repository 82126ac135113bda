"""Zero-shot classification with prompt ensembles."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vlc.evaluate.ranking import ranks
from vlc.evaluate.retrieval import token_scores
from vlc.inference import Model
from vlc.models import ImageEncoding


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
    prompts = model.encode_text([template.format(name) for name in classes for template in templates])
    shape = (len(classes), len(templates))
    if by == "tokens":
        i2t, _ = token_scores(image, prompts)
        return i2t.reshape(len(i2t), *shape).mean(axis=2)
    mean = prompts.embed.reshape(*shape, -1).mean(axis=1)
    return image.embed @ (mean / np.linalg.norm(mean, axis=1, keepdims=True)).T


def accuracy(scores: Float[np.ndarray, "B classes"], labels: Sequence[int]) -> dict[str, float]:
    """Top-1 and top-5 accuracy, and the mean of the accuracies by class. Ties count as wrong."""
    truth = np.asarray(labels)
    rank = ranks(scores, truth[:, None] == np.arange(scores.shape[1]))
    by_class = [float((rank[truth == c] < 1).mean()) for c in np.unique(truth)]
    return {"top1": float((rank < 1).mean()), "top5": float((rank < 5).mean()), "mean_class": float(np.mean(by_class))}
