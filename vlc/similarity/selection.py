"""FILIP's token selection: only the tokens that some counterpart in the local batch likes best take part."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_PRODUCTS = 1 << 24  # token products made at once


def select_tokens(
    image_tokens: Float[Array, "B P D"],
    text_tokens: Float[Array, "B T D"],
    text_mask: Bool[Array, "B T"],
    *,
    keep: float,
    groups: int = 1,
) -> tuple[Float[Array, "B p D"], Float[Array, "B t D"], Bool[Array, "B t"]]:
    """Keeps that share of each image's patches and of each text's tokens (FILIP, arXiv 2111.07783, section 3.1).

    A token's rank is its highest similarity with any token of the other side in the local batch. Of a text that has
    fewer real tokens than places all are kept. No gradient passes through the choice.

    Args:
        image_tokens: `[B, P, D]`.
        text_tokens: `[B, T, D]`.
        text_mask: `[B, T]`, true for real tokens.
        keep: Share to keep, 0.25 in the paper.
        groups: Local batches that the rows form, one after another: the number of devices that share them.

    Returns:
        Image tokens `[B, ceil(keep P), D]`, text tokens `[B, ceil(keep T), D]` and their mask.
    """
    images, texts = jax.lax.stop_gradient((image_tokens, text_tokens))
    best_patch, best_token = _ranks(images, texts, text_mask, groups)
    image_tokens = _take(image_tokens, _top(best_patch, keep))
    chosen = _top(jnp.where(text_mask, best_token, -jnp.inf), keep)
    return image_tokens, _take(text_tokens, chosen), jnp.take_along_axis(text_mask, chosen, axis=1)


def _ranks(images: Array, texts: Array, mask: Array, groups: int) -> tuple[Float[Array, "B P"], Float[Array, "B T"]]:
    (rows, patches, _), tokens = images.shape, texts.shape[1]
    local = rows // groups
    block = max(1, min(local, _PRODUCTS // (patches * local * tokens)))
    while local % block:
        block -= 1

    def one_group(images: Array, texts: Array, mask: Array) -> tuple[Array, Array]:
        def one_block(best_token: Array, block_of_images: Array):
            products = jnp.einsum("ipd,jtd->ipjt", block_of_images, texts, preferred_element_type=jnp.float32)
            products = jnp.where(mask, products, -jnp.inf)
            return jnp.maximum(best_token, products.max(axis=(0, 1))), products.max(axis=(2, 3))

        start = jnp.full(mask.shape, -jnp.inf, jnp.float32)
        best_token, best_patch = jax.lax.scan(one_block, start, images.reshape(-1, block, *images.shape[1:]))
        return best_patch.reshape(local, patches), best_token

    parts = [x.reshape(groups, local, *x.shape[1:]) for x in (images, texts, mask)]
    best_patch, best_token = jax.vmap(one_group)(*parts)
    return best_patch.reshape(rows, patches), best_token.reshape(rows, tokens)


def _top(ranks: Float[Array, "B N"], keep: float) -> Array:
    """Places of the highest ranks, in their own order."""
    count = math.ceil(keep * ranks.shape[1])
    return jnp.sort(jax.lax.top_k(ranks, count)[1], axis=1)


def _take(tokens: Array, places: Array) -> Array:
    return jnp.take_along_axis(tokens, places[..., None], axis=1)
