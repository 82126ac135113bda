"""Contrastive losses of pooled embeddings: CLIP, ALIGN, SigLIP. Embeddings are already of unit length."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlc.errors import ConfigError
from vlc.objectives.base import Encoded, Exchanged, Objective
from vlc.objectives.duplicates import same_pairs, without
from vlc.settings import choice, number
from vlc.similarity.ring import Ring, ring_axes, ring_sigmoid_loss, ring_softmax_loss


def cross_entropy_of_pairs(logits: Float[Array, "N N"], axis: int, *, label_smoothing: float = 0.0) -> Float[Array, ""]:
    """Mean of -log softmax over `axis` at the diagonal; smoothing spreads that share of the target evenly.

    Logits of minus infinity stand for pairs that take no part.
    """
    log_probs = jax.nn.log_softmax(logits, axis=axis)
    hit = jnp.diagonal(log_probs).mean()
    if not label_smoothing:
        return -hit
    count = jnp.isfinite(logits).sum(axis=axis, keepdims=True)
    spread = jnp.where(jnp.isfinite(logits), log_probs, 0) / count
    return -(1 - label_smoothing) * hit - label_smoothing * spread.sum(axis=axis).mean()


def clip_loss(
    image_embed: Float[Array, "B D"],
    text_embed: Float[Array, "B D"],
    logit_scale: Float[Array, ""] | float,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    exchange: str = "gather",
    same: Bool[Array, "B B"] | None = None,
) -> Float[Array, ""]:
    """Softmax contrastive loss over the whole batch, both ways.

    `L_i2t = -1/B sum_i log softmax_j(s <v_i, t_j>)[i]`, `L_t2i` the same over images. CLIP (arXiv 2103.00020, figure 3)
    takes their mean; ALIGN (arXiv 2102.05918, eq. 1-2) their sum, with label smoothing 0.1.

    Args:
        image_embed: `[B, D]`.
        text_embed: `[B, D]`; row i belongs to image i.
        logit_scale: The multiplier s, 1/temperature.
        label_smoothing: Share of the target that is spread over all candidates.
        reduction: `mean` or `sum` of the two directions.
        exchange: How devices compare their shares of the batch: `gather` or `ring` (`vlc.similarity.ring`).
        same: Pairs that are no negatives, off the diagonal (`objectives.duplicates`).

    Raises:
        ConfigError: The reduction or the exchange is unknown, or `ring` is to leave pairs out.
    """
    if reduction not in ("mean", "sum"):
        raise ConfigError(f'clip_loss: reduction is "{reduction}"; it must be "mean" or "sum".')
    half = 0.5 if reduction == "mean" else 1.0
    if axes := ring_axes(exchange, len(image_embed)):
        refuse_same(same)
        ring = Ring(_both_ways, axes, len(image_embed), label_smoothing)
        return half * sum(ring_softmax_loss(ring, image_embed, text_embed, (), logit_scale), start=jnp.float32(0))
    logits = without(logit_scale * _similarities(image_embed, text_embed), same)
    i2t = cross_entropy_of_pairs(logits, 1, label_smoothing=label_smoothing)
    t2i = cross_entropy_of_pairs(logits, 0, label_smoothing=label_smoothing)
    return half * (i2t + t2i)


def siglip_loss(
    image_embed: Float[Array, "B D"],
    text_embed: Float[Array, "B D"],
    logit_scale: Float[Array, ""] | float,
    logit_bias: Float[Array, ""] | float,
    *,
    exchange: str = "gather",
    same: Bool[Array, "B B"] | None = None,
) -> Float[Array, ""]:
    """Sigmoid loss over all pairs (SigLIP, arXiv 2303.15343, section 3.2), divided by B, not by B^2.

    `L = -1/B sum_ij log sigmoid(z_ij (s <v_i, t_j> + b))`, z = 1 for i = j, else -1.

    Args:
        image_embed: `[B, D]`.
        text_embed: `[B, D]`; row i belongs to image i.
        logit_scale: The multiplier s.
        logit_bias: The bias b, -10 at the start.
        exchange: How devices compare their shares of the batch: `gather` or `ring` (`vlc.similarity.ring`).
        same: Pairs that are no negatives, off the diagonal (`objectives.duplicates`).

    Raises:
        ConfigError: The exchange is unknown, or `ring` is to leave pairs out.
    """
    if axes := ring_axes(exchange, len(image_embed)):
        refuse_same(same)
        ring = Ring(_both_ways, axes, len(image_embed))
        return ring_sigmoid_loss(ring, image_embed, text_embed, logit_scale, logit_bias)
    logits = logit_scale * _similarities(image_embed, text_embed) + logit_bias
    signs = 2 * jnp.eye(logits.shape[0]) - 1
    losses = -jax.nn.log_sigmoid(signs * logits)
    return (losses if same is None else jnp.where(same, 0, losses)).sum() / logits.shape[0]


def refuse_same(same: Any) -> None:
    """Raises `ConfigError` where a ring is to leave pairs out: it never sees all of them at once."""
    if same is not None:
        raise ConfigError('duplicates="ignored" needs exchange="gather": a ring never sees all pairs at once.')


def same_of(encoded: Encoded, options: Any) -> Any:
    """The pairs that an objective leaves out; `None` where it counts all."""
    if options.duplicates == "negatives":
        return None
    return same_pairs(encoded.text_id[:, 0], encoded.image_id)


def _similarities(a: Float[Array, "N D"], b: Float[Array, "M D"]) -> Float[Array, "N M"]:
    return jnp.einsum("nd,md->nm", a, b, preferred_element_type=jnp.float32, precision="highest")


def _both_ways(images: Array, texts: Array, _: tuple[()]) -> tuple[Array, Array]:
    similarity = _similarities(images, texts)
    return similarity, similarity


class Clip(Exchanged):
    """Softmax contrastive loss of pooled embeddings (CLIP; with `sum` and smoothing, ALIGN)."""

    weight = number(1.0, "weight in the total loss; 0: left out", low=0)
    label_smoothing = number(0.0, "share of the target that is spread over all candidates", low=0, below=1)
    reduction = choice("mean", ("mean", "sum"), "of the two directions")


class SigLip(Exchanged):
    """Sigmoid loss of pooled embeddings over all pairs (SigLIP)."""


CLIP = Objective(
    "clip",
    Clip,
    ("text_embed",),
    lambda encoded, scales, options: clip_loss(
        encoded.image_embed, encoded.text_embed[:, 0], scales.logit_scale,
        label_smoothing=options.label_smoothing, reduction=options.reduction, exchange=options.exchange,
        same=same_of(encoded, options),
    ),
    compares="embed",
)  # fmt: skip

SIGLIP = Objective(
    "siglip",
    SigLip,
    ("text_embed",),
    lambda encoded, scales, options: siglip_loss(
        encoded.image_embed, encoded.text_embed[:, 0], scales.logit_scale, scales.logit_bias,
        exchange=options.exchange, same=same_of(encoded, options),
    ),
    compares="embed",
)  # fmt: skip
