"""The caption decoder of CoCa (Yu et al., 2022, arXiv 2205.01917) in open_clip: it reads the text tower's features.

Each layer is a causal self-attention block followed by a block of cross-attention to the image tower's pooled queries,
each with an MLP of its own.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from vlc.models.captioner import CrossCache, Memory, cross_attend, make_cross_cache
from vlc.models.layers import Block, KeyValue, Stack, attention_of, mlp_of, norm_of, shard_batch
from vlc.models.linear import linear
from vlc.models.vit import mask_of


class CrossBlock(nnx.Module):
    """Pre-norm block: cross-attention to a normalised memory, and an MLP."""

    def __init__(self, config: Any, *, dtype: Any, rngs: nnx.Rngs):
        common = {"dtype": dtype, "rngs": rngs}
        self.norm1 = norm_of(config, **common)
        self.memory_norm = norm_of(config, **common)
        self.attention = attention_of(config, **common)
        self.norm2 = norm_of(config, **common)
        self.mlp = mlp_of(config, **common)

    def project(self, memory: Float[Array, "N M W"]) -> tuple[Array, Array]:
        """The memory's keys and values."""
        return self.attention.project(self.memory_norm(memory))

    def __call__(
        self, x: Float[Array, "N T W"], keys: Array, values: Array, mask: Bool[Array, "..."] | None = None
    ) -> Float[Array, "N T W"]:
        x = x + self.attention.attend(self.norm1(x), keys, values, mask)
        return shard_batch(x + self.mlp(self.norm2(x)))


class DecoderLayer(nnx.Module):
    """A self-attention block and a cross-attention block."""

    def __init__(self, config: Any, *, dtype: Any, rngs: nnx.Rngs):
        self.words = Block(config, dtype=dtype, rngs=rngs)
        self.image = CrossBlock(config, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "N T W"], memory: Memory) -> Float[Array, "N T W"]:
        return self.image(self.words(x, causal=True), *self.image.project(memory.tokens), memory.mask)

    def cross_cache(self, memory: Memory | None) -> CrossCache:
        """This layer's keys and values of images."""
        return make_cross_cache(self.image.attention, memory, self.image.memory_norm)

    def cache(self, rows: int, length: int) -> KeyValue:
        """An empty cache."""
        return self.words.attention.empty_cache(rows, length)

    def step(
        self, x: Float[Array, "R T W"], cache: KeyValue, cross_cache: CrossCache, position: Int[Array, ""], hidden: int
    ) -> tuple[Float[Array, "R T W"], KeyValue]:
        """As `DecoderBlock.step`."""
        x, cache = self.words.step(x, cache, position)
        x = x + cross_attend(self.image.attention, self.image.norm1(x), cross_cache, hidden)
        return x + self.image.mlp(self.image.norm2(x)), cache


class TextReadingDecoder(nnx.Module):
    """Predicts a caption's next token from the image and the text tower's features of the words so far."""

    def __init__(
        self, config: Any, *, vocab_size: int, length: int, dtype: Any, scan: bool, remat: str, rngs: nnx.Rngs
    ):
        self.length, self.vocab_size = length, vocab_size
        self.stack = Stack(
            lambda rngs: DecoderLayer(config, dtype=dtype, rngs=rngs),
            config.layers, scan=scan, remat=remat, rngs=rngs,
        )  # fmt: skip
        self.norm = norm_of(config, dtype=dtype, rngs=rngs)
        self.out = linear(config.width, vocab_size, ("embed", "vocab"), dtype=dtype, rngs=rngs, use_bias=False)

    def memory(
        self, features: Float[Array, "B M W"], embed: Float[Array, "B D"], null: Bool[Array, " B"] | None = None,
        mask: Bool[Array, "B M"] | None = None,
    ) -> Memory:  # fmt: skip
        """What the image tower gives, its pooled queries as a rule; all zeros where `null` is true."""
        del embed
        return Memory(features if null is None else jnp.where(null[:, None, None], 0, features), mask_of(mask))

    def __call__(self, words: Float[Array, "B T W"], memory: Memory) -> Float[Array, "B T V"]:
        """Logits of the token after each position, float32."""
        return self.logits(self.stack(shard_batch(words), memory=memory))

    def logits(self, x: Float[Array, "N T W"]) -> Float[Array, "N T V"]:
        """Logits from the last layer's output."""
        return self.out(self.norm(x)).astype(jnp.float32)
