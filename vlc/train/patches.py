"""Which patches of an image a step looks at: FLIP (Li et al., CVPR 2023, arXiv 2212.00794) drops half of them.

A step of half as many patches costs half of the image tower. What is evaluated is the whole picture; a few more steps
with `drop_patches=0` from the run's model (`config.init`) are FLIP's unmasked tuning.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vlc.config import Config


def kept_patches(config: Config) -> int:
    """How many patches of an image a step sees; at least one."""
    patches = (config.data.image.size // config.model.image.patch) ** 2
    return max(1, math.ceil(patches * (1 - config.model.image.drop_patches)))


def random_patches(config: Config, key: jax.Array, rows: int) -> Int[Array, "B K"]:
    """Numbers of the patches that each image keeps, in rising order, drawn for each by itself."""
    patches = (config.data.image.size // config.model.image.patch) ** 2
    order = jnp.argsort(jax.random.uniform(key, (rows, patches)), axis=1)
    return jnp.sort(order[:, : kept_patches(config)], axis=1)
