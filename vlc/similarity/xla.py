"""Late interaction in tiles, with a gradient of its own: never more than one tile of token products in memory.

Autodiff of `max` keeps every product and is several times slower than the forward pass. Here the backward pass makes
each tile again and finds its maxima by comparison, which XLA vectorises on every platform, unlike an argmax. Texts are
the last axis of a tile, so both maxima are elementwise over it: on CPU this is as fast as the matrix products.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.similarity.padding import pad_axis, round_up

_TILE = {"cpu": 13 << 16, "gpu": 1 << 26, "tpu": 1 << 26}  # token products in a tile, float32; measured on CPU only
_TEXTS = {"cpu": 16, "gpu": 128, "tpu": 128}  # in a tile: one or more vectors


def late_interaction(
    images: Float[Array, "B P D"],
    texts: Float[Array, "C T D"],
    weights: Float[Array, "C T"],
    *,
    smoothing: float = 0.0,
    platform: str = "cpu",
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Scores of texts whose pads are filled (`vlc.similarity.padding`). Ties share the gradient evenly.

    Args:
        images: `[B, P, D]`.
        texts: `[C, T, D]`.
        weights: `[C, T]`, of each token in its text's mean; 0 marks a pad.
        smoothing: Temperature of the soft maximum; 0 is the maximum.
        platform: Whose tile sizes are used.
    """
    (count, patches, _), (captions, tokens, _) = images.shape, texts.shape
    lanes = min(_TEXTS[platform], captions)
    rows = max(1, min(count, _TILE[platform] // (lanes * patches * tokens)))
    rows = -(-count // -(-count // rows))  # as many blocks, with fewer rows of padding
    image_blocks = pad_axis(images, 0, round_up(count, rows)).reshape(-1, rows, *images.shape[1:])
    columns = round_up(captions, lanes)
    lay = functools.partial(_on_lanes, lanes=lanes, columns=columns)
    i2t, t2i = _scores(smoothing, image_blocks, lay(texts), lay(weights))
    return _unblock(i2t, count, captions), _unblock(t2i, count, captions)


def _on_lanes(x: Array, lanes: int, columns: int) -> Array:
    """`[C, T, ...]` to `[blocks, T, lanes, ...]`."""
    x = pad_axis(x, 0, columns)
    return x.reshape(columns // lanes, lanes, *x.shape[1:]).swapaxes(1, 2)


def _unblock(scores: Array, images: int, texts: int) -> Array:
    """`[image blocks, text blocks, rows, lanes]` to `[images, texts]`."""
    blocks, columns, rows, lanes = scores.shape
    return scores.swapaxes(1, 2).reshape(blocks * rows, columns * lanes)[:images, :texts]


def _products(images: Float[Array, "b P D"], texts: Float[Array, "T c D"]) -> Float[Array, "b P T c"]:
    precision = "highest" if images.dtype == jnp.float32 else None
    return jnp.einsum("ipd,tjd->iptj", images, texts, preferred_element_type=jnp.float32, precision=precision)


def _best(products: Array, axis: int, smoothing: float, kept: Array | bool = True) -> Array:
    """The (soft) maximum over an axis, which stays. A hard one needs no mask: pads are copies."""
    if not smoothing:
        return products.max(axis=axis, keepdims=True)
    best = jax.nn.logsumexp(products / smoothing, axis=axis, keepdims=True, where=kept)
    return smoothing * jnp.where(jnp.isfinite(best), best, 0)


def _share(gain: Array, products: Array, best: Array, axis: int, smoothing: float, kept: Array | bool = True) -> Array:
    """What each product gets of the gradient `gain` of `_best`; equals share it evenly."""
    if not smoothing:
        reached = products >= best
        return jnp.where(reached, gain / reached.sum(axis=axis, keepdims=True), 0)
    return jnp.where(kept, gain * jnp.exp((products - best) / smoothing), 0)


def _tile(smoothing: float, images: Array, texts: Array, weights: Array) -> tuple[Array, Array]:
    products = _products(images, texts)
    best_token = _best(products, 2, smoothing, weights > 0)
    best_patch = _best(products, 1, smoothing)
    return best_token.mean(axis=(1, 2)), (best_patch[:, 0] * weights).sum(axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(smoothing: float, images: Array, texts: Array, weights: Array) -> tuple[Array, Array]:
    """Scores `[image blocks, text blocks, rows, lanes]` of blocked inputs."""
    one = functools.partial(_tile, smoothing)
    return jax.lax.map(lambda image: jax.lax.map(lambda text: one(image, *text), (texts, weights)), images)


def _forward(smoothing: float, images: Array, texts: Array, weights: Array):
    return _scores(smoothing, images, texts, weights), (images, texts, weights)


def _tile_gradients(
    smoothing: float, images: Array, texts: Array, weights: Array, g_i2t: Array, g_t2i: Array
) -> tuple[Array, Array]:
    """Gradients of one tile: the score's gradient goes to the maxima, from there to both tokens."""
    products = _products(images, texts)
    kept = weights > 0
    per_patch = (g_i2t / images.shape[1])[:, None, None]
    per_token = (g_t2i[:, None] * weights)[:, None]
    to_tokens = _share(per_patch, products, _best(products, 2, smoothing, kept), 2, smoothing, kept)
    to_patches = _share(per_token, products, _best(products, 1, smoothing), 1, smoothing)
    flow = (to_tokens + to_patches).astype(images.dtype)
    precision = "highest" if images.dtype == jnp.float32 else None
    into = functools.partial(jnp.einsum, preferred_element_type=jnp.float32, precision=precision)
    return into("iptj,tjd->ipd", flow, texts), into("iptj,ipd->tjd", flow, images)


def _backward(smoothing: float, residuals: tuple[Array, Array, Array], gradients: tuple[Array, Array]):
    images, texts, weights = residuals

    def image_row(d_texts, item):
        image, g_i2t, g_t2i = item

        def text_tile(d_image, item):
            from_tile, d_text = _tile_gradients(smoothing, image, *item)
            return d_image + from_tile, d_text

        zero = jnp.zeros(image.shape, jnp.float32)
        d_image, row = jax.lax.scan(text_tile, zero, (texts, weights, g_i2t, g_t2i))
        return d_texts + row, d_image

    d_texts, d_images = jax.lax.scan(image_row, jnp.zeros(texts.shape, jnp.float32), (images, *gradients))
    return d_images.astype(images.dtype), d_texts.astype(texts.dtype), None


_scores.defvjp(_forward, _backward)
