"""Attributes of pictures whose regions nobody labelled: the region that fits best speaks for its picture.

ViLLA (Varma et al., ICCV 2023, arXiv 2308.11194, section 3): a model learns from captions which attributes a picture
has, by the maximum over its regions; regions are then given the attributes that they fit nearly as well as the best one
of their picture (`vlc map-regions`), and a second model learns from these pairs (the objective `region`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.settings import number


def attribute_mil_loss(
    scores: Float[Array, "B A"], present: Float[Array, "B A"], temperature: float = 0.07
) -> Float[Array, ""]:
    """Each attribute of a picture against the pictures of the batch that have it not.

    `L = mean over (i, a), i has a, of -log [e^(s_ia / t) / (e^(s_ia / t) + sum over j without a of e^(s_ja / t))]`.
    (The published code has 1 more in each denominator.) 0 where no picture has an attribute.

    Args:
        scores: Of the best region of each picture, for each attribute.
        present: 1 for attributes that a picture has.
        temperature: t.
    """
    logits = scores / temperature
    without = jax.nn.logsumexp(jnp.where(present > 0, -jnp.inf, logits), axis=0)
    lost = jnp.logaddexp(logits, without) - logits
    return jnp.where(present > 0, lost, 0).sum() / jnp.maximum(present.sum(), 1)


def best_of_regions(scores: Float[Array, "B R A"], there: Float[Array, "B R"]) -> Float[Array, "B A"]:
    """The maximum over the regions that there are; -1, the least cosine, of a picture without any."""
    return jnp.where(there[..., None] > 0, scores, -1.0).max(axis=1)


class AttributeMil(Weighted):
    """The region that fits an attribute best speaks for its picture (ViLLA, stage 1)."""

    temperature = number(0.07, "of the scores", above=0)


def _loss(encoded: Encoded, _: Scales, options: Any) -> Array:
    return attribute_mil_loss(encoded.attribute_score, encoded.attribute_present, options.temperature)


ATTRIBUTE_MIL = Objective("attribute_mil", AttributeMil, ("attributes",), _loss)
