"""Texts that are almost right: each image is to prefer its caption to wrong ones that were made of it.

The wrong ones of an image compete with its own caption alone, as in FG-CLIP's loss of hard fine-grained negatives
(arXiv 2505.05071), beside whatever compares the images and texts of the batch. So nothing is exchanged between
devices, and the other losses stay what they are.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.objectives.late_interaction import SCORES
from vlc.settings import choice, number


def among_own(own: Float[Array, " B"], wrong: Float[Array, "B K"], there: Float[Array, "B K"]) -> Float[Array, ""]:
    """Cross-entropy of the right one among it and the wrong ones, the mean of the records that have any.

    `L = mean over i of [log(exp(own_i) + sum over k of exp(wrong_ik)) - own_i]`; 0 where no record has any.

    Args:
        own: Logits of right pairs.
        wrong: Logits of the same images with wrong texts.
        there: 1 for those that there are; others do not count.
    """
    wrong = jnp.where(there > 0, wrong, -jnp.inf)
    lost = jax.nn.logsumexp(jnp.concatenate([own[:, None], wrong], axis=1), axis=1) - own
    counted = (there > 0).any(axis=1)
    return jnp.where(counted, lost, 0).sum() / jnp.maximum(counted.sum(), 1)


def hard_clip_loss(
    image_embed: Float[Array, "B D"],
    text_embed: Float[Array, "B D"],
    hard_embed: Float[Array, "B K D"],
    there: Float[Array, "B K"],
    logit_scale: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """`among_own` of pooled embeddings.

    Args:
        image_embed: Unit length.
        text_embed: Row i belongs to image i.
        hard_embed: Row i holds the wrong texts of image i.
        there: 1 for those that there are.
        logit_scale: The multiplier, 1/temperature.
    """
    own, wrong = own_and_wrong(image_embed, text_embed, hard_embed)
    return among_own(logit_scale * own, logit_scale * wrong, there)


def own_and_wrong(
    images: Float[Array, "B D"], texts: Float[Array, "B D"], hard: Float[Array, "B K D"]
) -> tuple[Float[Array, " B"], Float[Array, "B K"]]:
    """Cosines of each image with its caption, and with its wrong texts."""
    own = jnp.einsum("bd,bd->b", images, texts, precision="highest")
    return own, jnp.einsum("bd,bkd->bk", images, hard, precision="highest")


def some_words(encoded: Encoded) -> Float[Array, "B K"]:
    """1 for the wrong texts that there are: those with a real token."""
    return encoded.hard_mask.max(axis=2)


def hard_filip_loss(
    image_tokens: Float[Array, "B P D"],
    text_tokens: Float[Array, "B T D"],
    text_mask: Float[Array, "B T"],
    hard_tokens: Float[Array, "B K T D"],
    hard_mask: Float[Array, "B K T"],
    logit_scale: Float[Array, ""] | float,
    scores: str = "both",
    smoothing: float = 0.0,
) -> Float[Array, ""]:
    """`among_own` of both token-wise similarities of an image and a text, their mean (FILIP, arXiv 2111.07783).

    Args:
        image_tokens: Unit length.
        text_tokens: Row i belongs to image i.
        text_mask: 1 for real tokens.
        hard_tokens: Row i holds the wrong texts of image i.
        hard_mask: 1 for their real tokens; a text of none is not there.
        logit_scale: The multiplier, 1/temperature.
        scores: Of `filip_loss`.
        smoothing: Likewise.
    """
    texts = jnp.concatenate([text_tokens[:, None], hard_tokens], axis=1)
    mask = jnp.concatenate([text_mask[:, None], hard_mask], axis=1)
    there = hard_mask.max(axis=2)
    i2t, t2i = (logit_scale * score for score in own_scores(image_tokens, texts, mask, smoothing))
    by_text = among_own(t2i[:, 0], t2i[:, 1:], there)
    return by_text if scores == "text" else 0.5 * (among_own(i2t[:, 0], i2t[:, 1:], there) + by_text)


def own_scores(
    images: Float[Array, "B P D"], texts: Float[Array, "B N T D"], mask: Float[Array, "B N T"], smoothing: float = 0.0
) -> tuple[Float[Array, "B N"], Float[Array, "B N"]]:
    """Token-wise similarities `i2t` and `t2i` of each image with texts of its own; 0 for a text of pads only."""
    products = jnp.einsum("bpd,bntd->bnpt", images, texts, preferred_element_type=jnp.float32, precision="highest")
    real = mask > 0
    some = real.any(axis=2)
    best = _best(jnp.where(real[:, :, None], products, -jnp.inf), 3, smoothing)
    i2t = jnp.where(some[..., None], best, 0).mean(axis=2)
    t2i = jnp.where(real, _best(products, 2, smoothing), 0).sum(axis=2) / jnp.maximum(real.sum(axis=2), 1)
    return i2t, t2i


def _best(x: Array, axis: int, smoothing: float) -> Array:
    return smoothing * jax.nn.logsumexp(x / smoothing, axis=axis) if smoothing else x.max(axis=axis)


class HardClip(Weighted):
    """Cross-entropy of the caption among wrong ones that were made of it, by pooled embeddings (FG-CLIP)."""


class HardFilip(Weighted):
    """Cross-entropy of the caption among wrong ones that were made of it, by tokens."""

    scores = choice("both", SCORES, "as of `filip`")
    smoothing = number(0.0, "likewise", low=0)


def _hard_clip(encoded: Encoded, scales: Scales, _: Any) -> Array:
    return hard_clip_loss(
        encoded.image_embed, encoded.text_embed[:, 0], encoded.hard_embed, some_words(encoded), scales.logit_scale
    )


def _hard_filip(encoded: Encoded, scales: Scales, options: Any) -> Array:
    return hard_filip_loss(
        encoded.image_tokens, encoded.text_tokens, encoded.text_mask, encoded.hard_tokens, encoded.hard_mask,
        scales.token_logit_scale, options.scores, options.smoothing,
    )  # fmt: skip


HARD_CLIP = Objective("hard_clip", HardClip, ("text_embed", "hard_texts"), _hard_clip, compares="embed")
HARD_FILIP = Objective(
    "hard_filip", HardFilip, ("image_tokens", "text_tokens", "hard_texts"), _hard_filip, compares="tokens"
)
