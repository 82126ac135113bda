"""Equal captions, and equal images, in one batch: they are no negatives of each other.

Captions of web data come many times, and an image stands twice in a batch that is larger than its data. The papers
count such pairs as negatives, and so does a loss by default; with `duplicates="ignored"` they take no part.

Texts and images are compared by digests: 72 bits as three numbers below 2^24, which float32 holds exactly, since the
encoded batch is differentiated as a whole.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_PRIMES = (2654435761, 2246822519, 3266489917)


def digest(values: Array) -> Float[Array, "... 3"]:
    """72 bits of whole numbers `[..., N]`: equal rows have equal ones, others do but once in 10^21."""
    words = values.astype(jnp.uint32) + jnp.uint32(1)
    place = jax.lax.broadcasted_iota(jnp.uint32, (values.shape[-1],), 0)
    found = []
    for prime in _PRIMES:
        mixed = (words ^ (place * jnp.uint32(prime))) * jnp.uint32(_PRIMES[0])
        mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(prime)
        total = jnp.sum(mixed ^ (mixed >> 13), axis=-1, dtype=jnp.uint32)
        found.append((total ^ (total >> 11)) & jnp.uint32(0xFFFFFF))
    return jnp.stack(found, axis=-1).astype(jnp.float32)


def text_digests(text: Int[Array, "B T"], subs: Int[Array, "B S U"] | None, pad: int) -> Float[Array, "B K 3"]:
    """Digests of the main caption and of the sub-captions, whose lengths may differ."""
    length = max(text.shape[1], subs.shape[2] if subs is not None else 0)

    def widened(ids: Array) -> Array:
        more = [(0, 0)] * (ids.ndim - 1) + [(0, length - ids.shape[-1])]
        return jnp.pad(ids, more, constant_values=pad)

    parts = [digest(widened(text))[:, None]]
    if subs is not None:
        parts.append(digest(widened(subs)))
    return jnp.concatenate(parts, axis=1)


def image_digests(images: Array) -> Float[Array, "B 3"]:
    """Digests of the pixels that the model sees."""
    return digest(images.reshape(images.shape[0], -1))


def class_digests(classes: Int[Array, "..."]) -> Float[Array, "... 3"]:
    """Digests of classes, -1 where there is none."""
    return jnp.where((classes >= 0)[..., None], digest(classes[..., None]), -1.0)


def first_of_their_kind(ids: Float[Array, "B K 3"]) -> Float[Array, "B K"]:
    """1 for the first of equal captions of an image, 0 for those that come again."""
    equal = (ids[:, :, None] == ids[:, None]).all(axis=-1)
    earlier = jnp.tril(jnp.ones(equal.shape[1:], bool), -1)
    return (~(equal & earlier).any(axis=-1)).astype(jnp.float32)


def same_pairs(text: Float[Array, "B 3"], image: Float[Array, "B 3"]) -> Bool[Array, "B B"]:
    """Whether two *different* records of a batch have the same caption or the same image."""
    equal = (text[:, None] == text[None]).all(axis=-1) | (image[:, None] == image[None]).all(axis=-1)
    return equal & ~jnp.eye(len(text), dtype=bool)


def without_wide(logits: Float[Array, "N M"], same: Any) -> Float[Array, "N M"]:
    """As `without`, for logits with columns of wrong texts after those of `same` `[N, N]`, which stay."""
    further = logits.shape[1] - len(logits)
    return without(logits, jnp.pad(same, ((0, 0), (0, further))) if same is not None and further else same)


def without(logits: Float[Array, "N N"], same: Any) -> Float[Array, "N N"]:
    """Logits in which pairs that are the same have no part; as they are where `same` is `None`."""
    return logits if same is None else jnp.where(same, -jnp.inf, logits)
