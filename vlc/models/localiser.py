"""Looks a word up in a picture, and nothing else: what cyclical training reconstructs captions from."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vlc.models.linear import linear


class Localiser(nnx.Module):
    """Attention of words to the patches of their picture, through one linear map (Ma et al., ECCV 2020, arXiv
    1906.00283, section 3.3): `softmax over p of (M e(w)) . m_p / sqrt(W)`, and the patches' mean by it."""

    def __init__(self, width: int, *, dtype: Any, rngs: nnx.Rngs):
        # Not split along what it gives: XLA's partitioner otherwise got the gradient of the image's bias wrong.
        self.map = linear(width, width, ("embed", "shared"), dtype=dtype, rngs=rngs, use_bias=False)

    def __call__(self, words: Float[Array, "B T W"], memory: Float[Array, "B P W"], mask: Any) -> Float[Array, "B T W"]:
        scores = jnp.einsum("btw,bpw->btp", self.map(words), memory) / math.sqrt(words.shape[2])
        if mask is not None:
            scores = jnp.where(mask[:, 0], scores, -jnp.inf)
        return jnp.einsum(
            "btp,bpw->btw", jax.nn.softmax(scores.astype(jnp.float32), axis=2).astype(memory.dtype), memory
        )
