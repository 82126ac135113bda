"""Late interaction in tiles, with a gradient of its own: never more than one tile of token products in memory.

Autodiff of `max` keeps every product and is several times slower than the forward pass. Here the forward pass keeps the
positions of the maxima, a byte each, or the backward pass makes each tile again to find them. An argmax of XLA does not
vectorise on CPU; the least number among the places that reach the maximum does. Texts are the last axis of a tile, so
everything is elementwise over it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
    save_argmax: bool = True,
    platform: str = "cpu",
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Scores of texts whose pads are filled (`vlc.similarity.padding`). Of equal maxima the first gets the gradient.

    Args:
        images: `[B, P, D]`.
        texts: `[C, T, D]`.
        weights: `[C, T]`, of each token in its text's mean; 0 marks a pad.
        smoothing: Temperature of the soft maximum; 0 is the maximum.
        save_argmax: Keep the positions of maxima for the backward pass, which otherwise makes one more product.
        platform: Whose tile sizes are used.
    """
    if platform == "cpu":  # whose products of bfloat16 are slow, and not all there
        images, texts = images.astype(jnp.float32), texts.astype(jnp.float32)
    (count, patches, _), (captions, tokens, _) = images.shape, texts.shape
    lanes = min(_TEXTS[platform], captions)
    rows = max(1, min(count, _TILE[platform] // (lanes * patches * tokens)))
    rows = -(-count // -(-count // rows))  # as many blocks, with fewer rows of padding
    image_blocks = pad_axis(images, 0, round_up(count, rows)).reshape(-1, rows, *images.shape[1:])
    columns = round_up(captions, lanes)
    lay = functools.partial(_on_lanes, lanes=lanes, columns=columns)
    i2t, t2i = _scores(smoothing, save_argmax, image_blocks, lay(texts), lay(weights))
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
    width = images.shape[-1]
    products = _matmul(images.reshape(-1, width), texts.reshape(-1, width), 1, 1)
    return products.reshape(*images.shape[:2], *texts.shape[:2])


def _best(products: Array, axis: int, smoothing: float, kept: Array | bool = True) -> Array:
    """The (soft) maximum over an axis, which stays. A hard one needs no mask: pads are copies."""
    if not smoothing:
        return products.max(axis=axis, keepdims=True)
    best = jax.nn.logsumexp(products / smoothing, axis=axis, keepdims=True, where=kept)
    return smoothing * jnp.where(jnp.isfinite(best), best, 0)


def _first(products: Array, best: Array, axis: int) -> Array:
    """Where along an axis the maximum is reached first."""
    shape = [1] * products.ndim
    shape[axis] = products.shape[axis]
    numbers = jnp.arange(products.shape[axis], dtype=jnp.float32).reshape(shape)
    first = jnp.where(products >= best, numbers, jnp.inf).min(axis=axis, keepdims=True)
    return jnp.minimum(first, shape[axis] - 1).astype(position_type(*products.shape[1:3]))  # infinite where all is NaN


def position_type(patches: int, tokens: int) -> Any:
    """What holds the number of a patch or of a token."""
    return np.dtype("uint8") if max(patches, tokens) <= 256 else np.dtype("uint16")


class _Found(NamedTuple):
    """Positions of the maxima of a tile."""

    token: Array  # [b, P, 1, c]
    patch: Array  # [b, 1, T, c]


def _tile(
    smoothing: float, save: bool, images: Array, texts: Array, weights: Array
) -> tuple[tuple[Array, Array], _Found | None]:
    products = _products(images, texts)
    best_token = _best(products, 2, smoothing, weights > 0)
    best_patch = _best(products, 1, smoothing)
    scores = best_token.mean(axis=(1, 2)), (best_patch[:, 0] * weights).sum(axis=1)
    return scores, _Found(_first(products, best_token, 2), _first(products, best_patch, 1)) if save else None


def _all_tiles(smoothing: float, save: bool, images: Array, texts: Array, weights: Array):
    one = functools.partial(_tile, smoothing, save)
    return jax.lax.map(lambda image: jax.lax.map(lambda text: one(image, *text), (texts, weights)), images)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scores(smoothing: float, save: bool, images: Array, texts: Array, weights: Array) -> tuple[Array, Array]:
    """Scores `[image blocks, text blocks, rows, lanes]` of blocked inputs."""
    return _all_tiles(smoothing, False, images, texts, weights)[0]


def _forward(smoothing: float, save: bool, images: Array, texts: Array, weights: Array):
    scores, found = _all_tiles(smoothing, save and not smoothing, images, texts, weights)
    return scores, (images, texts, weights, found)


def _flow(smoothing: float, images, texts, weights, per_patch: Array, per_token: Array, found: _Found | None) -> Array:
    """The gradient of a tile's products: what the scores' gradient gives to each maximum."""
    if smoothing:
        products, kept = _products(images, texts), weights > 0
        to_token = jnp.exp((products - _best(products, 2, smoothing, kept)) / smoothing)
        to_patch = jnp.exp((products - _best(products, 1, smoothing)) / smoothing)
        return jnp.where(kept, per_patch * to_token, 0) + per_token * to_patch
    if found is None:
        products = _products(images, texts)
        found = _Found(*(_first(products, products.max(axis=axis, keepdims=True), axis) for axis in (2, 1)))
    token = jnp.arange(texts.shape[0], dtype=jnp.int32)[:, None]
    patch = jnp.arange(images.shape[1], dtype=jnp.int32)[:, None, None]
    return jnp.where(token == found.token, per_patch, 0) + jnp.where(patch == found.patch, per_token, 0)


def _tile_gradients(
    smoothing: float,
    images: Array,
    across: Array,
    texts: Array,
    weights: Array,
    g_i2t: Array,
    g_t2i: Array,
    found: _Found | None,
) -> tuple[Array, Array]:
    """Gradients of one tile, `[b, P, D]` and `[D, T, c]`: from the scores to the maxima, from there to both tokens.

    That of the texts has their width first: for `[T, c, D]` XLA:CPU would turn the flow around, at 1.5 times the time.
    `across` are the images as `[D, b P]`, turned once for all texts.
    """
    per_patch = (g_i2t / images.shape[1])[:, None, None]
    per_token = (g_t2i[:, None] * weights)[:, None]
    flow = _flow(smoothing, images, texts, weights, per_patch, per_token, found).astype(images.dtype)
    (rows, patches, width), (tokens, lanes, _) = images.shape, texts.shape
    # As matrices: from an einsum XLA makes the flow twice, once turned around.
    flow = flow.reshape(rows * patches, tokens * lanes)
    d_images = _matmul(flow, texts.reshape(tokens * lanes, width), 1, 0)
    d_texts = _matmul(across, flow, 1, 0)
    return d_images.reshape(images.shape), d_texts.reshape(width, tokens, lanes)


def _matmul(a: Array, b: Array, axis_a: int, axis_b: int) -> Array:
    """Sums over an axis of each, in float32."""
    precision = "highest" if a.dtype == jnp.float32 else None
    dims = (((axis_a,), (axis_b,)), ((), ()))
    return jax.lax.dot_general(a, b, dims, precision=precision, preferred_element_type=jnp.float32)


def _backward(smoothing: float, save: bool, residuals: tuple, gradients: tuple[Array, Array]):
    images, texts, weights, found = residuals

    def image_row(d_texts, item):
        image, g_i2t, g_t2i, found = item
        across = image.reshape(-1, image.shape[-1]).T

        def text_tile(sums, item):
            (d_image, d_texts), (block, *inputs) = sums, item
            from_tile, d_text = _tile_gradients(smoothing, image, across, *inputs)
            return (d_image + from_tile, d_texts.at[block].add(d_text)), None

        sums = jnp.zeros(image.shape, jnp.float32), d_texts
        inputs = jnp.arange(len(texts)), texts, weights, g_i2t, g_t2i, found
        (d_image, d_texts), _ = jax.lax.scan(text_tile, sums, inputs)
        return d_texts, d_image

    blocks, tokens, lanes, width = texts.shape
    d_texts = jnp.zeros((blocks, width, tokens, lanes), jnp.float32)
    d_texts, d_images = jax.lax.scan(image_row, d_texts, (images, *gradients, found))
    return d_images.astype(images.dtype), jnp.moveaxis(d_texts, 1, 3).astype(texts.dtype), None


_scores.defvjp(_forward, _backward)
