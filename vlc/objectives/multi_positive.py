"""Several captions of one image as positives: DreamLIP (per slot) and GBC (all captions)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlc.errors import ConfigError
from vlc.objectives.base import Contrastive, Encoded, Objective
from vlc.objectives.duplicates import without
from vlc.settings import choice


def multi_positive_loss(
    image_embed: Float[Array, "B D"],
    caption_embeds: Float[Array, "B K D"],
    logit_scale: Float[Array, ""] | float,
    *,
    negatives: str = "slot",
    present: Float[Array, "B K"] | None = None,
    same: Bool[Array, "B B K"] | None = None,
) -> Float[Array, ""]:
    """Contrastive loss with K positives an image, the mean of both directions.

    `slot` (DreamLIP, arXiv 2403.17007, eq. 5): the k-th caption competes with the k-th captions of the other images;
    the K losses are averaged. `all` (GBC, arXiv 2407.06723): image to text, a positive competes with all captions of
    all *other* images, never with its siblings; text to image, each caption's softmax runs over the images.

    Args:
        image_embed: `[B, D]`.
        caption_embeds: `[B, K, D]`; row i holds the captions of image i.
        logit_scale: The multiplier, 1/temperature.
        negatives: `slot` or `all`.
        present: For `all`, 1 for the captions that an image has, 0 where it has fewer than K; `None`: all.
        same: Images i and captions k of *other* images j that are no negatives of each other.

    Raises:
        ConfigError: `negatives` is unknown.
    """
    logits = logit_scale * jnp.einsum(
        "id,jkd->ijk", image_embed, caption_embeds, preferred_element_type=jnp.float32, precision="highest"
    )
    logits = without(logits, same)
    own = jnp.diagonal(logits).T  # [B, K]
    text_to_image = -jnp.diagonal(jax.nn.log_softmax(logits, axis=0)).T
    if negatives == "slot":
        return 0.5 * (text_to_image.mean() - jnp.diagonal(jax.nn.log_softmax(logits, axis=1)).mean())
    if negatives == "all":
        there = jnp.ones(own.shape) if present is None else present
        absent = jnp.eye(len(logits), dtype=bool)[..., None] | (there == 0)[None]
        rest = jax.nn.logsumexp(jnp.where(absent, -jnp.inf, logits), axis=(1, 2))[:, None]
        image_to_text = jnp.logaddexp(own, rest) - own
        return 0.5 * ((image_to_text + text_to_image) * there).sum() / there.sum()
    raise ConfigError(f'multi_positive_loss: negatives is "{negatives}"; it must be "slot" or "all".')


class MultiPositive(Contrastive):
    """Contrastive loss with several captions an image (DreamLIP, GBC)."""

    negatives = choice("slot", ("slot", "all"), "captions of the same slot (DreamLIP), or all of other images (GBC)")


def _same_of(encoded: Encoded, options: Any) -> Any:
    """Of slots: whether the captions of a slot, or the images, are equal; of all: whether a caption is any of i's."""
    if options.duplicates == "negatives":
        return None
    text, count = encoded.text_id, encoded.text_id.shape[1]
    image = (encoded.image_id[:, None] == encoded.image_id[None]).all(axis=-1)[..., None]
    if options.negatives == "slot":
        equal = (text[:, None] == text[None]).all(axis=-1)
    else:
        each = ((text[:, k][:, None, None] == text[None]).all(axis=-1) for k in range(count))
        equal = functools.reduce(jnp.logical_or, each)
    return (equal | image) & ~jnp.eye(len(text), dtype=bool)[..., None]


MULTI_POSITIVE = Objective(
    "multi_positive",
    MultiPositive,
    ("text_embed", "sub_captions"),
    lambda encoded, scales, options: multi_positive_loss(
        encoded.image_embed, encoded.text_embed, scales.logit_scale, negatives=options.negatives,
        present=encoded.distinct, same=_same_of(encoded, options),
    ),
    compares="embed",
)  # fmt: skip
