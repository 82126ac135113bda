"""Contrastive losses of pooled embeddings: CLIP, ALIGN, SigLIP. Embeddings are already of unit length."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlc.errors import ConfigError
from vlc.objectives.base import Encoded, Exchanged, Objective
from vlc.objectives.duplicates import same_pairs, without, without_wide
from vlc.objectives.further_texts import Further, check_weight, further_texts, with_further
from vlc.objectives.transport import transport_targets
from vlc.settings import choice, number
from vlc.similarity.ring import (
    Ring,
    ring_axes,
    ring_sigmoid_loss,
    ring_softmax_loss,
    sigmoid_losses,
    weigh_further,
)

_ROUNDS = 50  # of Sinkhorn's scaling, as in Norton's code


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
    transport: float = 0.0,
    exchange: str = "gather",
    same: Bool[Array, "B B"] | None = None,
    further: Further | None = None,
    further_weight: float = 1.0,
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
        transport: Share of the target that optimal transport of the batch's logits gives (`objectives.transport`).
        exchange: How devices compare their shares of the batch: `gather` or `ring` (`vlc.similarity.ring`).
        same: Pairs that are no negatives, off the diagonal (`objectives.duplicates`).
        further: Embeddings `[B, H, D]` of wrong texts, which all images choose from too (NegCLIP), and 1 `[B, H]` for
            those that there are.
        further_weight: How much each of them counts in the softmax.

    Raises:
        ConfigError: The reduction or the exchange is unknown, or `ring` is to leave pairs out, or labels are to be
            smoothed over wrong texts, or `transport` is to go with any of these.
    """
    check_weight(further_weight, further, label_smoothing=label_smoothing > 0, transport=transport > 0)
    if reduction not in ("mean", "sum"):
        raise ConfigError(f'clip_loss: reduction is "{reduction}"; it must be "mean" or "sum".')
    half = 0.5 if reduction == "mean" else 1.0
    score, texts, constants = _with_wrong(text_embed, further)
    if transport:
        if exchange == "ring" or same is not None or label_smoothing:
            raise ConfigError('clip.transport needs exchange="gather", duplicates="negatives" and no label_smoothing.')
        return half * _transported(logit_scale * score(image_embed, texts, constants)[0], transport)
    if axes := ring_axes(exchange, len(image_embed)):
        refuse_same(same)
        ring = Ring(score, axes, len(image_embed), label_smoothing, further_weight)
        return half * sum(ring_softmax_loss(ring, image_embed, texts, constants, logit_scale), start=jnp.float32(0))
    i2t, t2i = (logit_scale * x for x in score(image_embed, texts, constants))
    i2t = without_wide(weigh_further(i2t, len(text_embed), further_weight), same)
    return half * (
        cross_entropy_of_pairs(i2t, 1, label_smoothing=label_smoothing)
        + cross_entropy_of_pairs(without(t2i, same), 0, label_smoothing=label_smoothing)
    )


def _transported(logits: Float[Array, "N N"], share: float) -> Float[Array, ""]:
    """The sum of both cross-entropies with targets by optimal transport."""
    targets = transport_targets(logits, share, _ROUNDS)
    log_probs = jax.nn.log_softmax(logits, axis=1) + jax.nn.log_softmax(logits, axis=0)
    return -(targets * log_probs).sum() / len(logits)


def siglip_loss(
    image_embed: Float[Array, "B D"],
    text_embed: Float[Array, "B D"],
    logit_scale: Float[Array, ""] | float,
    logit_bias: Float[Array, ""] | float,
    *,
    exchange: str = "gather",
    same: Bool[Array, "B B"] | None = None,
    further: Further | None = None,
    further_weight: float = 1.0,
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
        further: Embeddings `[B, H, D]` of wrong texts, false pairs with all images, and 1 `[B, H]` for those that there
            are.
        further_weight: Of their losses.

    Raises:
        ConfigError: The exchange is unknown, or `ring` is to leave pairs out.
    """
    check_weight(further_weight, further)
    count = len(image_embed)
    score, texts, constants = _with_wrong(text_embed, further)
    if axes := ring_axes(exchange, count):
        refuse_same(same)
        ring = Ring(score, axes, count, further=further_weight)
        return ring_sigmoid_loss(ring, image_embed, texts, constants, logit_scale, logit_bias)
    similarity, _ = score(image_embed, texts, constants)
    losses = sigmoid_losses(similarity, (logit_scale, logit_bias), count, further_weight)
    if same is not None:
        losses = losses.at[:, :count].multiply(~same)
    return losses.sum() / count


def refuse_same(same: Any) -> None:
    """Raises `ConfigError` where a ring is to leave pairs out: it never sees all of them at once."""
    if same is not None:
        raise ConfigError('duplicates="ignored" needs exchange="gather": a ring never sees all pairs at once.')


def same_of(encoded: Encoded, options: Any) -> Any:
    """The pairs that an objective leaves out; `None` where it counts all."""
    if options.duplicates == "negatives":
        return None
    return same_pairs(encoded.text_id[:, 0], encoded.image_id)


def similarities(a: Float[Array, "N D"], b: Float[Array, "M D"]) -> Float[Array, "N M"]:
    """Cosines of rows of unit length, in float32."""
    return jnp.einsum("nd,md->nm", a, b, preferred_element_type=jnp.float32, precision="highest")


def _both_ways(images: Array, texts: Array, _: Any) -> tuple[Array, Array]:
    similarity = similarities(images, texts)
    return similarity, similarity


_both_ways_and_wrong = with_further(_both_ways)


def _with_wrong(texts: Array, further: Further | None) -> tuple[Any, Any, Any]:
    """The function that scores images with all texts, those texts, and what tells which there are."""
    if further is None:
        return _both_ways, texts, ()
    return _both_ways_and_wrong, (texts, further[0]), ((), further[1])


class Clip(Exchanged):
    """Softmax contrastive loss of pooled embeddings (CLIP; with `sum` and smoothing, ALIGN)."""

    weight = number(1.0, "weight in the total loss; 0: left out", low=0)
    label_smoothing = number(0.0, "share of the target that is spread over all candidates", low=0, below=1)
    reduction = choice("mean", ("mean", "sum"), "of the two directions")
    transport = number(0.0, "share of the target by optimal transport of the batch (Norton: 0.3)", low=0, below=1)


class SigLip(Exchanged):
    """Sigmoid loss of pooled embeddings over all pairs (SigLIP)."""


CLIP = Objective(
    "clip",
    Clip,
    ("text_embed",),
    lambda encoded, scales, options: clip_loss(
        encoded.image_embed, encoded.text_embed[:, 0], scales.logit_scale,
        label_smoothing=options.label_smoothing, reduction=options.reduction, transport=options.transport,
        exchange=options.exchange,
        same=same_of(encoded, options), further=further_texts(encoded, options), further_weight=options.hard_texts,
    ),
    compares="embed",
)  # fmt: skip

SIGLIP = Objective(
    "siglip",
    SigLip,
    ("text_embed",),
    lambda encoded, scales, options: siglip_loss(
        encoded.image_embed, encoded.text_embed[:, 0], scales.logit_scale, scales.logit_bias,
        exchange=options.exchange, same=same_of(encoded, options), further=further_texts(encoded, options),
        further_weight=options.hard_texts,
    ),
    compares="embed",
)  # fmt: skip
