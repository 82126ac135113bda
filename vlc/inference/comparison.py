"""How a model compares images with texts: by what it was trained to compare, and by nothing else.

A model trained by FILIP alone has a projection of pooled features, and one trained by CLIP alone a projection of
tokens, that no loss ever saw; what they give looks like a score and means nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vlc.errors import ConfigError, did_you_mean
from vlc.inference.encoder import Encoder
from vlc.models import ImageEncoding, TextEncoding
from vlc.similarity import late_interaction

BY = ("auto", "embed", "tokens")
_PAIRS = 256  # whose tokens are compared at once


def comparable(model: Encoder) -> tuple[str, ...]:
    """What may be compared: what was trained to be, and tokens where they share the projection of trained embeddings,
    as in models of other libraries."""
    shared = "embed" in model.compares and model.config.model.token_head == "pooled"
    return tuple(how for how in ("tokens", "embed") if how in model.compares or (how == "tokens" and shared))


def compared_by(model: Encoder, by: str = "auto") -> str:
    """`embed` or `tokens`; `auto` is the embeddings where they were trained.

    Raises:
        ConfigError: The name is not known, or the model was not trained to compare so.
    """
    if not isinstance(by, str) or by not in BY:
        raise ConfigError(f'by is "{by}", which is not known.{did_you_mean(str(by), BY)}')
    if not model.compares:
        raise ConfigError(
            "This model was not trained to compare images with texts (no contrastive objective has weight in its "
            "config), so it cannot score, retrieve or rank. Name a dual encoder for that."
        )
    how = model.compares[-1] if by == "auto" else by
    if how not in comparable(model):
        trained = [name for name, objective in model.config.objectives.items() if objective.weight]
        raise ConfigError(
            f'by="{by}": this model was trained by {", ".join(trained)}, which compares by '
            f"{' and '.join(model.compares)} alone; no loss ever saw the other projections."
        )
    return how


def all_scores(
    model: Encoder, image: ImageEncoding, text: TextEncoding, by: str = "auto"
) -> tuple[Float[np.ndarray, "B N"], Float[np.ndarray, "B N"]]:
    """Scores of every image with every text, as they rank texts for an image, and images for a text.

    By embedding both are the cosine; by tokens those of `late_interaction`, or its `t2i` twice where the model was
    trained by that alone.
    """
    how = compared_by(model, by)
    if how == "embed" or not len(image.embed) or not len(text.embed):
        cosine = image.embed @ text.embed.T
        return cosine, cosine
    image_mask = None if image.mask is None else jnp.asarray(image.mask)
    tokens, mask = jnp.asarray(text.tokens), jnp.asarray(text.mask)
    i2t, t2i = late_interaction(jnp.asarray(image.tokens), tokens, mask, image_mask=image_mask)
    return np.asarray(t2i if model.one_way else i2t), np.asarray(t2i)


def pair_scores(
    model: Encoder, image: ImageEncoding, text: TextEncoding, owner: Int[np.ndarray, " N"], by: str = "auto"
) -> Float[np.ndarray, " N"]:
    """The score of each text with the one image that it belongs to; by tokens the mean of both directions.

    Args:
        model: What compares.
        image: Encoded images.
        text: Encoded texts.
        owner: The image of each text.
        by: As `compared_by`.
    """
    owner = np.asarray(owner, np.int64)
    if compared_by(model, by) == "embed":
        return np.einsum("nd,nd->n", image.embed[owner], text.embed)
    found = np.zeros(len(owner), np.float32)
    for start in range(0, len(owner), _PAIRS):
        rows = np.arange(start, min(start + _PAIRS, len(owner)))
        filled = np.concatenate([rows, np.full(_PAIRS - len(rows), rows[-1])])  # one shape, so that it compiles once
        images, there = image.tokens[owner[filled]], None if image.mask is None else image.mask[owner[filled]]
        i2t, t2i = _pairs(images, text.tokens[filled], text.mask[filled], there)
        scores = t2i if model.one_way else (i2t + t2i) / 2
        found[rows] = np.asarray(scores)[: len(rows)]
    return found


def logits_of(model: Encoder, image: ImageEncoding, text: TextEncoding) -> Float[np.ndarray, "B N"]:
    """Scores of images with texts as the loss sees them: times the learned scale, with its bias."""
    how, scales = compared_by(model), model.scales
    i2t, _ = all_scores(model, image, text, how)
    if how == "tokens":
        return i2t * scales.token_logit_scale
    return i2t * scales.logit_scale + (scales.logit_bias if model.config.objectives.siglip.weight else 0.0)


@jax.jit
def _pairs(
    images: Float[Array, "N P D"], texts: Float[Array, "N T D"], mask: Any, there: Any
) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
    """FILIP's two similarities (arXiv 2111.07783, eq. 3 to 5) of row with row."""
    products = jnp.einsum("npd,ntd->npt", images, texts, preferred_element_type=jnp.float32, precision="highest")
    best_word = jnp.where(mask[:, None], products, -jnp.inf).max(axis=2)
    best_patch = (products if there is None else jnp.where(there[..., None], products, -jnp.inf)).max(axis=1)
    i2t = best_word.mean(axis=1, where=there)
    t2i = jnp.where(mask, best_patch, 0).sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)
    return jnp.where(mask.any(axis=1), i2t, 0), jnp.where(mask.any(axis=1), t2i, 0)
