"""Padding that cannot be seen in a score: every backend gets texts without gaps and a weight for each token."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def fill_pads(texts: Float[Array, "C T D"], mask: Bool[Array, "C T"]) -> Float[Array, "C T D"]:
    """Pads become copies of the first real token of their text: a copy cannot change a maximum.

    A text of pads only becomes zeros, so nothing that was in it (not even a NaN) goes further.
    """
    is_primary = mask & (jnp.arange(mask.shape[1]) == mask.argmax(axis=1)[:, None])
    first = jnp.where(is_primary[..., None], texts, 0).sum(axis=1, keepdims=True)  # a gather's gradient is a scatter
    return jnp.where(mask[..., None], texts, first)


def token_weights(mask: Bool[Array, "C T"]) -> Float[Array, "C T"]:
    """What each token counts for in the mean over its text: 1/length, 0 for pads, float32."""
    return mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1).astype(jnp.float32)


def round_up(size: int, multiple: int) -> int:
    """The smallest multiple that holds `size`."""
    return -(-size // multiple) * multiple


def pad_axis(x: Array, axis: int, size: int, *, mode: str = "constant") -> Array:
    """Lengthens one axis to `size`, with zeros (or `mode="edge"`: with copies of the last entry)."""
    if x.shape[axis] == size:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths, mode=mode)
