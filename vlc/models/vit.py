"""The image tower: a Vision Transformer (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929)."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from vlc.models.layers import Attention, Block, Mlp, Stack, hidden_width, layer_norm, linear, shard_batch, table


class AttentionPool(nnx.Module):
    """Learned queries attend to a sequence (MAP head of SigLIP)."""

    def __init__(
        self, width: int, heads: int, hidden: int, queries: int, *, eps: float = 1e-6, activation: str = "gelu_tanh",
        dtype: Any, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.queries = table(queries, width, ("position", "embed"), rngs=rngs)
        self.attention = Attention(width, heads, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(width, eps=eps, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(width, hidden, activation=activation, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "N P W"]) -> Float[Array, "N Q W"]:
        queries = jnp.broadcast_to(self.queries[...].astype(x.dtype), (x.shape[0], *self.queries.shape))
        return self._rest(self.attention.attend(queries, *self.attention.project(x)))

    def alone(self, x: Float[Array, "N P W"]) -> Float[Array, "N P W"]:
        """What is pooled when all of the attention goes to one patch, for each patch."""
        _, values = self.attention.project(x)
        return self._rest(self.attention.out(values))

    def _rest(self, pooled: Float[Array, "N Q W"]) -> Float[Array, "N Q W"]:
        return pooled + self.mlp(self.norm(pooled))


class QueryPool(nnx.Module):
    """Learned queries attend to a sequence of another width, without an MLP: CoCa's attentional pooler in open_clip."""

    def __init__(
        self, width: int, *, memory_width: int, heads: int, queries: int, eps: float, dtype: Any, rngs: nnx.Rngs
    ):
        self.queries = table(queries, width, ("position", "embed"), rngs=rngs)
        self.query_norm = layer_norm(width, eps=eps, dtype=dtype, rngs=rngs)
        self.memory_norm = layer_norm(memory_width, eps=eps, dtype=dtype, rngs=rngs)
        self.attention = Attention(width, heads, memory_width=memory_width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "N P V"]) -> Float[Array, "N Q W"]:
        queries = self.query_norm(self.queries[...])
        queries = jnp.broadcast_to(queries, (x.shape[0], *queries.shape))
        return self.attention.attend(queries, *self.attention.project(self.memory_norm(x)))


class ImageTower(nnx.Module):
    """Pixels to patch features and one pooled feature.

    Attributes:
        patches: P, the number of patches.
        width: Of the features.
    """

    def __init__(
        self, config: Any, *, size: int, mean: Any, std: Any, embed_dim: int, dtype: Any, scan: bool, remat: str,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        width, eps = config.width, config.eps
        self.patch, self.dtype = config.patch, dtype
        self.mean, self.std = tuple(mean), tuple(std)
        self.patches = (size // config.patch) ** 2
        self.embed = linear(
            3 * config.patch**2, width, ("pixels", "embed"), dtype=dtype, rngs=rngs, use_bias=config.patch_bias
        )
        has_cls = config.pool in ("cls", "queries")
        self.cls = table(1, width, ("position", "embed"), rngs=rngs) if has_cls else None
        self.positions = table(self.patches + has_cls, width, ("position", "embed"), rngs=rngs)
        self.pre_norm = layer_norm(width, eps=eps, dtype=dtype, rngs=rngs) if config.pre_norm else None
        self.stack = Stack(
            lambda rngs: Block(config, dtype=dtype, rngs=rngs), config.layers, scan=scan, remat=remat, rngs=rngs
        )
        self.width = embed_dim if config.pool == "queries" else width
        self.norm = layer_norm(self.width, eps=eps, dtype=dtype, rngs=rngs)
        self.map = (
            AttentionPool(
                width, config.heads, hidden_width(config), 1, eps=eps, activation=config.activation, dtype=dtype,
                rngs=rngs,
            )
            if config.pool == "map"
            else None
        )  # fmt: skip
        self.query_pool = (
            QueryPool(
                embed_dim, memory_width=width, heads=config.pool_heads, queries=config.queries, eps=eps, dtype=dtype,
                rngs=rngs,
            )
            if config.pool == "queries"
            else None
        )  # fmt: skip

    def __call__(self, images: UInt8[Array, "B S S 3"]) -> tuple[Float[Array, "B P W"], Float[Array, "B W"]]:
        x = self.embed(self.patchify(images))
        if self.cls is not None:
            cls = jnp.broadcast_to(self.cls[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
            x = jnp.concatenate([cls, x], axis=1)
        x = x + self.positions[...].astype(x.dtype)
        x = self.stack(shard_batch(self.pre_norm(x) if self.pre_norm is not None else x))
        x = self.norm(self.query_pool(x) if self.query_pool is not None else x)
        if self.cls is not None:
            return x[:, 1:], x[:, 0]
        return x, self.map(x)[:, 0] if self.map is not None else x.mean(axis=1)

    def in_pooled_space(self, features: Float[Array, "B P W"]) -> Float[Array, "B P W"]:
        """Patch features where the pooled feature lives, so that its projection can be used for them too."""
        return self.map.alone(features) if self.map is not None else features

    def patchify(self, images: UInt8[Array, "B S S 3"]) -> Float[Array, "B P _"]:
        """Normalised pixels of each patch, row by row; what is left of a side is not seen (SigLIP's 384 and 14)."""
        batch, size = images.shape[:2]
        grid, patch = size // self.patch, self.patch
        seen = images[:, : grid * patch, : grid * patch].astype(jnp.float32)
        pixels = (seen / 255 - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        pixels = pixels.reshape(batch, grid, patch, grid, patch, 3).swapaxes(2, 3)
        return pixels.reshape(batch, grid * grid, patch * patch * 3).astype(self.dtype)
