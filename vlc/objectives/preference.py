"""Captions that the model wrote itself, compared with each other: the better is preferred, or learnt from alone.

DPO (Rafailov et al., NeurIPS 2023, arXiv 2305.18290, eq. 7), as FeedQuill (Ye et al., 2025, arXiv 2503.07906) prefers
captions by their units; RAFT (Dong et al., 2023, arXiv 2304.06767), which learns the best of several. Both look at the
captions of an image that are worth most and least.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.objectives.policy import of_captions
from vlc.settings import choice, number


def preference_loss(
    log_prob: Float[Array, "B K"],
    reference: Float[Array, "B K"],
    reward: Float[Array, "B K"],
    *,
    beta: float = 0.1,
    margin: float = 0.0,
) -> Float[Array, ""]:
    """`-log sigmoid(beta [(log p_w - log q_w) - (log p_l - log q_l)])`, the mean of the images that have a pair.

    Args:
        log_prob: Of K captions of each image.
        reference: The same by the model that training began with, `q`.
        reward: Of each; the best `w` and the worst `l` of an image are a pair.
        beta: How near the model is held to where it began.
        margin: By how much the rewards of a pair differ at least, and more than nothing.
    """
    best, worst = (jnp.take_along_axis(log_prob - reference, place[:, None], axis=1)[:, 0]
                   for place in (reward.argmax(axis=1), reward.argmin(axis=1)))  # fmt: skip
    gap = reward.max(axis=1) - reward.min(axis=1)
    counted = (gap > 0) & (gap >= margin)
    lost = -jax.nn.log_sigmoid(beta * (best - worst))
    return jnp.where(counted, lost, 0).sum() / jnp.maximum(counted.sum(), 1)


def best_of_loss(
    log_prob: Float[Array, "B K"], reward: Float[Array, "B K"], *, margin: float = 0.0
) -> Float[Array, ""]:
    """`-log p_w`, the mean of the images of which one caption is worth more than another; arguments as above."""
    best = jnp.take_along_axis(log_prob, reward.argmax(axis=1)[:, None], axis=1)[:, 0]
    gap = reward.max(axis=1) - reward.min(axis=1)
    counted = (gap > 0) & (gap >= margin)
    return -jnp.where(counted, best, 0).sum() / jnp.maximum(counted.sum(), 1)


class BestOf(Weighted):
    """Cross-entropy of the best of the captions that the model wrote (RAFT)."""

    margin = number(0.0, "by which the rewards of the best and the worst differ at least", low=0)
    average = choice("token", ("sequence", "token"), "log-probabilities: of all tokens, or their mean")


class Preference(BestOf):
    """The best of the captions that the model wrote is preferred to the worst (DPO)."""

    average = choice("sequence", ("sequence", "token"), "log-probabilities: of all tokens (DPO), or their mean")
    beta = number(0.1, "how near the model is held to where it began: more is nearer", above=0)


def _preference(encoded: Encoded, _: Scales, options: Any) -> Array:
    ours, first = (of_captions(x, encoded.sampled_mask, options.average)
                   for x in (encoded.sampled_log_prob, encoded.sampled_first))  # fmt: skip
    return preference_loss(ours, first, encoded.reward, beta=options.beta, margin=options.margin)


def _best_of(encoded: Encoded, _: Scales, options: Any) -> Array:
    ours = of_captions(encoded.sampled_log_prob, encoded.sampled_mask, options.average)
    return best_of_loss(ours, encoded.reward, margin=options.margin)


PREFERENCE = Objective("preference", Preference, ("written",), _preference)
BEST_OF = Objective("best_of", BestOf, ("written",), _best_of)
