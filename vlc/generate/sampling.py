"""Greedy decoding and sampling: a token after the other until every caption has ended."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vlc.generate.guidance import NextToken
from vlc.generate.options import DecodingOptions
from vlc.generate.output import GenerateOutput, group_by_image


def keep_likely(log_probs: Float[Array, "R V"], *, top_k: int = 0, top_p: float = 1.0) -> Float[Array, "R V"]:
    """Log-probabilities with the unlikely words at minus infinity.

    `top_k` keeps this many of the likeliest, 0 all. `top_p` keeps the fewest of the likeliest whose probabilities reach
    it; the likeliest is always kept (nucleus sampling, Holtzman et al., ICLR 2020, arXiv 1904.09751).
    """
    if 0 < top_k < log_probs.shape[-1]:
        least = jax.lax.top_k(log_probs, top_k)[0][:, -1:]
        log_probs = jnp.where(log_probs >= least, log_probs, -jnp.inf)
    if top_p < 1:
        order = jnp.sort(jax.nn.log_softmax(log_probs), axis=-1, descending=True)
        before = jnp.cumsum(jnp.exp(order), axis=-1) - jnp.exp(order)
        least = jnp.where(before < top_p, order, jnp.inf).min(axis=-1, keepdims=True)
        log_probs = jnp.where(jax.nn.log_softmax(log_probs) >= least, log_probs, -jnp.inf)
    return log_probs


def choose(
    log_probs: Float[Array, "R V"], keys: Array | None, position: Int[Array, ""], decoding: DecodingOptions
) -> Int[Array, " R"]:
    """A sampled token, or without `keys` the likeliest one.

    Temperature comes first, as in other libraries: `top_p` is of the tempered probabilities.
    """
    if keys is None:
        return log_probs.argmax(axis=-1).astype(jnp.int32)
    likely = keep_likely(
        jax.nn.log_softmax(log_probs / decoding.temperature), top_k=decoding.top_k, top_p=decoding.top_p
    )

    def draw(key: Array, row: Array) -> Array:
        return jax.random.categorical(jax.random.fold_in(key, position), row)

    return jax.vmap(draw)(keys, likely).astype(jnp.int32)


def sampling_keys(seed: Int[Array, ""] | int, images: Int[Array, " B"], num_return_sequences: int) -> Array:
    """A key for each caption, of the seed, the number of its image and its own number: `[B * samples]`."""

    def one(image: Array, sample: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), image), sample)

    return jax.vmap(lambda image: jax.vmap(lambda s: one(image, s))(jnp.arange(num_return_sequences)))(images).reshape(
        -1
    )


def sample(
    next_token: NextToken,
    images: int,
    decoding: DecodingOptions,
    *,
    begin_id: int,
    end_id: int,
    keys: Array | None = None,
    prompt: Int[Array, "B T"] | None = None,
) -> GenerateOutput:
    """Generates `decoding.num_return_sequences` captions of each image; a caption that has ended stays as it is.

    Args:
        next_token: Log-probabilities of the next token.
        images: B.
        decoding: `num_beams` does not matter here.
        begin_id: What a caption starts from.
        end_id: What ends it.
        keys: From `sampling_keys`; without them the likeliest token is taken.
        prompt: Tokens that captions begin with, then pads. The program is the same for any length.
    """
    rows = images * decoding.num_return_sequences
    length, pad = decoding.max_new_tokens or next_token.cached.length, next_token.cached.decoder.vocab_size
    given = (
        jnp.full((rows, length), pad)
        if prompt is None
        else jnp.repeat(prompt[:, :length], decoding.num_return_sequences, axis=0)
    )

    def unfinished(carry: Any) -> Bool[Array, ""]:
        position, _, _, done, _ = carry
        return (position < length) & ~done.all()

    def step(carry: Any) -> Any:
        position, state, last, done, written = carry
        guided, plain, state = next_token.step(last, position, state)
        prompted = given[:, position]
        free = prompted == pad
        word = jnp.where(free, choose(guided, keys, position, decoding), prompted)
        word = jnp.where(done, pad, word)
        chosen = free & ~done  # tokens of the prompt were not chosen, and count for nothing
        at = jnp.where(chosen, word, 0)[:, None]

        def picked(scores: Array) -> Array:
            return jnp.where(chosen, jnp.take_along_axis(scores, at, axis=1)[:, 0], 0)

        written = GenerateOutput(
            written.ids.at[:, position].set(word),
            written.log_prob + picked(guided),
            written.image_log_prob + picked(plain),
            written.tokens + chosen,
        )
        return position + 1, state, word, done | (word == end_id), written

    ids, zero = jnp.full((rows, length), pad, jnp.int32), jnp.zeros(rows)
    nothing = GenerateOutput(ids, zero, zero, jnp.zeros(rows, jnp.int32))
    carry = jnp.int32(0), next_token.start(rows), jnp.full((rows,), begin_id, jnp.int32), jnp.zeros(rows, bool), nothing
    written = jax.lax.while_loop(unfinished, step, carry)[-1]
    full = jnp.full((rows, next_token.cached.length - length), pad, jnp.int32)
    return group_by_image(written._replace(ids=jnp.concatenate([written.ids, full], axis=1)), images)
