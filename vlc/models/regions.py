"""Regions of a picture as vectors of the shared space, and queries that look for regions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from vlc.models.captioner import DecoderBlock, Memory
from vlc.models.layers import Stack, l2_normalise, layer_norm, shard_batch, table
from vlc.models.linear import linear
from vlc.models.vit import mask_of


def region_pool(features: Float[Array, "B P W"], cover: Float[Array, "B R P"]) -> Float[Array, "B R W"]:
    """The mean of the patches of each region, weighted by how much of a patch it covers.

    `r = sum over p of w_p u_p / sum over p of w_p` (DoCo, Li et al., CVPR 2024, arXiv 2402.19014, section 3.2). A
    region that is smaller than a patch is its patch; one that covers nothing is zeros. One that covers everything is
    the plain mean.

    Args:
        features: Of the patches.
        cover: The share of each patch that each region covers (`vlc.data.frame`).
    """
    weights = cover.astype(jnp.float32)
    weights = weights / jnp.maximum(weights.sum(axis=2, keepdims=True), 1e-6)
    return jnp.einsum("brp,bpw->brw", weights.astype(features.dtype), features)


class Found(NamedTuple):
    """What queries found in each picture."""

    boxes: Float[Array, "B Q 4"]  # left, top, right, bottom as shares
    embed: Float[Array, "B Q D"]  # of unit length


class RegionQueries(nnx.Module):
    """Learned queries that each give a box and a vector (GRAIN; the decoder of DETR, arXiv 2005.12872: queries attend
    to each other, then to the patches).

    Attributes:
        nothing: What a query that found nothing is to be like, `[1, D]`.
    """

    def __init__(self, config: Any, *, image_width: int, embed_dim: int, dtype: Any, scan: bool, remat: str, rngs: Any):
        common = {"dtype": dtype, "rngs": rngs}
        width = config.width
        self.queries = table(config.queries, width, ("position", "embed"), rngs=rngs, scale=1.0)
        self.memory_in = linear(image_width, width, ("image", "embed"), **common)
        self.stack = Stack(lambda rngs: DecoderBlock(config, dtype=dtype, rngs=rngs), config.layers, scan=scan,
                           remat=remat, rngs=rngs)  # fmt: skip
        self.norm = layer_norm(width, **common)
        self.up = linear(width, width, ("embed", "mlp"), **common)
        self.middle = linear(width, width, ("mlp", "embed"), **common)
        self.corners = linear(width, 4, ("embed", "corner"), **common)
        self.out = linear(width, embed_dim, ("embed", "shared"), **common)
        self.nothing = table(1, embed_dim, ("position", "shared"), rngs=rngs, scale=1.0)

    def __call__(self, features: Float[Array, "B P W"], mask: Bool[Array, "B P"] | None = None) -> Found:
        rows = (len(features), *self.queries.shape)
        x = jnp.broadcast_to(self.queries[...].astype(self.memory_in.dtype), rows)
        memory = Memory(self.memory_in(features), mask_of(mask))
        everywhere = jnp.ones((1, 1, rows[1], rows[1]), bool)
        x = self.norm(self.stack(shard_batch(x), memory=memory, mask=everywhere))
        place = self.corners(nnx.relu(self.middle(nnx.relu(self.up(x)))))
        centre, size = jnp.split(jax.nn.sigmoid(place.astype(jnp.float32)), 2, axis=-1)
        boxes = jnp.concatenate([centre - size / 2, centre + size / 2], axis=-1)
        return Found(boxes, l2_normalise(self.out(x)))

    def absent(self) -> Float[Array, " D"]:
        """The vector of nothing, of unit length."""
        return l2_normalise(self.nothing[...])[0]
