"""Late interaction in tiles, with a gradient of its own: never more than one tile of token products in memory.

Autodiff of `max` keeps every product and is several times slower than the forward pass. Here the backward pass makes
each tile again and finds its maxima by comparison, which XLA vectorises on every platform, unlike an argmax.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_TILE = 1 << 20  # token products in a tile; 4 MiB of float32, the fastest of five sizes tried on CPU


def late_interaction(
    image_tokens: Float[Array, "B P D"], text_tokens: Float[Array, "C T D"], text_mask: Bool[Array, "C T"]
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """See `vlc.late_interaction`. Ties share the gradient evenly."""
    (images, patches, _), (texts, tokens, _) = image_tokens.shape, text_tokens.shape
    text_block = max(1, min(texts, _TILE // (min(images, 128) * patches * tokens)))
    image_block = max(1, min(images, _TILE // (text_block * patches * tokens)))
    i2t, t2i = _scores(
        _blocks(image_tokens, image_block), _blocks(text_tokens, text_block), _blocks(text_mask, text_block)
    )
    return _unblock(i2t, images, texts), _unblock(t2i, images, texts)


def _blocks(x: Array, block: int) -> Array:
    """`[N, ...]` to `[blocks, block, ...]`, zero rows (or false ones) appended."""
    count = -(-x.shape[0] // block)
    padded = jnp.pad(x, [(0, count * block - x.shape[0])] + [(0, 0)] * (x.ndim - 1))
    return padded.reshape(count, block, *x.shape[1:])


def _unblock(scores: Array, images: int, texts: int) -> Array:
    """`[image blocks, text blocks, b, c]` to `[images, texts]`."""
    rows, columns, b, c = scores.shape
    return scores.swapaxes(1, 2).reshape(rows * b, columns * c)[:images, :texts]


def _products(images: Float[Array, "b P D"], texts: Float[Array, "c T D"]) -> Float[Array, "b P c T"]:
    precision = "highest" if images.dtype == jnp.float32 else None
    return jnp.einsum("ipd,jtd->ipjt", images, texts, preferred_element_type=jnp.float32, precision=precision)


def _maxima(products: Array, mask: Bool[Array, "c T"]) -> tuple[Float[Array, "b P c"], Float[Array, "b c T"]]:
    """The best token of each patch (0 for a text of pads only), and the best patch of each token."""
    best_token = jnp.where(mask, products, -jnp.inf).max(axis=3)
    return jnp.where(mask.any(axis=1), best_token, 0), products.max(axis=1)


def _weights(mask: Bool[Array, "c T"]) -> Float[Array, "c T"]:
    """What each token counts for in the mean over a text's tokens."""
    return mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1).astype(jnp.float32)


def _tile(images: Array, texts: Array, mask: Array) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
    best_token, best_patch = _maxima(_products(images, texts), mask)
    return best_token.mean(axis=1), (best_patch * _weights(mask)).sum(axis=2)


@jax.custom_vjp
def _scores(images: Array, texts: Array, masks: Array) -> tuple[Array, Array]:
    """Scores `[image blocks, text blocks, b, c]` of blocked inputs."""
    return jax.lax.map(lambda image: jax.lax.map(lambda text: _tile(image, *text), (texts, masks)), images)


def _forward(images: Array, texts: Array, masks: Array):
    return _scores(images, texts, masks), (images, texts, masks)


def _tile_gradients(images: Array, texts: Array, mask: Array, g_i2t: Array, g_t2i: Array) -> tuple[Array, Array]:
    """Gradients of one tile: the score's gradient goes to the maxima, from there to both tokens."""
    products = _products(images, texts)
    best_token, best_patch = _maxima(products, mask)
    at_token = jnp.where(mask, products >= best_token[..., None], False)
    at_patch = products >= best_patch[:, None]
    per_patch = g_i2t[:, None] / images.shape[1] / jnp.maximum(at_token.sum(axis=3), 1)
    per_token = g_t2i[..., None] * _weights(mask) / at_patch.sum(axis=1)
    flow = jnp.where(at_token, per_patch[..., None], 0) + jnp.where(at_patch, per_token[:, None], 0)
    flow = flow.astype(images.dtype)
    into = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    return into("ipjt,jtd->ipd", flow, texts), into("ipjt,ipd->jtd", flow, images)


def _backward(residuals: tuple[Array, Array, Array], gradients: tuple[Array, Array]):
    images, texts, masks = residuals

    def image_row(d_texts, item):
        image, g_i2t, g_t2i = item

        def text_tile(d_image, item):
            text, mask, g_i2t, g_t2i = item
            from_tile, d_text = _tile_gradients(image, text, mask, g_i2t, g_t2i)
            return d_image + from_tile, d_text

        d_image, row = jax.lax.scan(text_tile, jnp.zeros(image.shape, jnp.float32), (texts, masks, g_i2t, g_t2i))
        return d_texts + row, d_image

    d_texts, d_images = jax.lax.scan(image_row, jnp.zeros(texts.shape, jnp.float32), (images, *gradients))
    return d_images.astype(images.dtype), d_texts.astype(texts.dtype), None


_scores.defvjp(_forward, _backward)
