"""Beam search: the best captions that a bounded number of hypotheses finds, by length-normalised probability."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vlc.generate.guidance import NextToken
from vlc.generate.options import DecodingOptions
from vlc.generate.output import GenerateOutput


class _Hypotheses(NamedTuple):
    """K captions of each image; those that are not there have a score of minus infinity."""

    ids: Int[Array, "B K T"]
    log_prob: Float[Array, "B K"]
    image_log_prob: Float[Array, "B K"]
    tokens: Int[Array, "B K"]


def beam_search(
    next_token: NextToken, images: int, decoding: DecodingOptions, *, begin_id: int, end_id: int,
    prompt: Int[Array, "B T"] | None = None,
) -> GenerateOutput:  # fmt: skip
    """The best captions of each image by beam search, `decoding.num_return_sequences` of `decoding.num_beams` beams.

    A caption's score is its guided log-probability divided by `tokens ** length_penalty`; it ends with the end mark, or
    at the greatest length. Ended captions and open ones are kept apart, so that neither drives out the other. The
    search of an image stops when no open hypothesis can overtake the ended ones; that is exact where the penalty is 0
    or more, since log-probabilities only fall.

    Args:
        next_token: Log-probabilities of the next token.
        images: B.
        decoding: Its `num_beams`, `length_penalty`, `num_return_sequences` and `max_new_tokens` matter.
        begin_id: What a caption starts from.
        end_id: What ends it.
        prompt: Words that captions begin with, then pads.
    """
    width, pad = decoding.num_beams, next_token.cached.decoder.vocab_size
    length = decoding.max_new_tokens or next_token.cached.length
    given = jnp.full((images, length), pad) if prompt is None else prompt[:, :length]
    prompted = (given != pad).sum(axis=1)

    def normalised(log_prob: Array, tokens: Array) -> Array:
        return log_prob / jnp.maximum(tokens, 1).astype(jnp.float32) ** decoding.length_penalty

    def unfinished(carry: Any) -> Bool[Array, ""]:
        position, _, alive, ended, _ = carry
        worst = normalised(ended.log_prob, ended.tokens).min(axis=1)
        longest = jnp.maximum(length - prompted, 1)
        hope = jnp.maximum(  # the best that an open hypothesis can still become
            normalised(alive.log_prob, alive.tokens + 1).max(axis=1), normalised(alive.log_prob.max(axis=1), longest)
        )
        return (position < length) & (hope > worst).any()

    def step(carry: Any) -> Any:
        position, state, alive, ended, last = carry
        guided, plain, state = next_token.step(last.reshape(-1), position, state)
        vocab = guided.shape[-1]
        forced = given[:, position]
        free = (forced == pad)[:, None, None]
        # A token of the prompt costs nothing, and no other is possible.
        only = jnp.where(jnp.arange(vocab) == forced[:, None], 0.0, -jnp.inf)[:, None]
        guided, plain = (jnp.where(free, x.reshape(images, width, vocab), only) for x in (guided, plain))
        scores = (alive.log_prob[:, :, None] + guided).reshape(images, -1)
        # Each hypothesis has one continuation that ends, so 2K hold K that do not.
        best, index = jax.lax.top_k(scores, min(2 * width, scores.shape[1]))
        parent, word = index // vocab, index % vocab
        grown = _Hypotheses(
            _rows(alive.ids, parent).at[:, :, position].set(word),
            best,
            _rows(alive.image_log_prob, parent) + jnp.take_along_axis(plain.reshape(images, -1), index, axis=1),
            _rows(alive.tokens, parent) + free[:, 0],
        )
        closed = (word == end_id) | (position == length - 1)
        ended = _best(ended, _without(grown, ~closed), width, normalised)
        kept = jax.lax.top_k(jnp.where(closed, -jnp.inf, best), width)[1]
        alive = jax.tree.map(lambda x: _rows(x, kept), _without(grown, closed))
        parents = jnp.take_along_axis(parent, kept, axis=1) + width * jnp.arange(images)[:, None]
        return position + 1, next_token.reorder(state, parents.reshape(-1)), alive, ended, _rows(word, kept)

    first = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)  # all are the same before the first word
    none = _Hypotheses(
        jnp.full((images, width, length), pad, jnp.int32), jnp.full((images, width), -jnp.inf),
        jnp.zeros((images, width)), jnp.zeros((images, width), jnp.int32),
    )  # fmt: skip
    alive = none._replace(log_prob=jnp.broadcast_to(first, (images, width)))
    last = jnp.full((images, width), begin_id, jnp.int32)
    carry = jnp.int32(0), next_token.start(images * width), alive, none, last
    ended = jax.lax.while_loop(unfinished, step, carry)[3]
    ids = jnp.pad(ended.ids, ((0, 0), (0, 0), (0, next_token.cached.length - length)), constant_values=pad)
    found = GenerateOutput(ids, ended.log_prob, ended.image_log_prob, ended.tokens)
    return jax.tree.map(lambda x: x[:, : decoding.num_return_sequences], found)


def _rows(x: Array, index: Int[Array, "B N"]) -> Array:
    """The hypotheses `index` of each image."""
    return jnp.take_along_axis(x, index.reshape(*index.shape, *(1,) * (x.ndim - 2)), axis=1)


def _without(some: _Hypotheses, gone: Bool[Array, "B N"]) -> _Hypotheses:
    return some._replace(log_prob=jnp.where(gone, -jnp.inf, some.log_prob))


def _best(a: _Hypotheses, b: _Hypotheses, count: int, normalised: Any) -> _Hypotheses:
    """The best of both, by normalised score, best first."""
    both = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=1), a, b)
    index = jax.lax.top_k(normalised(both.log_prob, both.tokens), count)[1]
    return jax.tree.map(lambda x: _rows(x, index), both)
