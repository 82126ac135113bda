"""DreamLIP's sub-caption grouping: each sub-caption pools the patches that it is about."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.errors import ConfigError
from vlc.models.layers import l2_normalise
from vlc.objectives.base import Objective, Weighted
from vlc.settings import choice, number


def group_patches(
    image_tokens: Float[Array, "B P D"], caption_embeds: Float[Array, "B K D"], *, threshold: float | None = None
) -> Float[Array, "B K D"]:
    """One unit vector for each sub-caption, the mean of the patches that it is about.

    Similarities to the patches are brought to [0, 1] by their minimum and maximum, set to 0 below the threshold, and
    normalised to sum 1; the most similar patch always counts. Where all patches are equally similar, all count alike.

    Args:
        image_tokens: `[B, P, D]`.
        caption_embeds: `[B, K, D]`.
        threshold: `None` is 1/P (SPARC, arXiv 2401.09865).
    """
    patches = image_tokens.shape[1]
    threshold = 1 / patches if threshold is None else threshold
    similarity = jnp.einsum("ikd,ipd->ikp", caption_embeds, image_tokens, precision="highest")
    low, high = similarity.min(axis=-1, keepdims=True), similarity.max(axis=-1, keepdims=True)
    weight = (similarity - low) / (high - low + 1e-10)
    weight = jnp.where((weight < threshold) & (similarity < high), 0, weight)
    weight = jnp.where(high > low, weight, 1)
    weight = weight / weight.sum(axis=-1, keepdims=True)
    return l2_normalise(jnp.einsum("ikp,ipd->ikd", weight, image_tokens, precision="highest"))


def grouping_loss(
    image_tokens: Float[Array, "B P D"],
    caption_embeds: Float[Array, "B K D"],
    logit_scale: Float[Array, ""] | float,
    *,
    threshold: float | None = None,
    negatives: str = "image",
    distinct: Float[Array, "B K"] | None = None,
) -> Float[Array, ""]:
    """Contrastive loss of sub-captions with their groups of patches (DreamLIP, eq. 7-9), the mean of both directions.

    Args:
        image_tokens: `[B, P, D]`, unit length.
        caption_embeds: `[B, K, D]`, unit length; sub-captions of image i in row i.
        logit_scale: The multiplier, 1/temperature.
        threshold: See `group_patches`.
        negatives: `image`: the other sub-captions of the same image (the paper). `batch`: all B*K of them.
        distinct: 0 for a sub-caption that is again one before it of the same image, as where an image has fewer
            sentences than slots: it takes no part, else the two would be each other's negatives. `None`: all differ.

    Raises:
        ConfigError: `negatives` is unknown.
    """
    groups = group_patches(image_tokens, caption_embeds, threshold=threshold)
    counted = jnp.ones(groups.shape[:2]) if distinct is None else distinct
    if negatives == "batch":
        captions, groups, counted = (x.reshape(1, -1, *x.shape[2:]) for x in (caption_embeds, groups, counted))
        return _among_counted(captions, groups, counted, logit_scale)
    if negatives == "image":
        return _among_counted(caption_embeds, groups, counted, logit_scale)
    raise ConfigError(f'grouping_loss: negatives is "{negatives}"; it must be "image" or "batch".')


def _among_counted(
    captions: Float[Array, "N K D"], groups: Float[Array, "N K D"], counted: Float[Array, "N K"], scale: Any
) -> Float[Array, ""]:
    """Both cross-entropies of each caption with its group, among those that count; the mean over all that do."""
    logits = scale * jnp.einsum("nkd,njd->nkj", captions, groups, precision="highest")
    both = (counted[:, :, None] * counted[:, None]) > 0
    logits = jnp.where(both | jnp.eye(logits.shape[1], dtype=bool), logits, -jnp.inf)
    hits = sum(jnp.diagonal(jax.nn.log_softmax(logits, axis=axis), axis1=1, axis2=2) for axis in (1, 2))
    return -0.5 * (hits * counted).sum() / counted.sum()


class Grouping(Weighted):
    """Contrastive loss of sub-captions with the patches that they are about (DreamLIP)."""

    threshold = number(-1.0, "similarities below it, scaled to 0..1, count as 0; -1: 1/P", low=-1, below=1)
    negatives = choice("image", ("image", "batch"), "the other sub-captions of the image, or of the whole batch")


GROUPING = Objective(
    "grouping",
    Grouping,
    ("text_embed", "sub_captions", "image_tokens"),
    lambda encoded, scales, options: grouping_loss(
        encoded.image_tokens, encoded.text_embed, scales.token_logit_scale,
        threshold=None if options.threshold < 0 else options.threshold, negatives=options.negatives,
        distinct=encoded.distinct,
    ),
)  # fmt: skip
