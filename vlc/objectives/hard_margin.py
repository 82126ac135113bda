"""Texts that are almost right kept below the caption by a margin that grows with what the model can do.

CE-CLIP (Zhang et al., "Contrasting Intra-Modal and Ranking Cross-Modal Hard Negatives", CVPR 2024, arXiv 2306.08832,
section 3.3). A fixed margin is too much at first and too little later; here it is the mean gap of the batch itself, so
that the records that lie below it are moved. (The paper takes the gap of the step before.)
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.objectives.hard_texts import own_and_wrong, some_words
from vlc.settings import number


def hard_margin_loss(
    image_embed: Float[Array, "B D"],
    text_embed: Float[Array, "B D"],
    hard_embed: Float[Array, "B K D"],
    there: Float[Array, "B K"],
    logit_scale: Float[Array, ""] | float,
    bound: float = 10.0,
) -> Float[Array, ""]:
    """`L = mean over the wrong texts of max(0, m - (own - wrong))`, `m = clip(mean of own - wrong, 0, bound)`.

    No gradient is taken of the margin m. Where no record has a wrong text the loss is 0.

    Args:
        image_embed: Unit length.
        text_embed: Row i belongs to image i.
        hard_embed: Row i holds the wrong texts of image i.
        there: 1 for those that there are.
        logit_scale: The multiplier, 1/temperature; the margin is one of logits.
        bound: The largest margin.
    """
    own, wrong = own_and_wrong(image_embed, text_embed, hard_embed)
    gap = logit_scale * (own[:, None] - wrong)
    count = jnp.maximum(there.sum(), 1)
    margin = jax.lax.stop_gradient(jnp.clip((gap * there).sum() / count, 0, bound))
    return (jax.nn.relu(margin - gap) * there).sum() / count


class HardMargin(Weighted):
    """Wrong texts below the caption by a margin that adapts, by pooled embeddings (CE-CLIP)."""

    bound = number(10.0, "the largest margin, of logits", above=0)


def _hard_margin(encoded: Encoded, scales: Scales, options: Any) -> Array:
    return hard_margin_loss(
        encoded.image_embed, encoded.text_embed[:, 0], encoded.hard_embed, some_words(encoded), scales.logit_scale,
        options.bound,
    )  # fmt: skip


HARD_MARGIN = Objective("hard_margin", HardMargin, ("text_embed", "hard_texts"), _hard_margin, compares="embed")
