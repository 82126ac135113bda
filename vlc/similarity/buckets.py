"""Short captions pay for their own length: texts are sorted by length and scored in blocks of a static width.

Captions are much shorter than the longest that a tower takes. A block of texts of similar length is cut to the
narrowest width that holds them all, one of a few that are compiled; which one is decided while the program runs.
Nothing but pads is cut away, so scores and gradients are those of the whole width.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from vlc.similarity.padding import pad_axis, round_up

Score = Callable[[Array, Array, Array], tuple[Array, Array]]  # (images, texts, mask) -> i2t, t2i


def score_by_length(
    score: Score, widths: tuple[int, ...], block: int, images: Array, texts: Array, mask: Bool[Array, "C T"]
) -> tuple[Array, Array]:
    """`score(images, texts, mask)`, in blocks of texts of similar length.

    Args:
        score: Scores of texts of any width.
        widths: Token counts to compile for; the full width is always among them.
        block: Texts in a block.
        images: `[B, P, D]`.
        texts: `[C, T, D]`.
        mask: `[C, T]`, true for real tokens; a text is as long as its last one says.
    """
    count, tokens = mask.shape
    widths = (*sorted({w for w in widths if 0 < w < tokens}), tokens)
    lengths = jnp.max(jnp.where(mask, jnp.arange(1, tokens + 1), 0), axis=1)
    order = jnp.argsort(lengths)
    columns = round_up(count, block)

    def blocks(x: Array) -> Array:
        return pad_axis(x[order], 0, columns).reshape(columns // block, block, *x.shape[1:])

    longest = blocks(lengths).max(axis=1)
    choice = jnp.searchsorted(jnp.asarray(widths), longest)
    scores = _scores(score, widths, images, blocks(texts), blocks(mask), choice)
    back = jnp.argsort(order)
    i2t, t2i = (jnp.moveaxis(x, 0, 1).reshape(images.shape[0], columns)[:, back] for x in scores)
    return i2t, t2i


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scores(score: Score, widths: tuple[int, ...], images: Array, texts: Array, masks: Array, choice: Array):
    """Scores `[blocks, B, block]` of blocked texts."""
    branches = [functools.partial(_cut_score, score, width) for width in widths]
    return jax.lax.map(lambda item: jax.lax.switch(item[2], branches, images, *item[:2]), (texts, masks, choice))


def _cut_score(score: Score, width: int, images: Array, text: Array, mask: Array) -> tuple[Array, Array]:
    return score(images, text[:, :width], mask[:, :width])


def _forward(score: Score, widths: tuple[int, ...], *inputs: Array):
    return _scores(score, widths, *inputs), inputs


def _backward(score: Score, widths: tuple[int, ...], residuals: tuple[Array, ...], gradients: tuple[Array, Array]):
    """Block by block; autodiff through the map would keep what every branch might need of every block."""
    images, texts, masks, choice = residuals

    def pull(width, text, mask, gradient):
        return jax.vjp(lambda i, t: _cut_score(score, width, i, t, mask), images, text)[1](gradient)

    branches = [functools.partial(pull, width) for width in widths]

    def one(d_images, item):
        text, mask, which, *gradient = item
        of_images, of_text = jax.lax.switch(which, branches, text, mask, tuple(gradient))
        return d_images + of_images.astype(jnp.float32), of_text

    d_images, d_texts = jax.lax.scan(one, jnp.zeros(images.shape, jnp.float32), (texts, masks, choice, *gradients))
    return d_images.astype(images.dtype), d_texts, None, None


_scores.defvjp(_forward, _backward)
