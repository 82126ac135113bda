"""Rotary positions: queries and keys are turned by angles that grow with their place, so that products of the two
depend on how far apart they stand (Su et al., RoFormer, arXiv 2104.09864)."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_BASE_OF_TEXT, _BASE_OF_IMAGES = 10_000.0, 100.0


def text_angles(length: int, head: int) -> Float[np.ndarray, "T H"]:
    """Of the positions of a text: place times `10000^(-2i/d)`, i < d/2, for heads of width d."""
    return (np.arange(length)[:, None] * _rates(head // 2, _BASE_OF_TEXT)).astype(np.float32)


def place_angles(y: Any, x: Any, head: int) -> Float[Any, "*B P H"]:
    """Of patches: half of a head for x and half for y, each as of a text, with base 100.

    The axial form of Heo et al., ECCV 2024, arXiv 2403.13298, section 3.2.

    Args:
        y: How far down each patch stands, in patches.
        x: How far to the right.
        head: Width of a head, a multiple of 4.
    """
    rates = _rates(head // 4, _BASE_OF_IMAGES)
    xp = np if isinstance(y, np.ndarray) else jnp
    return xp.concatenate([x[..., None] * rates, y[..., None] * rates], axis=-1).astype(np.float32)


def _rates(count: int, base: float) -> Float[np.ndarray, " H"]:
    return base ** (-np.arange(count) / count)


def rotate(x: Float[Array, "N T H D"], angles: Float[Any, "*N T _"]) -> Float[Array, "N T H D"]:
    """Turns each pair of the first and second half of a head's numbers by an angle of its own.

    Args:
        x: Of each position and head.
        angles: Of each position, half as many as a head is wide; with a first axis, for each sequence by itself.
    """
    cos, sin = (f(jnp.asarray(angles))[..., None, :].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
