"""Greedy decoding with a key-value cache; with guidance both branches run as one batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vlc.generate.guidance import guided_log_probs
from vlc.models import DualEncoder, ImageEncoding


def greedy(
    model: DualEncoder,
    image: ImageEncoding,
    guidance_scale: Float[Array, ""] | float,
    *,
    guided: bool,
    begin_id: int,
    end_id: int,
) -> tuple[Int[Array, "B T"], Float[Array, " B"]]:
    """The likeliest next token, again and again, until every caption has ended.

    Args:
        model: With a caption decoder.
        image: Encoded images.
        guidance_scale: See `guided_log_probs`; may be traced, so that a sweep compiles once.
        guided: False leaves the unconditional branch out; right for a scale of 1 only.
        begin_id: What a caption starts from.
        end_id: What ends it.

    Returns:
        Ids `[B, T]` from the first word on, with the end mark, then pads; and the sum of (guided) log-probabilities.
    """
    decoder = model.decoder
    assert decoder is not None, "this model was built without a caption decoder"
    batch, length, pad = image.embed.shape[0], decoder.length, decoder.vocab_size
    memory = decoder.memory(image.features, image.embed)
    if guided:
        memory = jnp.concatenate([memory, jnp.zeros_like(memory)])

    def unfinished(carry):
        position, _, _, done, _, _ = carry
        return (position < length - 1) & ~done.all()

    def step(carry):
        position, cache, last, done, ids, total = carry
        both = jnp.concatenate([last, last]) if guided else last
        logits, cache = model.caption_step(both, position, cache)
        if guided:
            log_probs = guided_log_probs(logits[:batch], logits[batch:], guidance_scale)
        else:
            log_probs = jax.nn.log_softmax(logits)
        best = jnp.where(done, pad, log_probs.argmax(axis=-1).astype(jnp.int32))
        total = total + jnp.where(done, 0, log_probs.max(axis=-1))
        ids = ids.at[:, position].set(best)
        return position + 1, cache, best, done | (best == end_id), ids, total

    carry = (
        jnp.int32(0),
        model.caption_start(memory),
        jnp.full((batch,), begin_id, jnp.int32),
        jnp.zeros((batch,), bool),
        jnp.full((batch, length - 1), pad, jnp.int32),
        jnp.zeros((batch,), jnp.float32),
    )
    *_, ids, total = jax.lax.while_loop(unfinished, step, carry)
    return ids, total
