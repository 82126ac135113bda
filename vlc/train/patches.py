"""Which patches of an image a step looks at: FLIP (Li et al., CVPR 2023, arXiv 2212.00794) drops half of them.

A step of half as many patches costs half of the image tower. What is evaluated is the whole picture; a few more steps
with `drop_patches=0` from the run's model (`config.init`) are FLIP's unmasked tuning.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8

from vlc.models.vit import unpacked


def kept_patches(side: int, patch: int, dropped: float) -> int:
    """How many patches of an image of `side` pixels a step sees where a share is dropped; at least one."""
    return max(1, math.ceil((side // patch) ** 2 * (1 - dropped)))


def random_patches(images: UInt8[Array, "B H S 3"], patch: int, dropped: float, key: jax.Array) -> Int[Array, "B K"]:
    """Numbers of the patches that each image keeps, in rising order, drawn for each by itself; pads come last."""
    rows, height, side, _ = images.shape
    patches = (side // patch) ** 2
    ranks = jax.random.uniform(key, (rows, patches))
    if height != side:
        _, shapes = unpacked(images, patch)
        ranks += jnp.arange(patches) >= shapes.prod(axis=1, keepdims=True)
    order = jnp.argsort(ranks, axis=1)
    return jnp.sort(order[:, : kept_patches(side, patch, dropped)], axis=1)
