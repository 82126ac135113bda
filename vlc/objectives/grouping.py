"""DreamLIP's sub-caption grouping: each sub-caption pools the patches that it is about."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.errors import ConfigError
from vlc.models.layers import l2_normalise
from vlc.objectives.base import Objective, Weighted
from vlc.objectives.contrastive import cross_entropy_of_pairs
from vlc.settings import choice, number


def group_patches(
    image_tokens: Float[Array, "B P D"], caption_embeds: Float[Array, "B K D"], *, threshold: float | None = None
) -> Float[Array, "B K D"]:
    """One unit vector for each sub-caption, the mean of the patches that it is about.

    Similarities to the patches are brought to [0, 1] by their minimum and maximum, set to 0 below the threshold, and
    normalised to sum 1. Where all patches are equally similar, all count alike.

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
    weight = jnp.where(weight < threshold, 0, weight)
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
) -> Float[Array, ""]:
    """Contrastive loss of sub-captions with their groups of patches (DreamLIP, eq. 7-9), the mean of both directions.

    Args:
        image_tokens: `[B, P, D]`, unit length.
        caption_embeds: `[B, K, D]`, unit length; sub-captions of image i in row i.
        logit_scale: The multiplier, 1/temperature.
        threshold: See `group_patches`.
        negatives: `image`: the other sub-captions of the same image (the paper). `batch`: all B*K of them.

    Raises:
        ConfigError: `negatives` is unknown.
    """
    groups = group_patches(image_tokens, caption_embeds, threshold=threshold)
    if negatives == "batch":
        width = groups.shape[-1]
        captions, groups = caption_embeds.reshape(-1, width), groups.reshape(-1, width)
        logits = logit_scale * jnp.einsum("nd,md->nm", captions, groups, precision="highest")
        return 0.5 * (cross_entropy_of_pairs(logits, 0) + cross_entropy_of_pairs(logits, 1))
    if negatives == "image":
        logits = logit_scale * jnp.einsum("ikd,ijd->kji", caption_embeds, groups, precision="highest")
        return 0.5 * (cross_entropy_of_pairs(logits, 0) + cross_entropy_of_pairs(logits, 1))
    raise ConfigError(f'grouping_loss: negatives is "{negatives}"; it must be "image" or "batch".')


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
    ),
)  # fmt: skip
