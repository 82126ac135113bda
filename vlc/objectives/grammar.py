"""Texts told from broken ones, by a head of the text tower (CLIP Reward, Cho et al., 2022, arXiv 2205.13115)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted


def grammar_loss(good: Float[Array, " B"], broken: Float[Array, " B"], there: Float[Array, " B"]) -> Float[Array, ""]:
    """Cross-entropy of two classes: the mean over texts and over broken ones, each kind counted by half.

    `L = mean of -log sigmoid(good) / 2 + mean over those that are there of -log sigmoid(-broken) / 2`.

    Args:
        good: Log-odds that texts are well formed, of the texts themselves.
        broken: Of their broken copies.
        there: 1 for copies that there are.
    """
    wrong = jnp.where(there > 0, jax.nn.softplus(broken), 0).sum() / jnp.maximum((there > 0).sum(), 1)
    return (jax.nn.softplus(-good).mean() + wrong) / 2


class Grammar(Weighted):
    """Cross-entropy of captions and of copies whose words were repeated, left out or moved, by a head of the text
    tower."""


def _grammar(encoded: Encoded, scales: Scales, _: Any) -> Array:
    del scales
    return grammar_loss(encoded.grammar, encoded.grammar_of_broken, encoded.broken_there)


GRAMMAR = Objective("grammar", Grammar, ("text_embed", "grammar"), _grammar)
