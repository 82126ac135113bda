"""Images with pads among their patches, scored by functions that know of none.

Every token gets one coordinate more: of a patch 0, of a pad minus a constant (and nothing else), of a word 1. The
product of a pad with a word is then below any product of a patch, so that no word takes a pad, and each pad adds the
same known number to an image's mean, which is taken out again. Kernels, rings and gradients stay as they are.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Score = Callable[..., tuple[Float[Array, "B C"], Float[Array, "B C"]]]


def mark_images(
    tokens: Float[Array, "B P D"], mask: Bool[Array, "B P"], *, smoothing: float = 0.0
) -> Float[Array, "B P D+1"]:
    """Tokens of patches with their mark; what pads hold is lost."""
    mark = jnp.where(mask, 0.0, -_pad_product(smoothing)).astype(tokens.dtype)
    return jnp.concatenate([jnp.where(mask[..., None], tokens, 0), mark[..., None]], axis=-1)


def mark_texts(tokens: Float[Array, "... D"]) -> Float[Array, "... D+1"]:
    """Tokens of words with their mark."""
    return jnp.concatenate([tokens, jnp.ones((*tokens.shape[:-1], 1), tokens.dtype)], axis=-1)


def of_marked(score: Score, *, smoothing: float = 0.0) -> Score:
    """Of a function `(images, texts, text_mask)` that gives `i2t` and `t2i`, the same for marked tokens."""

    def scored(images: Array, texts: Array, text_mask: Array) -> tuple[Array, Array]:
        i2t, t2i = score(images, texts, text_mask)
        real = (images[..., -1] == 0).sum(axis=1, keepdims=True)
        words = text_mask.sum(axis=1)
        of_pad = smoothing * jnp.log(jnp.maximum(words, 1)) - _pad_product(smoothing)
        of_pads = (images.shape[1] - real) * jnp.where(words > 0, of_pad, 0)
        return (i2t * images.shape[1] - of_pads) / jnp.maximum(real, 1), t2i

    return scored


def _pad_product(smoothing: float) -> float:
    """Above what soft maxima would still notice, and a whole number, which bfloat16 holds as well."""
    return float(math.ceil(4 + 16 * smoothing))
