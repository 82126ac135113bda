"""Texts that are almost right of a region: it is to prefer its own to wrong ones that were made of it (FG-CLIP)."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.objectives.hard_texts import hard_clip_loss


def region_hard_loss(
    regions: Float[Array, "B R D"],
    texts: Float[Array, "B R D"],
    hard: Float[Array, "B R H D"],
    there: Float[Array, "B R H"],
    logit_scale: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """`hard_clip_loss` of regions: the mean, over those that have wrong texts, of the cross-entropy of the right text
    among it and them (FG-CLIP, Xie et al., 2025, arXiv 2505.05071, eq. 4).

    Args:
        regions: Unit length.
        texts: Of each region.
        hard: Wrong ones of each region.
        there: 1 for those that there are.
        logit_scale: The multiplier, 1/temperature.
    """
    rows = regions.shape[0] * regions.shape[1]
    one, own, wrong, some = (x.reshape(rows, *x.shape[2:]) for x in (regions, texts, hard, there))
    return hard_clip_loss(one, own, wrong, some, logit_scale)


class RegionHard(Weighted):
    """Cross-entropy of a region's text among wrong ones that were made of it (FG-CLIP: weight 0.1)."""


def _loss(encoded: Encoded, scales: Scales, _: Any) -> Array:
    there = encoded.region_hard_mask * (encoded.region_mask[..., None] > 0).astype(jnp.float32)
    return region_hard_loss(
        encoded.region_embed, encoded.region_text_embed, encoded.region_hard_embed, there, scales.logit_scale
    )


REGION_HARD = Objective("region_hard", RegionHard, ("regions", "region_texts", "region_hard"), _loss, compares="embed")
