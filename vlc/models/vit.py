"""The image tower: a Vision Transformer (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929)."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from vlc.models.layers import (
    NORMS,
    Attention,
    Block,
    Mlp,
    Stack,
    hidden_width,
    layer_norm,
    norm_of,
    shard_batch,
    table,
)
from vlc.models.linear import linear
from vlc.models.rotary import image_angles
from vlc.models.stem import ConvStem


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
        self.embed = (
            ConvStem(config.patch, width, dtype=dtype, rngs=rngs)
            if config.stem == "conv"
            else linear(
                3 * config.patch**2, width, ("pixels", "embed"), dtype=dtype, rngs=rngs, use_bias=config.patch_bias
            )
        )
        has_cls = config.pool in ("cls", "queries")
        self.cls = table(1, width, ("position", "embed"), rngs=rngs) if has_cls else None
        self.grid = size // config.patch
        self.positions = (
            table(self.patches + has_cls, width, ("position", "embed"), rngs=rngs)
            if config.positions == "learned"
            else None
        )
        self.registers = table(config.registers, width, ("position", "embed"), rngs=rngs) if config.registers else None
        self.rotary, self.head = config.rotary, width // config.heads
        self.pre_norm = norm_of(config, dtype=dtype, rngs=rngs) if config.pre_norm else None
        self.stack = Stack(
            lambda rngs: Block(config, dtype=dtype, rngs=rngs), config.layers, scan=scan, remat=remat, rngs=rngs
        )
        self.stack_width = width
        self.width = embed_dim if config.pool == "queries" else width
        self.norm = NORMS[config.norm](self.width, eps=eps, dtype=dtype, rngs=rngs)
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

    def __call__(
        self, images: UInt8[Array, "B S S 3"], kept: Int[Array, "B K"] | None = None
    ) -> tuple[Float[Array, "B P W"], Float[Array, "B W"]]:
        """Features of the patches, or of those that are `kept`, and the pooled feature."""
        x = self.embed_patches(images)
        if self.cls is not None:
            cls = jnp.broadcast_to(self.cls[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
            x = jnp.concatenate([cls, x], axis=1)
        x = x + self._positions().astype(x.dtype)
        if kept is not None:
            x = self._only(x, kept)
        real = x.shape[1]
        if self.registers is not None:
            more = self.registers[...].astype(x.dtype)
            x = jnp.concatenate([x, jnp.broadcast_to(more, (x.shape[0], *more.shape))], axis=1)
        x = shard_batch(self.pre_norm(x) if self.pre_norm is not None else x)
        x = self.stack(x, angles=self._angles(kept))[:, :real]
        x = self.norm(self.query_pool(x) if self.query_pool is not None else x)
        if self.cls is not None:
            return x[:, 1:], x[:, 0]
        return x, self.map(x)[:, 0] if self.map is not None else x.mean(axis=1)

    def in_pooled_space(self, features: Float[Array, "B P W"]) -> Float[Array, "B P W"]:
        """Patch features where the pooled feature lives, so that its projection can be used for them too."""
        return self.map.alone(features) if self.map is not None else features

    def _only(self, x: Float[Array, "B P W"], kept: Int[Array, "B K"]) -> Float[Array, "B K W"]:
        """The patches that are kept, and always the class token."""
        if self.cls is not None:
            kept = jnp.pad(kept + 1, ((0, 0), (1, 0)))
        return jnp.take_along_axis(x, kept[..., None], axis=1)

    def _angles(self, kept: Int[Array, "B K"] | None) -> Float[Array, "*B P _"] | None:
        """Of rotary positions; neither the class token nor registers are turned."""
        if not self.rotary:
            return None
        angles = jnp.asarray(image_angles(self.grid, self.head))
        angles = angles if kept is None else angles[kept]
        registers = self.registers.shape[0] if self.registers is not None else 0
        return jnp.pad(angles, [(0, 0)] * (angles.ndim - 2) + [(int(self.cls is not None), registers), (0, 0)])

    def _positions(self) -> Float[Array, "_ W"]:
        if self.positions is not None:
            return self.positions[...]
        waves = sine_positions(self.grid, self.stack_width)
        return jnp.asarray(waves if self.cls is None else np.pad(waves, ((1, 0), (0, 0))))

    def embed_patches(self, images: UInt8[Array, "B S S 3"]) -> Float[Array, "B P W"]:
        """One vector for each patch, row by row; what is left of a side is not seen (SigLIP's 384 and 14)."""
        side = images.shape[1] // self.patch * self.patch
        seen = images[:, :side, :side].astype(jnp.float32)
        pixels = ((seen / 255 - jnp.asarray(self.mean)) / jnp.asarray(self.std)).astype(self.dtype)
        return self.embed(pixels if isinstance(self.embed, ConvStem) else cut_patches(pixels, self.patch))


def sine_positions(grid: int, width: int) -> Float[np.ndarray, "P W"]:
    """Fixed positions of a square of patches: sines and cosines of x, then of y, of wavelengths from 2 pi to 20,000 pi.

    Chen et al. (MoCo v3, arXiv 2104.02057); Beyer et al. ("Better plain ViT baselines", arXiv 2205.01580).
    """
    rate = 1 / 10_000 ** (np.arange(width // 4) / (width // 4 - 1))
    y, x = (axis.reshape(-1, 1) * rate for axis in np.mgrid[:grid, :grid])
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1).astype(np.float32)


def cut_patches(pixels: Float[Array, "B S S 3"], patch: int) -> Float[Array, "B P _"]:
    """The pixels of each patch, row by row."""
    batch, grid = pixels.shape[0], pixels.shape[1] // patch
    pixels = pixels.reshape(batch, grid, patch, grid, patch, 3).swapaxes(2, 3)
    return pixels.reshape(batch, grid * grid, patch * patch * 3)
