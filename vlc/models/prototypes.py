"""What self-distillation compares: features of a picture as choices among learned prototypes."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vlc.models.layers import l2_normalise, table
from vlc.models.linear import linear

_BOTTLENECK = 256


class PrototypeHead(nnx.Module):
    """Cosines with prototypes, behind an MLP of three maps (DINO, Caron et al., ICCV 2021, arXiv 2104.14294, section
    3.1): hidden units twice as many as the width, and a bottleneck of at most 256."""

    def __init__(self, width: int, prototypes: int, *, dtype: Any, rngs: nnx.Rngs):
        common = {"dtype": dtype, "rngs": rngs}
        # Each map is split along what the one before it gives: XLA's partitioner otherwise got gradients wrong.
        bottleneck = min(_BOTTLENECK, width)
        self.up = linear(width, 2 * width, ("embed", "mlp"), **common)
        self.middle = linear(2 * width, 2 * width, ("mlp", "embed"), **common)
        self.down = linear(2 * width, bottleneck, ("embed", "shared"), **common)
        self.prototypes = table(prototypes, bottleneck, ("vocab", "shared"), rngs=rngs, scale=1.0)

    def __call__(self, x: Float[Array, "... W"]) -> Float[Array, "... K"]:
        x = self.down(nnx.gelu(self.middle(nnx.gelu(self.up(x)))))
        return jnp.matmul(l2_normalise(x), l2_normalise(self.prototypes[...]).T, precision="highest")
