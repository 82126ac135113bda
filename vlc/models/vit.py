"""The image tower: a Vision Transformer (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929)."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from vlc.models.layers import Attention, Block, Mlp, Stack, layer_norm, linear, shard_batch, table


class AttentionPool(nnx.Module):
    """Learned queries attend to a sequence (MAP head of SigLIP; with more queries, CoCa's attentional pooler)."""

    def __init__(self, width: int, heads: int, hidden: int, queries: int, *, dtype: Any, rngs: nnx.Rngs):
        self.queries = table(queries, width, ("position", "embed"), rngs=rngs)
        self.attention = Attention(width, heads, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(width, hidden, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "N P W"]) -> Float[Array, "N Q W"]:
        queries = jnp.broadcast_to(self.queries[...].astype(x.dtype), (x.shape[0], *self.queries.shape))
        pooled = self.attention.attend(queries, *self.attention.project(x))
        return pooled + self.mlp(self.norm(pooled))


class ImageTower(nnx.Module):
    """Pixels to patch features and one pooled feature.

    Attributes:
        patches: P, the number of patches.
    """

    def __init__(
        self, config: Any, *, size: int, mean: Any, std: Any, dtype: Any, scan: bool, remat: str, rngs: nnx.Rngs
    ):
        width, hidden = config.width, round(config.width * config.mlp_ratio)
        self.patch, self.pool, self.dtype = config.patch, config.pool, dtype
        self.mean, self.std = tuple(mean), tuple(std)
        self.patches = (size // config.patch) ** 2
        self.embed = linear(3 * config.patch**2, width, ("pixels", "embed"), dtype=dtype, rngs=rngs)
        has_cls = config.pool == "cls"
        self.cls = table(1, width, ("position", "embed"), rngs=rngs) if has_cls else None
        self.positions = table(self.patches + has_cls, width, ("position", "embed"), rngs=rngs)
        self.stack = Stack(
            lambda rngs: Block(width, config.heads, hidden, dtype=dtype, rngs=rngs),
            config.layers, scan=scan, remat=remat, rngs=rngs,
        )  # fmt: skip
        self.norm = layer_norm(width, dtype=dtype, rngs=rngs)
        self.map = (
            AttentionPool(width, config.heads, hidden, 1, dtype=dtype, rngs=rngs) if config.pool == "map" else None
        )

    def __call__(self, images: UInt8[Array, "B S S 3"]) -> tuple[Float[Array, "B P W"], Float[Array, "B W"]]:
        x = self.embed(self.patchify(images))
        if self.cls is not None:
            cls = jnp.broadcast_to(self.cls[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
            x = jnp.concatenate([cls, x], axis=1)
        x = shard_batch(x + self.positions[...].astype(x.dtype))
        x = self.norm(self.stack(x))
        if self.cls is not None:
            return x[:, 1:], x[:, 0]
        return x, self.map(x)[:, 0] if self.map is not None else x.mean(axis=1)

    def patchify(self, images: UInt8[Array, "B S S 3"]) -> Float[Array, "B P _"]:
        """Normalised pixels of each patch, row by row."""
        pixels = (images.astype(jnp.float32) / 255 - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        batch, size = images.shape[:2]
        grid, patch = size // self.patch, self.patch
        pixels = pixels.reshape(batch, grid, patch, grid, patch, 3).swapaxes(2, 3)
        return pixels.reshape(batch, grid * grid, patch * patch * 3).astype(self.dtype)
