"""Image-text retrieval both ways, with any number of captions an image."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vlc.evaluate.ranking import ranks, recall
from vlc.models import ImageEncoding, TextEncoding
from vlc.similarity import late_interaction


def token_scores(
    image: ImageEncoding, text: TextEncoding, *, block: int = 256
) -> tuple[Float[np.ndarray, "B N"], Float[np.ndarray, "B N"]]:
    """`late_interaction` of all images with all texts, in blocks of texts, so that device memory stays bounded."""
    score = jax.jit(late_interaction)
    images = jnp.asarray(image.tokens)
    columns = []
    count = len(text.mask)
    for start in range(0, count, block):
        part = slice(start, start + block)
        fill = ((0, block - len(text.mask[part])), (0, 0))
        tokens, mask = np.pad(text.tokens[part], (*fill, (0, 0))), np.pad(text.mask[part], fill)
        columns.append(jax.device_get(score(images, tokens, mask)))
    i2t, t2i = (np.concatenate(matrices, axis=1)[:, :count] for matrices in zip(*columns, strict=True))
    return i2t, t2i


def retrieval_metrics(
    i2t: Float[np.ndarray, "B N"], t2i: Float[np.ndarray, "B N"], owner: Int[np.ndarray, " N"]
) -> dict[str, float]:
    """Recall both ways: an image finds any of its captions, a caption finds its image.

    Args:
        i2t: Scores that rank texts for an image.
        t2i: Scores that rank images for a text.
        owner: The image of each text.
    """
    belongs = owner[None, :] == np.arange(len(i2t))[:, None]
    return recall(ranks(i2t, belongs), "i2t") | recall(ranks(t2i.T, belongs.T), "t2i")


def both_retrievals(image: ImageEncoding, text: TextEncoding, owner: Sequence[int]) -> dict[str, dict[str, float]]:
    """Recall by embedding (`embed`) and by late interaction (`tokens`: images rank with i2t, texts with t2i)."""
    cosine = image.embed @ text.embed.T
    index = np.asarray(owner)
    return {
        "embed": retrieval_metrics(cosine, cosine, index),
        "tokens": retrieval_metrics(*token_scores(image, text), index),
    }
