"""The caption decoder of CoCa (Yu et al., 2022, arXiv 2205.01917) in open_clip: it reads the text tower's features.

Each layer is a causal self-attention block followed by a block of cross-attention to the image tower's pooled queries,
each with an MLP of its own.
"""

import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from vlc.models.captioner import Cache
from vlc.models.layers import Attention, Block, Mlp, Stack, hidden_width, layer_norm, linear, shard_batch
from vlc.models.text import TextTower


class CrossBlock(nnx.Module):
    """Pre-norm block: cross-attention to a normalised memory, and an MLP."""

    def __init__(self, config: Any, *, dtype: Any, rngs: nnx.Rngs):
        norm = functools.partial(layer_norm, config.width, eps=config.eps, dtype=dtype, rngs=rngs)
        self.norm1 = norm()
        self.memory_norm = norm()
        self.attention = Attention(config.width, config.heads, dtype=dtype, rngs=rngs)
        self.norm2 = norm()
        self.mlp = Mlp(config.width, hidden_width(config), activation=config.activation, dtype=dtype, rngs=rngs)

    def project(self, memory: Float[Array, "N M W"]) -> tuple[Array, Array]:
        """The memory's keys and values."""
        return self.attention.project(self.memory_norm(memory))

    def __call__(self, x: Float[Array, "N T W"], keys: Array, values: Array) -> Float[Array, "N T W"]:
        x = x + self.attention.attend(self.norm1(x), keys, values)
        return shard_batch(x + self.mlp(self.norm2(x)))


class DecoderLayer(nnx.Module):
    """A self-attention block and a cross-attention block."""

    def __init__(self, config: Any, *, dtype: Any, rngs: nnx.Rngs):
        self.words = Block(config, dtype=dtype, rngs=rngs)
        self.image = CrossBlock(config, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "N T W"], memory: Float[Array, "N M W"]) -> Float[Array, "N T W"]:
        return self.image(self.words(x, causal=True), *self.image.project(memory))


class TextReadingDecoder(nnx.Module):
    """Predicts a caption's next token from the image and the text tower's features of the words so far.

    The cache holds the text tower's layers first, then the decoder's.
    """

    def __init__(
        self, config: Any, *, vocab_size: int, length: int, dtype: Any, scan: bool, remat: str, rngs: nnx.Rngs
    ):
        self.length, self.vocab_size = length, vocab_size
        self.stack = Stack(
            lambda rngs: DecoderLayer(config, dtype=dtype, rngs=rngs),
            config.layers, scan=scan, remat=remat, rngs=rngs,
        )  # fmt: skip
        self.norm = layer_norm(config.width, eps=config.eps, dtype=dtype, rngs=rngs)
        self.out = linear(config.width, vocab_size, ("embed", "vocab"), dtype=dtype, rngs=rngs, use_bias=False)

    def memory(
        self, features: Float[Array, "B M W"], embed: Float[Array, "B D"], null: Bool[Array, " B"] | None = None
    ) -> Float[Array, "B M W"]:
        """The image tower's pooled queries; all zeros where `null` is true."""
        del embed
        return features if null is None else jnp.where(null[:, None, None], 0, features)

    def __call__(self, words: Float[Array, "B T W"], memory: Float[Array, "B M W"]) -> Float[Array, "B T V"]:
        """Logits of the token after each position, float32."""
        return self.out(self.norm(self.stack(shard_batch(words), memory=memory))).astype(jnp.float32)

    def start(self, memory: Float[Array, "N M W"], text: TextTower) -> Cache:
        """An empty cache; the image's keys and values are computed here, once."""
        _, (keys, values) = self.stack.run(lambda carry, item: (carry, item[0].image.project(memory)), None)
        layers = text.stack.layers + self.stack.layers
        shape = (layers, keys.shape[1], self.length, *keys.shape[3:])
        return Cache(jnp.zeros(shape, keys.dtype), jnp.zeros(shape, keys.dtype), keys, values)

    def step(
        self, ids: Int[Array, " N"], position: Int[Array, ""], cache: Cache, text: TextTower
    ) -> tuple[Float[Array, "N V"], Cache]:
        """Logits after the token at `position`, and the cache with that token in it."""
        read = text.stack.layers
        x, text_keys, text_values = text.step(ids, position, cache.keys[:read], cache.values[:read])

        def body(x, item):
            layer, keys, values, memory_keys, memory_values = item
            x, keys, values = layer.words.step(x, keys, values, position)
            return layer.image(x, memory_keys, memory_values), (keys, values)

        x, (keys, values) = self.stack.run(
            body, x, cache.keys[read:], cache.values[read:], cache.memory_keys, cache.memory_values
        )
        logits = self.out(self.norm(x))[:, 0].astype(jnp.float32)
        both = (jnp.concatenate(parts) for parts in ((text_keys, keys), (text_values, values)))
        return logits, cache._replace(**dict(zip(("keys", "values"), both, strict=True)))
