"""A head of the text tower that tells texts from broken ones."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from vlc.models.linear import linear


class GrammarHead(nnx.Module):
    """Log-odds that a text is well formed, from the pooled feature before its projection: two maps with a ReLU between,
    the second to two classes and without a bias (CLIP Reward, Cho et al., 2022, arXiv 2205.13115, section 3.3)."""

    def __init__(self, width: int, *, dtype: Any, rngs: nnx.Rngs):
        self.hidden = linear(width, width, ("embed", "mlp"), dtype=dtype, rngs=rngs)
        self.classes = linear(width, 2, ("mlp", "shared"), dtype=dtype, rngs=rngs, use_bias=False)

    def __call__(self, pooled: Float[Array, "N W"]) -> Float[Array, " N"]:
        broken, good = self.classes(nnx.relu(self.hidden(pooled))).astype("float32").T
        return good - broken
