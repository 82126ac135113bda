"""The text tower: a transformer over token ids, causal (CLIP) or bidirectional (ALIGN, SigLIP)."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from vlc.models.layers import Block, Stack, layer_norm, shard_batch, table


class TokenEmbedding(nnx.Module):
    """Token and position embeddings. The pad id is no row of the table: a pad takes row 0, and is masked later."""

    def __init__(self, vocab_size: int, length: int, width: int, *, dtype: Any, rngs: nnx.Rngs):
        self.tokens = table(vocab_size, width, ("vocab", "embed"), rngs=rngs)
        self.positions = table(length, width, ("position", "embed"), rngs=rngs, scale=0.01)
        self.vocab_size, self.dtype = vocab_size, dtype

    def __call__(self, ids: Int[Array, "N T"], start: Array | int = 0) -> Float[Array, "N T W"]:
        rows = jnp.where(ids < self.vocab_size, ids, 0)
        positions = jnp.take(self.positions[...], start + jnp.arange(ids.shape[1]), axis=0)
        return (jnp.take(self.tokens[...], rows, axis=0) + positions).astype(self.dtype)


class TextTower(nnx.Module):
    """Ids to token features and one pooled feature."""

    def __init__(self, config: Any, *, vocab_size: int, dtype: Any, scan: bool, remat: str, rngs: nnx.Rngs):
        width, hidden = config.width, round(config.width * config.mlp_ratio)
        self.causal, self.pool, self.vocab_size = config.causal, config.pool, vocab_size
        self.embed = TokenEmbedding(vocab_size, config.length, width, dtype=dtype, rngs=rngs)
        self.stack = Stack(
            lambda rngs: Block(width, config.heads, hidden, dtype=dtype, rngs=rngs),
            config.layers, scan=scan, remat=remat, rngs=rngs,
        )  # fmt: skip
        self.norm = layer_norm(width, dtype=dtype, rngs=rngs)

    def __call__(self, ids: Int[Array, "N T"]) -> tuple[Float[Array, "N T W"], Float[Array, "N W"], Bool[Array, "N T"]]:
        mask = ids < self.vocab_size
        x = shard_batch(self.embed(ids))
        # In a causal tower no real token sees a pad, since pads come last.
        x = self.stack(x, causal=True) if self.causal else self.stack(x, mask=mask[:, None, None, :])
        x = self.norm(x)
        return x, self._pooled(x, mask), mask

    def _pooled(self, x: Float[Array, "N T W"], mask: Bool[Array, "N T"]) -> Float[Array, "N W"]:
        if self.pool == "first":
            return x[:, 0]
        if self.pool == "last":
            last = jnp.maximum(mask.sum(axis=1) - 1, 0)
            return jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        kept = jnp.where(mask[..., None], x, 0)
        return kept.sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)[:, None].astype(x.dtype)
