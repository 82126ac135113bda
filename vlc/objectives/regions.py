"""Regions and what is said of them: which text belongs to which part of which picture."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlc.errors import ConfigError
from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.objectives.captioning import average_nll
from vlc.settings import choice, number

NEGATIVES = ("batch", "image")


def region_contrastive_loss(
    regions: Float[Array, "B R D"],
    texts: Float[Array, "B R D"],
    mask: Float[Array, "B R"],
    logit_scale: Float[Array, ""] | float,
    *,
    negatives: str = "batch",
    ids: Float[Array, "B R 3"] | None = None,
) -> Float[Array, ""]:
    """Symmetric InfoNCE of regions and their texts, the mean over the regions that there are.

    `L = mean over n of -1/2 [log softmax over m of s <r_n, t_m> + log softmax over m of s <r_m, t_n>] at m = n`, where
    m goes over all regions of the batch (`batch`: RegionCLIP, arXiv 2112.09106; FG-CLIP, arXiv 2505.05071, eq. 3), or
    over those of the same image (`image`: DoCo, arXiv 2402.19014, eq. 3). Regions whose text is equal to that of n,
    other than n, are in neither denominator: they are no negatives.

    Args:
        regions: Unit length.
        texts: Unit length; of each region.
        mask: 1 for regions that there are.
        logit_scale: The multiplier, 1/temperature.
        negatives: One of `NEGATIVES`.
        ids: Equal for equal texts; `None`: all are different.

    Raises:
        ConfigError: `negatives` is unknown.
    """
    if negatives not in NEGATIVES:
        raise ConfigError(f'region_contrastive_loss: negatives is "{negatives}"; it must be one of {NEGATIVES}.')
    if negatives == "batch":
        regions, texts, mask = (x.reshape(1, -1, *x.shape[2:]) for x in (regions, texts, mask))
        ids = None if ids is None else ids.reshape(1, -1, ids.shape[2])
    logits = logit_scale * jnp.einsum(
        "grd,gsd->grs", regions, texts, preferred_element_type=jnp.float32, precision="highest"
    )
    own = jnp.diagonal(logits, axis1=1, axis2=2)
    absent = _absent(mask > 0, ids)
    logits = jnp.where(absent, -jnp.inf, logits)
    lost = 0.5 * (jax.nn.logsumexp(logits, axis=2) + jax.nn.logsumexp(logits, axis=1)) - own
    return jnp.where(mask > 0, lost, 0).sum() / jnp.maximum(mask.sum(), 1)


def _absent(there: Bool[Array, "G R"], ids: Float[Array, "G R 3"] | None) -> Bool[Array, "G R R"]:
    """Pairs that take no part: with a region that is not there, or of another with the same text. Never a region with
    itself, so that no denominator is empty."""
    absent = ~(there[:, :, None] & there[:, None])
    if ids is not None:
        absent |= (ids[:, :, None] == ids[:, None]).all(axis=-1)
    return absent & ~jnp.eye(there.shape[1], dtype=bool)


class RegionText(Weighted):
    """Contrastive loss of regions and their texts (GRAIN, DoCo, FG-CLIP)."""

    negatives = choice("batch", NEGATIVES, "of a region: the texts of the whole batch, or of its image (DoCo)")


def _region(encoded: Encoded, scales: Scales, options: Any) -> Array:
    return region_contrastive_loss(
        encoded.region_embed, encoded.region_text_embed, encoded.region_mask, scales.logit_scale,
        negatives=options.negatives, ids=encoded.region_id,
    )  # fmt: skip


class RegionCaption(Weighted):
    """Cross-entropy of captions of regions (FlexCap, FINECAPTION)."""

    average = choice("token", ("token", "example"), "over all tokens, or over captions")
    points = number(0.0, "share of the regions that are given as a point inside of them", low=0, high=1)


REGION = Objective("region", RegionText, ("regions", "region_texts"), _region, compares="embed")
REGION_CAPTION = Objective(
    "region_caption",
    RegionCaption,
    ("region_captions",),
    lambda encoded, scales, options: average_nll(
        encoded.region_nll.reshape(-1), encoded.region_count.reshape(-1), options.average
    ),
)
