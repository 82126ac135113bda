"""The text tower: a transformer over token ids, causal (CLIP) or bidirectional (ALIGN, SigLIP, BERT)."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from vlc.errors import ConfigError
from vlc.models.layers import Block, Stack, norm_of, shard_batch, table
from vlc.models.rotary import text_angles


class TokenEmbedding(nnx.Module):
    """Token and position embeddings. The pad id is no row of the table: a pad takes row `pad_row`."""

    def __init__(self, vocab_size: int, length: int, width: int, *, pad_row: int = 0, dtype: Any, rngs: nnx.Rngs):
        self.tokens = table(vocab_size, width, ("vocab", "embed"), rngs=rngs)
        self.positions = table(length, width, ("position", "embed"), rngs=rngs, scale=0.01)
        self.vocab_size, self.pad_row, self.dtype = vocab_size, pad_row, dtype

    def rows(self, ids: Int[Array, "N T"]) -> Int[Array, "N T"]:
        """The row of the table that each id takes."""
        return jnp.where(ids < self.vocab_size, ids, self.pad_row)

    def __call__(self, ids: Int[Array, "N T"], start: Array | int = 0) -> Float[Array, "N T W"]:
        return self.at(jnp.take(self.tokens[...], self.rows(ids), axis=0), ids.shape[1], start)

    def at(self, tokens: Float[Array, "..."], length: int, start: Array | int = 0) -> Float[Array, "N T W"]:
        """Tokens with the embeddings of their positions.

        Raises:
            ConfigError: There are fewer positions; looked up all the same, they would be NaN.
        """
        if isinstance(start, int) and start + length > self.positions.shape[0]:
            raise ConfigError(
                f"A text of {length} tokens needs more than the {self.positions.shape[0]} positions there are."
            )
        positions = jnp.take(self.positions[...], start + jnp.arange(length), axis=0)
        return (tokens + positions).astype(self.dtype)


class TextTower(nnx.Module):
    """Ids to token features and one pooled feature."""

    def __init__(self, config: Any, *, vocab_size: int, dtype: Any, scan: bool, remat: str, rngs: nnx.Rngs):
        self.causal, self.pool, self.vocab_size = config.causal, config.pool, vocab_size
        self.attend_pads, self.end = config.attend_pads, config.end
        self.rotary, self.head = config.rotary, config.width // config.heads
        self.compare_pads, self.skip = config.compare_pads, tuple(map(int, config.skip))
        has_cls = config.pool == "cls"
        rows = (config.positions or config.length) + has_cls
        self.embed = TokenEmbedding(vocab_size, rows, config.width, pad_row=config.pad_row, dtype=dtype, rngs=rngs)
        self.cls = table(1, config.width, ("position", "embed"), rngs=rngs, scale=0.01) if has_cls else None
        # CoOp (Zhou et al., IJCV 2022, arXiv 2109.01134): they take part in attention, and nothing is read from them.
        self.prompts = table(config.prompts, config.width, ("position", "embed"), rngs=rngs) if config.prompts else None
        self.stack = Stack(
            lambda rngs: Block(config, post_norm=config.post_norm, dtype=dtype, rngs=rngs),
            config.layers, scan=scan, remat=remat, rngs=rngs,
        )  # fmt: skip
        norm = norm_of(config, dtype=dtype, rngs=rngs)
        # BERT normalises after each part: the embeddings too, and the last block's output already is.
        self.pre_norm = norm if config.post_norm else None
        self.norm = None if config.post_norm else norm

    def __call__(self, ids: Int[Array, "N T"]) -> tuple[Float[Array, "N T W"], Float[Array, "N W"], Bool[Array, "N T"]]:
        """Features of the tokens, the pooled feature, and which tokens late interaction compares."""
        mask = ids < self.vocab_size
        x, pooled = self._with_cls(ids) if self.cls is not None else self._without_cls(ids, mask)
        return x, pooled, self._compared(ids, mask)

    def _compared(self, ids: Int[Array, "N T"], mask: Bool[Array, "N T"]) -> Bool[Array, "N T"]:
        """All but pads; as ColBERT has it (arXiv 2004.12832, sections 3.2 and 3.3), pads of queries as well, and of
        documents no punctuation."""
        counted = jnp.ones_like(mask) if self.compare_pads else mask
        return counted & ~jnp.isin(self.embed.rows(ids), jnp.asarray(self.skip)) if self.skip else counted

    def _without_cls(self, ids: Int[Array, "N T"], mask: Bool[Array, "N T"]) -> tuple[Array, Array]:
        x, real = (self.embed(ids), mask) if self.prompts is None else self._with_prompts(ids, mask)
        x = shard_batch(self.pre_norm(x) if self.pre_norm is not None else x)
        # In a causal tower no real token sees a pad, since pads come last.
        seen = None if self.causal or self.attend_pads else real[:, None, None, :]
        angles = text_angles(x.shape[1], self.head) if self.rotary else None
        x = self.stack(x, mask=seen, causal=self.causal, angles=angles)
        if self.prompts is not None:
            x = jnp.concatenate([x[:, :1], x[:, 1 + len(self.prompts[...]) :]], axis=1)
        x = self.norm(x) if self.norm is not None else x
        return x, self._pooled(x, ids, mask)

    def _with_prompts(self, ids: Int[Array, "N T"], mask: Bool[Array, "N T"]) -> tuple[Array, Array]:
        """Tokens with the learned vectors behind the begin mark, and which of them all are no pads."""
        assert self.prompts is not None
        tokens = jnp.take(self.embed.tokens[...], self.embed.rows(ids), axis=0)
        prompts = jnp.broadcast_to(self.prompts[...], (len(ids), *self.prompts.shape))
        joined = jnp.concatenate([tokens[:, :1], prompts, tokens[:, 1:]], axis=1)
        real = jnp.concatenate([mask[:, :1], jnp.ones(prompts.shape[:2], bool), mask[:, 1:]], axis=1)
        return self.embed.at(joined, joined.shape[1]), real

    def _pooled(
        self, x: Float[Array, "N T W"], ids: Int[Array, "N T"], mask: Bool[Array, "N T"]
    ) -> Float[Array, "N W"]:
        if self.pool == "first":
            return x[:, 0]
        if self.pool == "end":
            return x[:, -1]
        if self.pool == "last":
            return jnp.take_along_axis(x, self._last(ids, mask)[:, None, None], axis=1)[:, 0]
        kept = jnp.where(mask[..., None], x, 0)
        return kept.sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)[:, None].astype(x.dtype)

    def _last(self, ids: Int[Array, "N T"], mask: Bool[Array, "N T"]) -> Int[Array, " N"]:
        """The place that is read. An end mark may stand inside a text too, and other libraries read the first."""
        if self.end == -1:
            return jnp.maximum(mask.sum(axis=1) - 1, 0)
        rows = self.embed.rows(ids)
        return jnp.argmax(rows if self.end == -2 else rows == self.end, axis=1)

    # -- CoCa: a learned token at the end is the pooled feature, and the decoder reads the others

    def _with_cls(self, ids: Int[Array, "N T"]) -> tuple[Float[Array, "N T W"], Float[Array, "N W"]]:
        """As open_clip's CoCa was trained: the first place is always seen, and another where its *left* neighbour is
        no pad; so the learned token sees one pad, and itself only after a text of full length."""
        assert self.cls is not None
        assert self.norm is not None
        no_pad = self.embed.rows(ids) != self.embed.pad_row
        seen = jnp.pad(no_pad, ((0, 0), (1, 0)), constant_values=True)
        x = self.embed(ids)
        end = self.cls[...] + self.embed.positions[...][ids.shape[1]]
        x = jnp.concatenate([x, jnp.broadcast_to(end.astype(x.dtype), (len(x), *end.shape))], axis=1)
        x = self.stack(shard_batch(x), mask=seen[:, None, None, :], causal=True)
        return x[:, :-1], self.norm(x[:, -1])
