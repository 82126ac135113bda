"""The caption decoder: causal text with cross-attention to the image, and a null image for guidance.

What the decoder sees of the image is one option, `memory`: all image tokens (`tokens`), attention-pooled tokens
(`pooled`, as CoCa), or the one contrastive embedding (`embedding`, the bottleneck of Kornblith et al., ICCV 2023).
The null image of classifier-free guidance is an all-zero memory.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from vlc.models.layers import Attention, Mlp, Stack, attention_step, hidden_width, layer_norm, linear, shard_batch
from vlc.models.text import TokenEmbedding
from vlc.models.vit import AttentionPool

MEMORIES = ("tokens", "pooled", "embedding")


class Cache(NamedTuple):
    """Keys and values of every layer: of the words so far `[L, N, T, H, W/H]`, and of the image `[L, N, M, H, W/H]`."""

    keys: Array
    values: Array
    memory_keys: Array
    memory_values: Array


class DecoderBlock(nnx.Module):
    """Pre-norm block: causal self-attention, cross-attention to the image, MLP."""

    def __init__(self, config: Any, *, dtype: Any, rngs: nnx.Rngs):
        norm = functools.partial(layer_norm, config.width, eps=config.eps, dtype=dtype, rngs=rngs)
        self.norm1 = norm()
        self.attention = Attention(config.width, config.heads, dtype=dtype, rngs=rngs)
        self.norm2 = norm()
        self.cross = Attention(config.width, config.heads, dtype=dtype, rngs=rngs)
        self.norm3 = norm()
        self.mlp = Mlp(config.width, hidden_width(config), activation=config.activation, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "N T W"], memory: Float[Array, "N M W"]) -> Float[Array, "N T W"]:
        x = x + self.attention(self.norm1(x), causal=True)
        return self.rest(x, *self.cross.project(memory))

    def rest(self, x: Float[Array, "N T W"], memory_keys: Array, memory_values: Array) -> Float[Array, "N T W"]:
        """All but the self-attention."""
        x = x + self.cross.attend(self.norm2(x), memory_keys, memory_values)
        return shard_batch(x + self.mlp(self.norm3(x)))


class CaptionDecoder(nnx.Module):
    """Predicts a caption's next token from the image and the words so far."""

    def __init__(
        self, config: Any, *, image_width: int, image_heads: int, embed_dim: int, vocab_size: int, length: int,
        dtype: Any, scan: bool, remat: str, rngs: nnx.Rngs,
    ):  # fmt: skip
        width = config.width
        self.memory_kind, self.length, self.vocab_size = config.memory, length, vocab_size
        self.pool = (
            AttentionPool(image_width, image_heads, 4 * image_width, config.queries, dtype=dtype, rngs=rngs)
            if config.memory == "pooled"
            else None
        )
        seen = embed_dim if config.memory == "embedding" else image_width
        self.memory_in = linear(seen, width, ("image", "embed"), dtype=dtype, rngs=rngs)
        self.embed = TokenEmbedding(vocab_size, length, width, dtype=dtype, rngs=rngs)
        self.stack = Stack(
            lambda rngs: DecoderBlock(config, dtype=dtype, rngs=rngs),
            config.layers, scan=scan, remat=remat, rngs=rngs,
        )  # fmt: skip
        self.norm = layer_norm(width, eps=config.eps, dtype=dtype, rngs=rngs)
        self.out = linear(width, vocab_size, ("embed", "vocab"), dtype=dtype, rngs=rngs, use_bias=False)

    def memory(
        self, features: Float[Array, "B P W"], embed: Float[Array, "B D"], null: Bool[Array, " B"] | None = None
    ) -> Float[Array, "B M W"]:
        """What is attended to of each image; all zeros where `null` is true."""
        if self.memory_kind == "embedding":
            seen = embed[:, None]
        else:
            seen = self.pool(features) if self.pool is not None else features
        memory = self.memory_in(seen)
        return memory if null is None else jnp.where(null[:, None, None], 0, memory)

    def __call__(self, ids: Int[Array, "B T"], memory: Float[Array, "B M W"]) -> Float[Array, "B T V"]:
        """Logits of the token after each position, float32."""
        x = self.stack(shard_batch(self.embed(ids)), memory=memory)
        return self.out(self.norm(x)).astype(jnp.float32)

    def start(self, memory: Float[Array, "N M W"]) -> Cache:
        """An empty cache; the image's keys and values are computed here, once."""
        _, (keys, values) = self.stack.run(lambda carry, item: (carry, item[0].cross.project(memory)), None)
        shape = (keys.shape[0], keys.shape[1], self.length, *keys.shape[3:])
        return Cache(jnp.zeros(shape, keys.dtype), jnp.zeros(shape, keys.dtype), keys, values)

    def step(self, ids: Int[Array, " N"], position: Int[Array, ""], cache: Cache) -> tuple[Float[Array, "N V"], Cache]:
        """Logits after the token at `position`, and the cache with that token in it."""

        def body(x, item):
            block, keys, values, memory_keys, memory_values = item
            mixed, keys, values = attention_step(block.attention, block.norm1(x), keys, values, position)
            return block.rest(x + mixed, memory_keys, memory_values), (keys, values)

        x = self.embed(ids[:, None], position)
        x, (keys, values) = self.stack.run(body, x, *cache)
        logits = self.out(self.norm(x))[:, 0].astype(jnp.float32)
        return logits, cache._replace(keys=keys, values=values)
