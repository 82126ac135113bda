"""Words for places that share what the image tower knows of them (LLaVA-ST, arXiv 2501.08282, section 3.2)."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from vlc.data.places import FIRST_PLACE
from vlc.models.linear import linear


class PlaceWords(nnx.Module):
    """Adds to the embedding of `<x12>` the image tower's position of the patches there, through a linear map.

    `row of <x12> = own row + M (mean of the positions of that column)`, between two columns in a straight line; `<y03>`
    likewise by rows. So a word and the patches that it names are alike from the start.

    Attributes:
        bins: Of each axis.
    """

    def __init__(self, bins: int, image_width: int, width: int, *, dtype: Any, rngs: nnx.Rngs):
        self.bins = bins
        self.map = linear(image_width, width, ("image", "embed"), dtype=dtype, rngs=rngs, use_bias=False)

    def vectors(self, positions: Float[Array, "G G V"]) -> Float[Array, "2N W"]:
        """What is added for each word, of the positions of a square of patches, row by row."""
        grid = positions.shape[0]
        weights = jnp.asarray(_between(self.bins, grid), positions.dtype)  # [N, G]
        across, down = weights @ positions.mean(axis=0), weights @ positions.mean(axis=1)
        return self.map(jnp.concatenate([across, down]))

    def of(self, ids: Int[Array, "N T"], vectors: Float[Array, "2N W"]) -> Float[Array, "N T W"]:
        """What is added to each token of a text; zeros but for places."""
        place = ids - FIRST_PLACE
        there = (place >= 0) & (place < 2 * self.bins)
        return jnp.where(there[..., None], jnp.take(vectors, jnp.clip(place, 0, 2 * self.bins - 1), axis=0), 0)


def _between(bins: int, grid: int) -> Float[np.ndarray, "N G"]:
    """How much of each patch's position the middle of each bin has."""
    at = np.clip((np.arange(bins) + 0.5) / bins * grid - 0.5, 0, grid - 1)
    low = np.minimum(np.floor(at).astype(int), max(grid - 2, 0))
    weights = np.zeros((bins, grid))
    weights[np.arange(bins), low] = 1 - (at - low)
    if grid > 1:
        weights[np.arange(bins), low + 1] += at - low
    return weights
