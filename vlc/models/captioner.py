"""The caption decoder: causal text with cross-attention to the image, and a null image for guidance.

What the decoder sees of the image is one option, `memory`: all image tokens (`tokens`), attention-pooled tokens
(`pooled`, as CoCa), or the one contrastive embedding (`embedding`, the bottleneck of Kornblith et al., ICCV 2023).
The null image of classifier-free guidance is an all-zero memory.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from vlc.data.controls import slot_sizes
from vlc.models.layers import Attention, KeyValue, Stack, attention_of, mlp_of, norm_of, shard_batch, table
from vlc.models.linear import linear
from vlc.models.localiser import Localiser
from vlc.models.place_words import PlaceWords
from vlc.models.text import TokenEmbedding
from vlc.models.vit import AttentionPool, mask_of

MEMORIES = ("tokens", "pooled", "embedding")


class Memory(NamedTuple):
    """What is attended to of each image, and `[B, 1, 1, M]` which of it there is; `None`: all."""

    tokens: Array
    mask: Array | None = None


class CrossCache(NamedTuple):
    """A layer's keys and values of the images, its output for a null image, `[1, 1, W]`, and the mask of `Memory`.

    All tokens of a null image are alike, so attention to them always gives the same, and need not be computed.
    """

    seen: KeyValue
    null: Array
    mask: Array | None = None


def make_cross_cache(
    attention: Attention, memory: Memory | None, norm: Callable[[Array], Array] = lambda x: x
) -> CrossCache:
    """The cache of some images; `None` where only the null image is attended to."""
    zeros = norm(attention.zero_memory())
    seen = attention.project_cached(zeros if memory is None else norm(memory.tokens))
    return CrossCache(seen, attention.out(attention.project(zeros)[1]), memory and memory.mask)


def cross_attend(
    attention: Attention, x: Float[Array, "R T W"], cross_cache: CrossCache, hidden: int
) -> Float[Array, "R T W"]:
    """Cross-attention of rows to images: consecutive rows share an image, and the last `hidden` rows attend to none."""
    seeing, images = len(x) - hidden, len(cross_cache.seen.keys)
    null = jnp.broadcast_to(cross_cache.null, (hidden, *x.shape[1:]))
    if not seeing:
        return null
    asking = x[:seeing].reshape(images, -1, x.shape[-1])
    seen = attention.attend_cached(asking, cross_cache.seen, cross_cache.mask).reshape(seeing, *x.shape[1:])
    return jnp.concatenate([seen, null]) if hidden else seen


class DecoderBlock(nnx.Module):
    """Pre-norm block: causal self-attention, cross-attention to the image, MLP."""

    def __init__(self, config: Any, *, dtype: Any, rngs: nnx.Rngs):
        common = {"dtype": dtype, "rngs": rngs}
        self.norm1 = norm_of(config, **common)
        self.attention = attention_of(config, **common)
        self.norm2 = norm_of(config, **common)
        self.cross = attention_of(config, **common)
        self.norm3 = norm_of(config, **common)
        self.mlp = mlp_of(config, **common)

    def __call__(
        self, x: Float[Array, "N T W"], memory: Memory, mask: Bool[Array, "..."] | None = None
    ) -> Float[Array, "N T W"]:
        x = x + self.attention(self.norm1(x), mask, causal=mask is None)
        # Rows that share an image ask side by side: its keys and values are there once.
        asking = self.norm2(x).reshape(len(memory.tokens), -1, x.shape[2])
        seen = self.cross.attend(asking, *self.cross.project(memory.tokens), memory.mask)
        x = x + seen.reshape(x.shape)
        return shard_batch(x + self.mlp(self.norm3(x)))

    def cross_cache(self, memory: Memory | None) -> CrossCache:
        """This layer's keys and values of images."""
        return make_cross_cache(self.cross, memory)

    def cache(self, rows: int, length: int) -> KeyValue:
        """An empty cache."""
        return self.attention.empty_cache(rows, length)

    def step(
        self, x: Float[Array, "R T W"], cache: KeyValue, cross_cache: CrossCache, position: Int[Array, ""], hidden: int
    ) -> tuple[Float[Array, "R T W"], KeyValue]:
        """The next positions, and the cache with them in it; see `cross_attend`."""
        mixed, cache = self.attention.extend(self.norm1(x), cache, position)
        x = x + mixed
        x = x + cross_attend(self.cross, self.norm2(x), cross_cache, hidden)
        return x + self.mlp(self.norm3(x)), cache


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
        self.place_words = (
            PlaceWords(config.places, image_width, width, dtype=dtype, rngs=rngs) if config.places else None
        )
        self.localiser = Localiser(width, dtype=dtype, rngs=rngs) if config.localiser else None
        seen = embed_dim if config.memory == "embedding" else image_width
        self.memory_in = linear(seen, width, ("image", "embed"), dtype=dtype, rngs=rngs)
        self.embed = TokenEmbedding(vocab_size, length, width, dtype=dtype, rngs=rngs)
        self.slot_sizes = slot_sizes(config.control)
        self.control = table(sum(self.slot_sizes), width, ("position", "embed"), rngs=rngs) if self.slot_sizes else None
        self.box = linear(4, width, ("corner", "embed"), dtype=dtype, rngs=rngs) if config.control.box else None
        self.inside = table(1, width, ("position", "embed"), rngs=rngs) if config.control.mask else None
        self.mask = table(1, width, ("position", "embed"), rngs=rngs) if config.parallel else None
        self.stack = Stack(
            lambda rngs: DecoderBlock(config, dtype=dtype, rngs=rngs),
            config.layers, scan=scan, remat=remat, rngs=rngs,
        )  # fmt: skip
        self.norm = norm_of(config, dtype=dtype, rngs=rngs)
        self.out = linear(width, vocab_size, ("embed", "vocab"), dtype=dtype, rngs=rngs, use_bias=False)

    def memory(
        self, features: Float[Array, "B P W"], embed: Float[Array, "B D"], null: Bool[Array, " B"] | None = None,
        mask: Bool[Array, "B P"] | None = None, cover: Float[Array, "B R P"] | None = None,
    ) -> Memory:  # fmt: skip
        """The memory of each image that is attended to; all zeros where `null` is true.

        With the `cover` of regions there is one for each region, in which its patches are marked (FINECAPTION, Hua et
        al., CVPR 2025, arXiv 2411.15411: a second embedding of patches, of the mask).
        """
        if self.memory_kind == "embedding":
            seen, mask = embed[:, None], None
        elif self.pool is not None:
            seen, mask = self.pool(features, mask_of(mask)), None
        else:
            seen = features
        memory = self.memory_in(seen)
        memory = memory if null is None else jnp.where(null[:, None, None], 0, memory)
        if cover is not None and self.inside is not None:
            marked = cover[..., None].astype(memory.dtype) * self.inside[...].astype(memory.dtype)
            marked = marked if null is None else jnp.where(null[:, None, None, None], 0, marked)
            memory = (memory[:, None] + marked).reshape(-1, *memory.shape[1:])
            mask = None if mask is None else jnp.repeat(mask, cover.shape[1], axis=0)
        return Memory(memory, mask_of(mask))

    def __call__(
        self, ids: Int[Array, "B T"], memory: Memory, control: Int[Array, "B S"] | None = None,
        parallel: Bool[Array, " B"] | None = None, boxes: Float[Array, "B 4"] | None = None,
        places: Float[Array, "2N W"] | None = None,
    ) -> Float[Array, "B T V"]:  # fmt: skip
        """Logits of the token after each position, float32.

        Args:
            ids: The words so far.
            memory: Of the images, each for as many captions, one after the other.
            control: What is asked of each caption (`vlc.data.controls`); `None`: nothing.
            parallel: Captions that are predicted without their words, all at once (CapPa, Tschannen et al., NeurIPS
                2023, arXiv 2306.07915, section 3.1): each word is read as the mask token, and every place sees all.
            boxes: What of its image each caption is about; `None`: all of it.
            places: Of `PlaceWords`, where it has them.
        """
        x, mask = self.words(ids, places), None
        if parallel is not None:
            assert self.mask is not None, "config.model.decoder.parallel is 0"
            hidden = self.embed.at(self.mask[...], ids.shape[1])
            x = jnp.where(parallel[:, None, None], hidden, x)
        if self.slots:
            x = jnp.concatenate([self.prefix(control, boxes, len(ids)), x], axis=1)
        if parallel is not None:
            mask = jnp.tril(jnp.ones((x.shape[1],) * 2, bool)) | parallel[:, None, None, None]
        x = self.stack(shard_batch(x), memory=memory, mask=mask)
        return self.logits(x[:, self.slots :])

    def reconstructed(
        self, ids: Int[Array, "B T"], written: Int[Array, "B T"], memory: Memory, places: Float[Array, "2N W"] | None
    ) -> Float[Array, "B T V"]:
        """Logits of each next word from the words so far and from where it, as it was `written`, is found in the image,
        without the image itself."""
        assert self.localiser is not None, "config.model.decoder.localiser is off"
        looked_up = jnp.take(self.embed.tokens[...], self.embed.rows(written), axis=0).astype(memory.tokens.dtype)
        found = self.localiser(looked_up, memory.tokens, memory.mask)
        x = self.words(ids, places) + found
        if self.slots:
            x = jnp.concatenate([self.prefix(None, None, len(ids)), x], axis=1)
        nothing = Memory(jnp.zeros((len(ids), 1, memory.tokens.shape[2]), memory.tokens.dtype))
        return self.logits(self.stack(shard_batch(x), memory=nothing)[:, self.slots :])

    def attention_maps(
        self, ids: Int[Array, "B T"], memory: Memory, places: Float[Array, "2N W"] | None
    ) -> Float[Array, "B T M"]:
        """How much the token after each position looks at each part of the image: the mean over heads and layers."""
        x, found = self.words(ids, places), []
        if self.slots:
            x = jnp.concatenate([self.prefix(None, None, len(ids)), x], axis=1)
        for block in self.stack.unstack():
            asking = x + block.attention(block.norm1(x), causal=True)
            queries, (keys, _) = block.cross.queries(block.norm2(asking)), block.cross.project(memory.tokens)
            scores = jnp.einsum("bthd,bmhd->bhtm", queries, keys).astype(jnp.float32) / math.sqrt(keys.shape[-1])
            scores = scores if memory.mask is None else jnp.where(memory.mask, scores, -jnp.inf)
            found.append(jax.nn.softmax(scores, axis=-1).mean(axis=1))
            x = block(x, memory=memory)
        return jnp.mean(jnp.stack(found), axis=0)[:, self.slots :]

    def words(
        self, ids: Int[Array, "B T"], places: Float[Array, "2N W"] | None, start: Array | int = 0
    ) -> Float[Array, "B T W"]:
        """The embeddings of words, from a position on."""
        x = self.embed(ids, start)
        if self.place_words is None or places is None:
            return x
        return x + self.place_words.of(ids, places).astype(x.dtype)

    def prefix(
        self, control: Int[Array, "B S"] | None, boxes: Float[Array, "B 4"] | None, rows: int
    ) -> Float[Array, "B S W"]:
        """What stands before the caption: the box that it is about, and what is asked of it.

        A box is a linear map of its corners (FlexCap, arXiv 2403.12026, section 3.1); of a whole image it is all of it.
        0 in a slot leaves that control out.
        """
        parts = []
        if self.box is not None:
            whole = jnp.broadcast_to(jnp.asarray([0.0, 0.0, 1.0, 1.0]), (rows, 4))
            parts.append(self.box((whole if boxes is None else boxes).astype(self.embed.dtype))[:, None])
        if self.control is not None:
            kinds = len(self.slot_sizes)
            asked = jnp.zeros((rows, kinds), jnp.int32) if control is None else control
            starts = jnp.asarray([sum(self.slot_sizes[:slot]) for slot in range(kinds)])
            parts.append(jnp.take(self.control[...], asked + starts, axis=0).astype(self.embed.dtype))
        return jnp.concatenate(parts, axis=1)

    def logits(self, x: Float[Array, "N T W"]) -> Float[Array, "N T V"]:
        """Logits from the last layer's output."""
        return self.out(self.norm(x)).astype(jnp.float32)

    @property
    def slots(self) -> int:
        """Number of tokens before the caption."""
        return len(self.slot_sizes) + (self.box is not None)
