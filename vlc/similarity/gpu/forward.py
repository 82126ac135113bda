"""Forward kernel for Hopper: both score matrices, and on request the positions of the maxima.

A block of the grid holds some whole texts in shared memory while the patches of 64 (or 128) images stream by, patch
number p of all of them at once:

    columns: tokens of whole texts           S_p [64 images, tokens] = (patch p of the images) x (tokens)^T
    rows: images

The maximum over a text's tokens is one over columns that a thread and three neighbours hold; the maximum over patches
is an elementwise running maximum. One warpgroup loads, two multiply and compare: while one compares, the other
multiplies. Pairs of blocks with the same images and different texts receive the patches together.

Positions cost a bit operation each: the lowest 8 bits of a product (2^-15 of it) are replaced by the number of its
patch or token before the maximum is taken.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int

from vlc.similarity.padding import round_up

ROWS = 64  # of a matrix instruction
TILE = 64  # bfloat16 numbers in a row of a tile of shared memory
SHARED_BYTES = (227 << 10) - 4096  # of a block, less what barriers and alignment take
FRAGMENT = plgpu.Layout.WGMMA  # how the threads of a warpgroup hold a matrix
BY_ROW, BY_COLUMN = FRAGMENT.reduce(1), FRAGMENT.reduce(0)
_POSITION = 255  # the bits of a product that give way to a position
_PRODUCT = -256  # the other bits


def in_tiles(columns: int) -> tuple[Any, Any]:
    """The layout of shared memory that matrix instructions read, for rows of `columns` numbers that take 128 bytes."""
    library: Any = plgpu  # whose types say that these two are abstract
    return library.TilingTransform((8, columns)), library.SwizzleTransform(128)


class Positions(NamedTuple):
    """Where the maxima are, a byte each."""

    best_token: Int[Array, "p C B"]  # int16, two patches in each
    best_patch: Int[Array, "B tokens"]  # uint8, tokens of all texts one after another

    def tokens_by_patch(self, patches: int) -> Int[Array, "P C B"]:
        """The best token of each patch."""
        pairs = self.best_token.astype(jnp.int32)
        both = jnp.stack([pairs & _POSITION, (pairs >> 8) & _POSITION], axis=1)
        return both.reshape(-1, *pairs.shape[1:])[:patches]

    def patches_by_token(self, texts: int) -> Int[Array, "T C B"]:
        """The best patch of each token."""
        return self.best_patch.reshape(self.best_patch.shape[0], texts, -1).transpose(2, 1, 0)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Sizes of what a block of the grid holds.

    Attributes:
        texts: That a warpgroup compares at once.
        tokens: Of a text, padded.
        rows: Warpgroups that share the texts.
        columns: Warpgroups that share the images.
        cluster: Blocks that receive the images together.
        depth: Of a token's width, how much is multiplied at once.
        stages: Parts of images of that depth on their way.
    """

    texts: int
    tokens: int
    rows: int
    columns: int
    cluster: int
    depth: int
    stages: int

    @property
    def width(self) -> int:
        """Columns of a warpgroup's products."""
        return self.texts * self.tokens

    @property
    def groups(self) -> int:
        """Warpgroups that multiply."""
        return self.rows * self.columns

    @classmethod
    def of(cls, tokens: int, width: int) -> "Tiling | None":
        """The widest tiling that shared memory has room for, or `None`; two warpgroups that take turns come first.

        Args:
            tokens: Of a text.
            width: Of a token, a multiple of 64.
        """
        tokens = round_up(tokens, 8 if tokens <= 80 else 16)
        # A row of positions takes multiples of 16 bytes.
        several = [n for n in (8, 4, 2, 1) if n * tokens <= 160 and n * tokens % 16 == 0]
        in_turns = [(n, rows, columns) for n in several for rows, columns in ((1, 2), (2, 1))]
        alone = [(n, 1, 1) for n in several]
        for (texts, rows, columns), depth in itertools.product(in_turns + alone, (128, 64)):
            cluster = 2 if columns * texts * tokens >= 128 else 4
            tiling = cls(texts, tokens, rows, columns, cluster, depth, 0)
            if width % depth == 0 and (stages := tiling._stages(width)) >= 3:
                return dataclasses.replace(tiling, stages=stages)
        return None

    def _stages(self, width: int) -> int:
        """How many there is room for, at most 512 numbers deep."""
        texts = self.columns * self.width * (2 * width + 4)
        results = self.groups * (ROWS * self.width + ROWS * self.texts * (2 * 4 + 2 * 2))
        return min(512 // self.depth, (SHARED_BYTES - texts - results) // (self.rows * ROWS * self.depth * 2))


def scores_and_positions(
    tiling: Tiling,
    images: Float[Array, "B P D"],
    texts: Float[Array, "C T D"],
    weights: Float[Array, "C T"],
    *,
    save: bool,
) -> tuple[Float[Array, "B C"], Float[Array, "B C"], list[Array]]:
    """Scores of all pairs, and the fields of `Positions` where `save` asks for them.

    Args:
        tiling: For T and D.
        images: `[B, P, D]`, bfloat16; B a multiple of 64 for each of `tiling.rows`, D of 64.
        texts: `[C, T, D]`; C a multiple of 64, T of the tiling.
        weights: `[C, T]` float32.
        save: Whether positions are kept. Scores are then off by up to 2^-16 of themselves.
    """
    t, (count, patches, width), captions = tiling, images.shape, texts.shape[0]
    pairs, slices = -(-patches // 2), width // t.depth
    outputs = [jax.ShapeDtypeStruct((captions, count), jnp.float32)] * 2
    scratch = {
        "images": plgpu.SMEM((t.stages, t.rows, ROWS, t.depth), images.dtype, transforms=in_tiles(TILE)),
        "texts": plgpu.SMEM((t.columns, slices, t.width, t.depth), texts.dtype, transforms=in_tiles(TILE)),
        "weights": plgpu.SMEM((t.columns, t.width), jnp.float32),
        "scores": plgpu.SMEM((t.groups, 2, t.texts, ROWS), jnp.float32),
        "full": plgpu.Barrier(num_arrivals=t.rows, num_barriers=t.stages),
        "empty": plgpu.ClusterBarrier(
            collective_axes=("cluster",), num_arrivals=t.groups, num_barriers=t.stages
        ),
        "ready": plgpu.Barrier(num_arrivals=t.columns * (slices + 1)),
    }  # fmt: skip
    if save:
        outputs += [
            jax.ShapeDtypeStruct((pairs, captions, count), jnp.int16),
            jax.ShapeDtypeStruct((count, captions * t.tokens), jnp.uint8),
        ]
        scratch["best_token"] = plgpu.SMEM((t.groups, 2, t.texts, ROWS), jnp.int16)
        scratch["best_patch"] = plgpu.SMEM((t.groups, ROWS, t.width), jnp.uint8)
    call = plgpu.kernel(
        _Forward(t, patches, slices, save),
        out_type=tuple(outputs),
        grid=(count // (t.rows * ROWS), captions // (t.columns * t.texts * t.cluster)),
        grid_names=("images", "texts"),
        cluster=(t.cluster,),
        cluster_names=("cluster",),
        num_threads=t.groups + 1,
        thread_name="group",
        scratch_types=[scratch],
        compiler_params=plgpu.CompilerParams(approx_math=True),
    )
    i2t, t2i, *positions = call(images, texts.reshape(-1, width), weights.reshape(-1))
    return i2t.T, t2i.T, positions


@dataclasses.dataclass(frozen=True)
class _Forward:
    """The kernel. One of its warpgroups runs `_load`, each of the others `_compare`."""

    tiling: Tiling
    patches: int
    slices: int  # of a token's width
    save: bool

    @property
    def visits(self) -> int:
        """Patches that pass: an odd number is filled up with the last one, whose positions leave in pairs."""
        return round_up(self.patches, 2) if self.save else self.patches

    def __call__(self, images, texts, weights, i2t, t2i, *rest) -> None:
        *positions, scratch = rest
        t, group = self.tiling, lax.axis_index("group")

        @pl.when(group < t.groups)
        def _():
            if t.groups > 1:  # on its own a group has all it can use
                plgpu.set_max_registers(232, action="increase")
            self._compare(group, i2t, t2i, positions, scratch)

        @pl.when(group == t.groups)
        def _():
            if t.groups > 1:
                plgpu.set_max_registers(24, action="decrease")
            self._load(images, texts, weights, scratch)

    def _block(self) -> tuple[jax.Array, jax.Array]:
        """The block's first image, and its first group of texts."""
        t = self.tiling
        texts = lax.axis_index("texts") * t.cluster + lax.axis_index("cluster")
        return lax.axis_index("images") * (t.rows * ROWS), texts * t.columns

    def _load(self, images, texts, weights, scratch) -> None:
        t, (image, text) = self.tiling, self._block()
        for column in range(t.columns):
            here = pl.ds((text + column) * t.width, t.width)
            plgpu.copy_gmem_to_smem(weights.at[here], scratch["weights"].at[column], scratch["ready"])
            for k in range(self.slices):
                part = texts.at[here, k * t.depth : (k + 1) * t.depth]
                plgpu.copy_gmem_to_smem(part, scratch["texts"].at[column, k], scratch["ready"])

        def fetch(n, _):
            slot, patch = lax.rem(n, t.stages), jnp.minimum(lax.div(n, self.slices), self.patches - 1)

            @pl.when(n >= t.stages)
            def _():
                plgpu.barrier_wait(scratch["empty"].at[slot])

            for row in range(t.rows):
                part = pl.ds(image + row * ROWS, ROWS), patch, pl.ds(lax.rem(n, self.slices) * t.depth, t.depth)
                plgpu.copy_gmem_to_smem(
                    images.at[part], scratch["images"].at[slot, row], scratch["full"].at[slot],
                    collective_axes="cluster",
                )  # fmt: skip

        last = self.visits * self.slices
        lax.fori_loop(0, last, fetch, None)
        # No block may end while another of its cluster still reports to it.
        lax.fori_loop(
            max(0, last - t.stages), last, lambda n, _: plgpu.barrier_wait(scratch["empty"].at[n % t.stages]), None
        )

    def _products(self, visit, row, column, scratch) -> Float[Array, "ROWS width"]:
        """Of one patch of each image with all tokens, as slice after slice of their width arrives."""
        t = self.tiling

        def run(sums):
            def add(k, _):
                n = visit * self.slices + k
                slot = lax.rem(n, t.stages)
                plgpu.barrier_wait(scratch["full"].at[slot])
                plgpu.wgmma(sums, scratch["images"].at[slot, row], scratch["texts"].at[column, k].transpose((1, 0)))

                @pl.when(k > 0)
                def _():
                    plgpu.wgmma_wait(1)
                    plgpu.barrier_arrive(scratch["empty"].at[lax.rem(n - 1, t.stages)])

            lax.fori_loop(0, self.slices, add, None)
            plgpu.wgmma_wait(0)
            plgpu.barrier_arrive(scratch["empty"].at[lax.rem((visit + 1) * self.slices - 1, t.stages)])
            return sums[...]

        return pl.run_scoped(run, plgpu.WGMMAAccumulatorRef((ROWS, t.width), jnp.float32))

    def _compare(self, group, i2t, t2i, positions, scratch) -> None:
        t, (image, text) = self.tiling, self._block()
        row, column = lax.div(group, t.columns), lax.rem(group, t.columns)
        home = pl.ds((text + column) * t.texts, t.texts), pl.ds(image + row * ROWS, ROWS)
        plgpu.barrier_wait(scratch["ready"])

        def visit(n, carry):
            best, sums, pairs = carry
            products = self._products(n, row, column, scratch)
            counts = jnp.where(n < self.patches, 1.0, 0.0)
            if not self.save:
                tops = [products[:, span].max(axis=1) for span in self._spans]
                return jnp.maximum(best, products), _add(sums, tops, counts), pairs
            bits = _bits(products)
            patch = jnp.minimum(n, self.patches - 1)
            best = jnp.maximum(best, _float((bits & _PRODUCT) | patch))
            tops, tokens = zip(*(self._best_token(bits[:, span]) for span in self._spans), strict=True)
            missing = jnp.where(n < self.patches, 0, _POSITION << 8)
            pairs = tuple(((pair >> 8) & _POSITION) | (q << 8) | missing for pair, q in zip(pairs, tokens, strict=True))
            self._save_pairs(n, pairs, positions[0].at[lax.div(n, 2), *home], scratch["best_token"], group)
            return best, _add(sums, tops, counts), pairs

        best = plgpu.layout_cast(jnp.full((ROWS, t.width), -jnp.inf, jnp.float32), FRAGMENT)
        zeros = [plgpu.layout_cast(jnp.zeros(ROWS, dtype), BY_ROW) for dtype in (jnp.float32, jnp.int32)]
        sums, pairs = (zeros[0],) * t.texts, (zeros[1],) * (t.texts if self.save else 0)
        best, sums, _ = lax.fori_loop(0, self.visits, visit, (best, sums, pairs))
        if self.save:
            bits = _bits(best)
            scratch["best_patch"][group] = (bits & _POSITION).astype(jnp.uint8)
            best = _float(_centered(bits))
        for k, span in enumerate(self._spans):
            weights = plgpu.load(scratch["weights"].at[column, span], layout=BY_COLUMN)
            scratch["scores"][group, 0, k] = sums[k] * (1 / self.patches)
            weighted = best[:, span] * lax.broadcast_in_dim(weights, (ROWS, t.tokens), [1])
            scratch["scores"][group, 1, k] = weighted.sum(axis=1)
        plgpu.commit_smem()
        for k, scores in enumerate((i2t, t2i)):
            plgpu.copy_smem_to_gmem(scratch["scores"].at[group, k], scores.at[home])
        if self.save:
            tokens = positions[1].at[home[1], pl.ds((text + column) * t.width, t.width)]
            plgpu.copy_smem_to_gmem(scratch["best_patch"].at[group], tokens)
        plgpu.wait_smem_to_gmem(0)

    @property
    def _spans(self) -> list[slice]:
        """The columns of each text."""
        tokens = self.tiling.tokens
        return [slice(k * tokens, (k + 1) * tokens) for k in range(self.tiling.texts)]

    def _best_token(self, bits: Int[Array, "ROWS tokens"]) -> tuple[Float[Array, " ROWS"], Int[Array, " ROWS"]]:
        """Each row's best product, and its place."""
        place = plgpu.broadcasted_iota(jnp.int32, bits.shape, 1, layout=FRAGMENT)
        # As (bits & _PRODUCT) | place, but not the operation that the running maximum does to the same bits.
        marked = (bits | _POSITION) ^ (place ^ _POSITION)
        top = _bits(_float(marked).max(axis=1))
        product = top & _PRODUCT
        return _float(jnp.where(product == 0, product, _centered(top))), top & _POSITION

    def _save_pairs(self, n, pairs, home, scratch, group) -> None:
        @pl.when(lax.rem(n, 2) == 1)
        def _():
            slot = lax.rem(lax.div(n, 2), 2)
            plgpu.wait_smem_to_gmem(1, wait_read_only=True)
            for k, pair in enumerate(pairs):
                scratch[group, slot, k] = pair.astype(jnp.int16)
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(scratch.at[group, slot], home)


def _bits(x: Array) -> Array:
    return lax.bitcast_convert_type(x, jnp.int32)


def _float(bits: Array) -> Array:
    return lax.bitcast_convert_type(bits, jnp.float32)


def _centered(bits: Array) -> Array:
    """The middle of what the product may have been."""
    return (bits & _PRODUCT) | (_POSITION + 1) // 2


def _add(sums: tuple[Array, ...], tops: Sequence[Array], counts: Array) -> tuple:
    return tuple(x + counts * top for x, top in zip(sums, tops, strict=True))
