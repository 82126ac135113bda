"""Every text of its class is right for an image: one class, many descriptions.

AdaptCLIPZS (Saha et al., CVPR 2024, arXiv 2401.02460): each image of a class is shown with one of the descriptions of
that class, drawn anew; what is said of another image of the class is as right as its own.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlc.errors import ConfigError
from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.objectives.contrastive import similarities
from vlc.settings import choice, number


def same_class_loss(
    a: Float[Array, "N D"],
    b: Float[Array, "N D"],
    same: Bool[Array, "N N"],
    logit_scale: Float[Array, ""] | float,
    *,
    there: Float[Array, " N"] | None = None,
    reduction: str = "sum",
) -> Float[Array, ""]:
    """`L = mean over i of -1/|P_i| sum over j in P_i of log softmax_j (s <a_i, b_j>)`, and the same of `b`.

    `P_i` are the rows of the class of i, itself included; the logarithms are averaged, not the shares (the paper's
    released code). Where all classes differ, this is CLIP's loss.

    Args:
        a: Of images, or regions; unit length.
        b: Of their texts.
        same: Whether two rows are of one class.
        logit_scale: The multiplier, 1/temperature.
        there: 1 for rows that there are; `None`: all.
        reduction: `sum` of both directions, as in the paper, or their `mean`.

    Raises:
        ConfigError: `reduction` is unknown.
    """
    if reduction not in ("sum", "mean"):
        raise ConfigError(f'same_class_loss: reduction is "{reduction}"; it must be "sum" or "mean".')
    own, some = jnp.eye(len(a), dtype=bool), jnp.ones(len(a)) if there is None else there
    pairs = (some[:, None] > 0) & (some[None] > 0)
    right = ((same & pairs) | own).astype(jnp.float32)
    logits = jnp.where(pairs | own, logit_scale * similarities(a, b), -jnp.inf)
    log_probs = jax.nn.log_softmax(logits, axis=1) + jax.nn.log_softmax(logits, axis=0)
    lost = -jnp.where(right > 0, log_probs, 0).sum(axis=1) / right.sum(axis=1)
    # Both directions have one count of positives for a row, since to be of one class goes both ways.
    total = jnp.where(some > 0, lost, 0).sum() / jnp.maximum(some.sum(), 1)
    return total if reduction == "sum" else 0.5 * total


class SameClass(Weighted):
    """Contrastive loss in which all texts of a class are right for its images (AdaptCLIPZS)."""

    reduction = choice("sum", ("sum", "mean"), "of the two directions")
    temperature = number(1.0, "that logits are divided by, beside the learned one (the paper's starts at 2)", above=0)


class RegionSameClass(SameClass):
    """The same of regions: all texts of a class are right for its regions."""


def _pairs(classes: Float[Array, "N 3"]) -> Bool[Array, "N N"]:
    """Rows of one class; those of none are of no other's."""
    return (classes[:, None] == classes[None]).all(axis=-1) & (classes[:, None, 0] >= 0)


def _of_images(encoded: Encoded, scales: Scales, options: Any) -> Array:
    return same_class_loss(
        encoded.image_embed, encoded.text_embed[:, 0], _pairs(encoded.classes),
        scales.logit_scale / options.temperature, reduction=options.reduction,
    )  # fmt: skip


def _of_regions(encoded: Encoded, scales: Scales, options: Any) -> Array:
    parts = encoded.region_embed, encoded.region_text_embed, encoded.region_classes
    regions, texts, classes = (x.reshape(-1, x.shape[-1]) for x in parts)
    return same_class_loss(
        regions, texts, _pairs(classes), scales.logit_scale / options.temperature,
        there=encoded.region_mask.reshape(-1), reduction=options.reduction,
    )  # fmt: skip


SAME_CLASS = Objective("same_class", SameClass, ("text_embed", "classes"), _of_images, compares="embed")
REGION_SAME_CLASS = Objective(
    "region_same_class", RegionSameClass, ("regions", "region_texts", "region_classes"), _of_regions, compares="embed"
)
