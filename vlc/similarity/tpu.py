"""Late interaction on TPU: Pallas kernels that hold one tile of token products on chip, forward and backward.

The layout is "texts on lanes". A tile is a block of images by a block of texts, one text to a lane:

    rows: patches of all images in the block, one after another      lanes: texts
    S_q [rows, lanes] = images [rows, D] x (token q of every text [lanes, D])^T

The maximum over tokens q is an elementwise running maximum and the maximum over patches a reduction over rows: nothing
crosses lanes. Images share the rows of a tile without gaps, and the matrix unit keeps one token of the texts while all
rows pass. docs/kernels.md draws this and says what bounds it.

The backward pass needs, for every pair, which token is best for a patch and which patch is best for a token. Both are
either saved by the forward pass (a byte each) or found again. From them and the gradients of the scores it makes
F_q [rows, lanes], the gradient of S_q, and uses it twice: d_images += F_q x tokens, d_tokens_q = images^T x F_q.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from vlc.models.platform import platform_in_use
from vlc.similarity.padding import pad_axis, round_up

_ROWS = 1024  # patches in a tile, at least: enough to hide the loading of the weights that they pass
_SAVED_TOKENS = 256  # an argmax is saved in a byte
_SLOTS = 3  # buffers of the texts' gradient: one being read, one added to, one being written
_NT = (((1,), (1,)), ((), ()))  # a b^T
_NN = (((1,), (0,)), ((), ()))  # a b


class Piece(NamedTuple):
    """A run of rows, aligned to sublanes, of one image or, where images meet, of several."""

    start: int
    stop: int
    images: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Sizes of a tile and of the steps in it."""

    images: int  # in a tile
    lanes: int  # texts in a tile
    patches: int
    tokens: int  # of a text, a multiple of `forward_step` and `backward_step`
    forward_step: int  # tokens that share a visit of the running maximum
    backward_step: int
    cores: int  # of a chip that share the images
    marks: Any  # dtype that positions are compared in
    vmem: int  # bytes

    @property
    def rows(self) -> int:
        return self.images * self.patches

    @classmethod
    def of(cls, patches: int, tokens: int, width: int) -> "Tiling":
        """The tiling for the chip in use, or for the one that is compiled for."""
        chip = _chip()
        small = max(patches, tokens) <= _SAVED_TOKENS  # positions are exact in bfloat16
        step = 4 if width <= 512 else 2
        wide = step * (2 if chip.lanes > 128 else 1)  # the wider unit waits more for the vector unit
        step = step if chip.lanes > 128 else 2
        images = 8 if patches % 2 == 0 else 16
        return cls(
            images=round_up(-(-_ROWS // patches), images),
            lanes=chip.lanes,
            patches=patches,
            tokens=round_up(tokens, step),
            forward_step=wide if round_up(tokens, step) % wide == 0 else step,
            backward_step=step,
            cores=chip.cores,
            marks=jnp.bfloat16 if chip.narrow_compare and small else jnp.float32,
            vmem=chip.vmem,
        )

    def pieces(self) -> list[Piece]:
        """All rows, in runs of whole 16-row tiles; runs of one image are as long as they can be."""
        out: list[Piece] = []
        for start in range(0, self.rows, 16):
            last = min(start + 15, self.rows - 1) // self.patches
            images = tuple(range(start // self.patches, last + 1))
            if out and len(images) == 1 and out[-1].images == images:
                out[-1] = out[-1]._replace(stop=start + 16)
            else:
                out.append(Piece(start, start + 16, images))
        return out


class Chip(NamedTuple):
    """What the kernels need to know of a TPU."""

    lanes: int  # columns of a matrix unit
    cores: int
    narrow_compare: bool  # compares and selects bfloat16 in the vector unit
    vmem: int  # bytes that a kernel may use


def _chip() -> Chip:
    if platform_in_use() != "tpu":
        return Chip(128, 1, False, 100 << 20)  # the interpreter
    info = pltpu.get_tpu_info()
    return Chip(info.mxu_column_size, info.num_cores, info.generation >= 6, info.vmem_capacity_bytes * 15 // 16)


def late_interaction(
    images: Float[Array, "B P D"], texts: Float[Array, "C T D"], weights: Float[Array, "C T"], *, save_argmax: bool
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Scores of texts whose pads are filled (`vlc.similarity.padding`); see `vlc.late_interaction`.

    Args:
        images: `[B, P, D]`, float32 or bfloat16.
        texts: `[C, T, D]`.
        weights: `[C, T]`, of each token in its text's mean.
        save_argmax: Keep B*C*(P+T) bytes for the backward pass, which otherwise makes one more product.
    """
    count, patches, width = images.shape
    tiling = Tiling.of(patches, texts.shape[1], width)
    columns = round_up(texts.shape[0], tiling.lanes)
    images = pad_axis(images, 0, round_up(count, tiling.images * tiling.cores))
    lanes = pad_axis(pad_axis(texts, 1, tiling.tokens, mode="edge"), 0, columns).swapaxes(0, 1)
    weights = pad_axis(pad_axis(weights, 1, tiling.tokens), 0, columns).T
    i2t, t2i = _scores(tiling, save_argmax and max(patches, texts.shape[1]) <= _SAVED_TOKENS, images, lanes, weights)
    return i2t[:count, : texts.shape[0]], t2i[:count, : texts.shape[0]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scores(tiling: Tiling, save: bool, images: Array, lanes: Array, weights: Array) -> tuple[Array, Array]:
    i2t, t2i = _forward_call(tiling, images, lanes, weights, save=False)
    return i2t, t2i


def _scores_forward(tiling: Tiling, save: bool, images: Array, lanes: Array, weights: Array):
    i2t, t2i, *argmax = _forward_call(tiling, images, lanes, weights, save=save)
    return (i2t, t2i), (images, lanes, weights, argmax)


def _scores_backward(tiling: Tiling, save: bool, residuals: tuple, gradients: tuple[Array, Array]):
    images, lanes, weights, argmax = residuals
    d_images, d_texts = _backward_call(tiling, images, lanes, weights, *gradients, argmax)
    tokens, texts, width = lanes.shape
    d_lanes = d_texts.sum(axis=0).transpose(1, 0, 3, 2).reshape(tokens, texts, width)
    return d_images, d_lanes.astype(lanes.dtype), None


_scores.defvjp(_scores_forward, _scores_backward)


# The calls: which block of which array a grid step sees.


def _forward_call(tiling: Tiling, images: Array, lanes: Array, weights: Array, *, save: bool) -> list[Array]:
    t, width = tiling, images.shape[-1]
    blocks, columns = images.shape[0] // t.images, lanes.shape[1] // t.lanes
    scores = jax.ShapeDtypeStruct((images.shape[0], lanes.shape[1]), jnp.float32)
    scores_spec = pl.BlockSpec((t.images, t.lanes), lambda i, j: (i, j))
    saved = [jax.ShapeDtypeStruct((blocks, n, lanes.shape[1]), jnp.uint8) for n in (t.rows, t.tokens * t.images)]
    saved_spec = [pl.BlockSpec((None, x.shape[1], t.lanes), lambda i, j: (i, 0, j)) for x in saved]
    scratch = {
        "flat": pltpu.VMEM((t.rows, width), images.dtype),
        "row_best": pltpu.VMEM((t.rows, t.lanes), jnp.float32),
    }
    if save:
        scratch["row_arg"] = pltpu.VMEM((t.rows, t.lanes), jnp.float32)
        scratch["col_arg"] = pltpu.VMEM((t.tokens * t.images, t.lanes), jnp.float32)
    return pl.pallas_call(
        functools.partial(_forward_kernel, t, save),
        name="late_interaction_forward",
        out_shape=[scores, scores, *(saved if save else [])],
        grid=(blocks, columns),
        in_specs=[
            pl.BlockSpec((t.images, t.patches, width), lambda i, j: (i, 0, 0)),
            pl.BlockSpec((t.tokens, t.lanes, width), lambda i, j: (0, j, 0)),
            pl.BlockSpec((t.tokens, t.lanes), lambda i, j: (0, j)),
        ],
        out_specs=[scores_spec, scores_spec, *(saved_spec if save else [])],
        scratch_shapes=[scratch],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=t.vmem
        ),
    )(images, lanes, weights)  # fmt: skip


def _backward_call(
    tiling: Tiling, images: Array, lanes: Array, weights: Array, g_i2t: Array, g_t2i: Array, argmax: list[Array]
) -> list[Array]:
    t, (_, texts, width) = tiling, lanes.shape
    blocks, columns = images.shape[0] // t.images // t.cores, texts // t.lanes
    # One buffer: a block of images stays for all texts, and on v5p there is no room for two.
    image_spec = pl.BlockSpec(
        (t.images, t.patches, width), lambda c, i, j: (c * blocks + i, 0, 0), pipeline_mode=pl.Buffered(1)
    )
    scores_spec = pl.BlockSpec((t.images, t.lanes), lambda c, i, j: (c * blocks + i, j))
    saved_spec = [
        pl.BlockSpec((None, x.shape[1], t.lanes), lambda c, i, j: (c * blocks + i, 0, j)) for x in argmax
    ]  # fmt: skip
    tile = (t.rows, t.lanes)
    scratch = {
        "flat": pltpu.VMEM((t.rows, width), images.dtype),
        "across": pltpu.VMEM((width, t.rows), images.dtype),
        "place": pltpu.VMEM(tile, t.marks),
        "row_mark": pltpu.VMEM(tile, t.marks),
        "row_arg": pltpu.VMEM(tile, jnp.float32),
        "col_arg": pltpu.VMEM((t.tokens * t.images, t.lanes), jnp.float32),
        "d_rows": pltpu.VMEM((t.rows, width), jnp.float32),
        "d_tokens": pltpu.VMEM((_SLOTS, t.backward_step, width, t.lanes), jnp.float32),
        "reads": pltpu.SemaphoreType.DMA((_SLOTS,)),
        "writes": pltpu.SemaphoreType.DMA((_SLOTS,)),
    }
    if not argmax:
        scratch["row_best"] = pltpu.VMEM(tile, jnp.float32)
    return pl.pallas_call(
        functools.partial(_backward_kernel, t, len(argmax)),
        name="late_interaction_backward",
        out_shape=[
            jax.ShapeDtypeStruct(images.shape, images.dtype),
            jax.ShapeDtypeStruct((t.cores, columns, t.tokens, width, t.lanes), jnp.float32),
        ],
        grid=(t.cores, blocks, columns),
        in_specs=[
            image_spec,
            pl.BlockSpec((t.tokens, t.lanes, width), lambda c, i, j: (0, j, 0)),
            pl.BlockSpec((t.tokens, t.lanes), lambda c, i, j: (0, j)),
            scores_spec,
            scores_spec,
            *saved_spec,
        ],
        out_specs=[image_spec, pl.BlockSpec(memory_space=pl.ANY)],
        scratch_shapes=[scratch],
        input_output_aliases={0: 0},  # a block of images has been read for the last time when its gradient is written
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=t.vmem
        ),
    )(images, lanes, weights, g_i2t, g_t2i, *argmax)


# The kernels.


def _forward_kernel(t: Tiling, save: bool, images, lanes, weights, i2t, t2i, *rest):
    *saved, scratch = rest

    @pl.when(pl.program_id(1) == 0)
    def _():
        _flatten(t, images, scratch["flat"])

    t2i[...] = jnp.zeros(t2i.shape, jnp.float32)

    def add_best_patch(q, products):
        best = jnp.concatenate([_best_patch(t, products, image) for image in range(t.images)])
        t2i[...] += weights[pl.ds(q, 1), :] * best

    if save:
        _find_argmax(t, t.backward_step, lanes, scratch, add_best_patch)
        for source, target in zip((scratch["row_arg"], scratch["col_arg"]), saved, strict=True):
            target[...] = source[...].astype(jnp.int32).astype(jnp.uint8)
    else:
        _find_best_token(t, lanes, scratch, add_best_patch)
    for image in range(t.images):
        rows = scratch["row_best"][image * t.patches : (image + 1) * t.patches]
        i2t[image : image + 1, :] = rows.sum(axis=0, keepdims=True) * (1 / t.patches)


def _backward_kernel(t: Tiling, saved: int, images, lanes, weights, g_i2t, g_t2i, *rest):
    argmax, (d_images, d_texts, scratch) = rest[:saved], rest[saved:]
    core, block, column = (pl.program_id(axis) for axis in range(3))
    d_rows, d_tokens = scratch["d_rows"], scratch["d_tokens"]

    @pl.when(column == 0)
    def _():
        _flatten(t, images, scratch["flat"])
        scratch["across"][...] = scratch["flat"][...].T
        d_rows[...] = jnp.zeros(d_rows.shape, jnp.float32)
        for piece in t.pieces():
            scratch["place"][piece.start : piece.stop] = _places(t, piece).astype(t.marks)

    steps = t.tokens // t.backward_step

    def transfer(step, *, write: bool):
        home = d_texts.at[core, column, pl.ds(step * t.backward_step, t.backward_step)]
        here, slot = d_tokens.at[step % _SLOTS], step % _SLOTS
        if write:
            return pltpu.make_async_copy(here, home, scratch["writes"].at[slot])
        return pltpu.make_async_copy(home, here, scratch["reads"].at[slot])

    @pl.when(block > 0)
    def _():
        transfer(0, write=False).start()

    if saved:
        scratch["row_mark"][...] = argmax[0][...].astype(jnp.int32).astype(jnp.float32).astype(t.marks)
        scratch["col_arg"][...] = argmax[1][...].astype(jnp.int32).astype(jnp.float32)
    else:
        _find_argmax(t, t.backward_step, lanes, scratch, lambda q, products: None)
        scratch["row_mark"][...] = scratch["row_arg"][...].astype(t.marks)

    def body(step, _):
        @pl.when(step >= _SLOTS - 1)
        def _():
            transfer(step - (_SLOTS - 1), write=True).wait()

        @pl.when((block > 0) & (step + 1 < steps))
        def _():
            transfer(step + 1, write=False).start()

        first = step * t.backward_step
        tokens = range(t.backward_step)
        flows = [_flow(t, first + k, weights, g_i2t, g_t2i, scratch).astype(images.dtype) for k in tokens]
        into_texts = [_dot(scratch["across"][...], flow, _NN) for flow in flows]
        beside = lanes[pl.ds(first, t.backward_step)].reshape(t.backward_step * t.lanes, lanes.shape[-1])
        d_rows[...] += _dot(jnp.concatenate(flows, axis=1), beside, _NN)

        @pl.when(block > 0)
        def _():
            transfer(step, write=False).wait()

        for k in tokens:
            before = jnp.where(block > 0, d_tokens[step % _SLOTS, k], 0)
            d_tokens[step % _SLOTS, k] = before + into_texts[k]
        transfer(step, write=True).start()

    jax.lax.fori_loop(0, steps, body, None)
    for step in range(max(0, steps - (_SLOTS - 1)), steps):
        transfer(step, write=True).wait()

    @pl.when(column == pl.num_programs(2) - 1)
    def _():
        for image in range(t.images):
            d_images[image] = d_rows[image * t.patches : (image + 1) * t.patches].astype(d_images.dtype)


# Their parts.


def _dot(a: Array, b: Array, dims: Any) -> Array:
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(a, b, dims, precision=precision, preferred_element_type=jnp.float32)


def _flatten(t: Tiling, images, flat) -> None:
    """Puts the patches of all images one after another, without gaps."""
    for image in range(t.images):
        flat[image * t.patches : (image + 1) * t.patches] = images[image]


def _iota(rows: int, lanes: int) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, (rows, lanes), 0)


def _spread(t: Tiling, values: Array, piece: Piece) -> Array:
    """One row of `values` `[images, lanes]` for each row of the piece (or one row for all of them)."""
    out = values[piece.images[0] : piece.images[0] + 1]
    for image in piece.images[1:]:
        below = _iota(piece.stop - piece.start, t.lanes) < image * t.patches - piece.start
        out = jnp.where(below, out, values[image : image + 1])
    return out


def _places(t: Tiling, piece: Piece) -> Array:
    """The number of each row's patch within its image, float32."""
    rows = _iota(piece.stop - piece.start, t.lanes) + piece.start
    first = jnp.full(rows.shape, piece.images[0] * t.patches, jnp.int32)
    for image in piece.images[1:]:
        first = jnp.where(rows < image * t.patches, first, image * t.patches)
    return (rows - first).astype(jnp.float32)


def _tiles_of(t: Tiling, products: Array, image: int) -> list[tuple[int, Array]]:
    """The image's rows as tiles of 8, each with its first row; rows of other images are -inf."""
    start, stop = image * t.patches, (image + 1) * t.patches
    tiles = []
    for row in range(start // 8 * 8, stop, 8):
        tile = products[row : row + 8]
        if row < start:
            tile = jnp.where(_iota(8, t.lanes) >= start - row, tile, -jnp.inf)
        if row + 8 > stop:
            tile = jnp.where(_iota(8, t.lanes) < stop - row, tile, -jnp.inf)
        tiles.append((row, tile))
    return tiles


def _best_patch(t: Tiling, products: Array, image: int) -> Float[Array, "1 lanes"]:
    tiles = [tile for _, tile in _tiles_of(t, products, image)]
    return functools.reduce(jnp.maximum, tiles).max(axis=0, keepdims=True)


def _which_patch(t: Tiling, products: Array, image: int) -> Float[Array, "1 lanes"]:
    """The number of the image's best patch, the first of equals."""
    (row, best), *others = _tiles_of(t, products, image)
    at = jnp.full(best.shape, float(row), jnp.float32)
    for row, tile in others:
        better = tile > best
        best, at = jnp.where(better, tile, best), jnp.where(better, float(row), at)
    at = at + _iota(8, t.lanes).astype(jnp.float32)
    top = best.max(axis=0, keepdims=True)
    return jnp.where(best == top, at, float(t.rows)).min(axis=0, keepdims=True) - float(image * t.patches)


def _find_best_token(t: Tiling, lanes, scratch, use_products) -> None:
    """Fills `row_best`; hands the products of each token on."""
    row_best = scratch["row_best"]
    row_best[...] = jnp.full(row_best.shape, -jnp.inf, jnp.float32)

    def body(step, _):
        first = step * t.forward_step
        products = [_dot(scratch["flat"][...], lanes[first + k], _NT) for k in range(t.forward_step)]
        row_best[...] = jnp.maximum(row_best[...], functools.reduce(jnp.maximum, products))
        for k, product in enumerate(products):
            use_products(first + k, product)

    jax.lax.fori_loop(0, t.tokens // t.forward_step, body, None)


def _find_argmax(t: Tiling, unroll: int, lanes, scratch, use_products) -> None:
    """Fills `row_best`, `row_arg` (best token of each row) and `col_arg` (best patch of each token, by image)."""
    row_best, row_arg, col_arg = scratch["row_best"], scratch["row_arg"], scratch["col_arg"]
    row_best[...] = jnp.full(row_best.shape, -jnp.inf, jnp.float32)
    row_arg[...] = jnp.zeros(row_arg.shape, jnp.float32)

    def body(step, _):
        for k in range(unroll):
            q = step * unroll + k
            products = _dot(scratch["flat"][...], lanes[q], _NT)
            better = products > row_best[...]
            row_arg[...] = jnp.where(better, q.astype(jnp.float32), row_arg[...])
            row_best[...] = jnp.where(better, products, row_best[...])
            at = [_which_patch(t, products, image) for image in range(t.images)]
            col_arg[pl.ds(pl.multiple_of(q * t.images, 8), t.images), :] = jnp.concatenate(at)
            use_products(q, products)

    jax.lax.fori_loop(0, t.tokens // unroll, body, None)


def _flow(t: Tiling, q, weights, g_i2t, g_t2i, scratch) -> Array:
    """The gradient of the products of token q, `[rows, lanes]`: of each row's best token, of each token's best row."""
    best_patch = scratch["col_arg"][pl.ds(pl.multiple_of(q * t.images, 8), t.images), :]
    by_row, by_column = g_i2t[...] * (1 / t.patches), g_t2i[...] * weights[pl.ds(q, 1), :]
    token, none = q.astype(jnp.float32).astype(t.marks), jnp.zeros((), t.marks)
    pieces = []
    for piece in t.pieces():
        rows = slice(piece.start, piece.stop)
        gain_row, gain_column, patch = (_spread(t, x, piece).astype(t.marks) for x in (by_row, by_column, best_patch))
        at_row = jnp.where(scratch["row_mark"][rows] == token, gain_row, none)
        at_column = jnp.where(scratch["place"][rows] == patch, gain_column, none)
        pieces.append(at_row + at_column)
    return jnp.concatenate(pieces)
