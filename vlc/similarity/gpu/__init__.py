"""Late interaction on Hopper GPUs: Pallas Mosaic kernels, forward and backward.

`forward` makes the token products on chip and keeps the maxima and, for the backward pass, their positions. `backward`
turns positions and the scores' gradient into one-hot matrices, a tile at a time in registers, and multiplies them with
the tokens of the other side: the same kernel gives the gradient of images and of texts. docs/kernels.md draws both.

The kernels take bfloat16 tokens, up to 256 patches and 160 text tokens. They were compiled for H100 and checked in the
interpreter, but have not run on one.
"""

import functools
import re

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from vlc.models.platform import platform_in_use
from vlc.similarity.gpu.backward import gradient_of_rows
from vlc.similarity.gpu.forward import Positions, Tiling, scores_and_positions
from vlc.similarity.padding import pad_axis, round_up

_CHUNK_BYTES = {True: 1 << 29, False: 1 << 28}  # of positions that the backward pass unpacks at once, if saved, if not
_NEVER = 512  # a position that no patch has


def why_not(images: Array, texts: Array) -> str:
    """Why the kernels cannot take these tokens, or nothing."""
    (_, patches, width), tokens = images.shape, texts.shape[1]
    if platform_in_use() == "gpu" and not _is_hopper():
        return "the kernels are for Hopper"
    if images.dtype != jnp.bfloat16:
        return f"the tokens are {images.dtype}, and the kernels take bfloat16"
    if patches > 256:
        return f"an image has {patches} patches, and the kernels take up to 256"
    if tokens > 160:
        return f"a text has {tokens} tokens, and the kernels take up to 160"
    if Tiling.of(tokens, _padded_width(width)) is None:
        return f"tokens of width {width} do not fit into shared memory"
    return ""


def late_interaction(
    images: Float[Array, "B P D"], texts: Float[Array, "C T D"], weights: Float[Array, "C T"], *, save_argmax: bool
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Scores of texts whose pads are filled (`vlc.similarity.padding`); see `vlc.late_interaction`.

    Args:
        images: `[B, P, D]`, bfloat16.
        texts: `[C, T, D]`.
        weights: `[C, T]`, of each token in its text's mean: 1/length, or 0 for a pad.
        save_argmax: Keep B*C*(P+T) bytes for the backward pass, which otherwise runs the forward pass again, a chunk of
            images at a time.
    """
    (count, patches, width), (captions, tokens, _) = images.shape, texts.shape
    tiling = Tiling.of(tokens, _padded_width(width))
    assert tiling is not None  # why_not has said so
    columns = round_up(captions, 64)
    chunks, rows = _chunks(count, columns * (patches + tokens), tiling, save_argmax)
    images = pad_axis(pad_axis(images, 0, chunks * rows), 2, _padded_width(width))
    texts = pad_axis(pad_axis(texts, 1, tiling.tokens, mode="edge"), 0, columns)
    texts = pad_axis(texts, 2, _padded_width(width))
    weights = pad_axis(pad_axis(weights, 1, tiling.tokens), 0, columns)
    i2t, t2i = _scores(tiling, (rows, save_argmax), images, texts, weights)
    return i2t[:count, :captions], t2i[:count, :captions]


def _padded_width(width: int) -> int:
    """A multiple of what a matrix instruction takes, and of what its accumulator holds where it holds not all."""
    return round_up(width, 64 if width <= 256 else 128)


def _chunks(count: int, positions: int, tiling: Tiling, save: bool) -> tuple[int, int]:
    """How many chunks of how many images: each position of a chunk is unpacked into two bytes."""
    fit = max(1, round(_CHUNK_BYTES[save] / (2 * positions) / 64)) * 64
    chunks = -(-count // fit)
    return chunks, round_up(-(-count // chunks), 64 * tiling.rows)


def _is_hopper() -> bool:
    abstract = jax.sharding.get_abstract_mesh().abstract_device
    if abstract is not None:
        return re.search(r"\bG?H\d", abstract.device_kind) is not None
    return str(getattr(jax.local_devices(backend="gpu")[0], "compute_capability", "")).startswith("9.")


Static = tuple[int, bool]  # images in a chunk, and whether positions are saved


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scores(tiling: Tiling, static: Static, images: Array, texts: Array, weights: Array) -> tuple[Array, Array]:
    i2t, t2i, _ = scores_and_positions(tiling, images, texts, weights, save=False)
    return i2t, t2i


def _scores_forward(tiling: Tiling, static: Static, images: Array, texts: Array, weights: Array):
    i2t, t2i, positions = scores_and_positions(tiling, images, texts, weights, save=static[1])
    return (i2t, t2i), (images, texts, weights, positions)


def _scores_backward(tiling: Tiling, static: Static, residuals: tuple, gradients: tuple[Array, Array]):
    images, texts, weights, positions = residuals
    rows, save = static
    # The gradient of each product that is a maximum. A token's weight is 1/length or 0; where 0, no position matches.
    gains = gradients[0] / images.shape[1], gradients[1] * weights.max(axis=1)

    def chunk(d_texts: Array, start: Array) -> tuple[Array, Array]:
        here = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=rows)
        part = here(images)
        if save:
            # In their own layout, or XLA transposes all of them before the loop.
            best_token = with_layout_constraint(here(positions[0], axis=2), Layout((0, 1, 2)))
            found = Positions(best_token, here(positions[1]))
        else:
            found = Positions(*scores_and_positions(tiling, part, texts, weights, save=True)[2])
        d_part, more = _gradients(found, part, texts, weights > 0, *map(here, gains))
        return d_texts + more, d_part

    d_texts, d_images = jax.lax.scan(chunk, jnp.zeros(texts.shape, jnp.float32), jnp.arange(0, images.shape[0], rows))
    return d_images.reshape(images.shape), d_texts.astype(texts.dtype), None


_scores.defvjp(_scores_forward, _scores_backward)


def _gradients(found: Positions, images: Array, texts: Array, real: Array, by_patch: Array, by_token: Array):
    """Gradients of a chunk of images (in their type) and, from it, of the texts (float32).

    Args:
        found: Positions of the maxima.
        images: `[b, P, D]`.
        texts: `[C, T, D]`.
        real: `[C, T]`, whether a token is one.
        by_patch: `[b, C]`, gradient of each patch's best product.
        by_token: `[b, C]`, gradient of each token's best product.
    """
    kind = images.dtype
    best_token = found.tokens_by_patch(images.shape[1]).astype(kind)  # [P, C, b]
    best_patch = jnp.where(real.T[:, :, None], found.patches_by_token(texts.shape[0]).astype(kind), _NEVER)  # [T, C, b]
    by_patch, by_token = by_patch.astype(kind), by_token.astype(kind)
    images_first = functools.partial(jnp.swapaxes, axis1=1, axis2=2)
    d_images = gradient_of_rows(images_first(best_token), images_first(best_patch), by_patch, by_token, texts, kind)
    d_texts = gradient_of_rows(best_patch, best_token, by_token.T, by_patch.T, images, jnp.float32)
    return d_images, d_texts
