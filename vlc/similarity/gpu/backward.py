"""Backward kernel for Hopper: a gradient as a product with one-hot matrices that exist in registers only.

The gradient of row token s (a patch of each image, or a token of each text) sums over the column tokens t of the other
side, 64 columns at a time:

    F [64 rows, 64 columns] = by_near [t is what row token s likes best] + by_far [s is what column token t likes best]
    gradient [64 rows, D] += F x (token t of the columns)

The positions are small whole numbers, which bfloat16 holds exactly, so `x == y` is `max(0, 1 - (x - y)^2)`: two
instructions for two elements, in the very registers that the matrix instruction reads F from. The two warpgroups that
multiply have a row token each; while one makes F, the other multiplies. Pairs of blocks receive the column tokens
together.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from vlc.models.platform import platform_in_use
from vlc.similarity.gpu.forward import FRAGMENT, ROWS, SHARED_BYTES, TILE, in_tiles

_GROUPS = 2  # that multiply, each with a row token of its own
_CLUSTER = 2  # blocks that receive the column tokens together
_SLOTS = 2  # blocks of columns on chip: one in use, one arriving


def gradient_of_rows(
    near: Float[Array, "S R C"],
    far: Float[Array, "T R C"],
    by_near: Float[Array, "R C"],
    by_far: Float[Array, "R C"],
    columns: Float[Array, "C T D"],
    dtype: Any,
) -> Float[Array, "R S D"]:
    """The gradient of the row side's tokens.

    Args:
        near: For each token of a row, the number of its best token in a column.
        far: For each token of a column, the number of its best token in a row; a number over 256 matches none.
        by_near: Gradient of the products that `near` names.
        by_far: Gradient of the products that `far` names.
        columns: The tokens of the other side. All are bfloat16; R, C and D are multiples of 64, and D over 256 of 128.
        dtype: Of the result.
    """
    (tokens, rows, _), (count, column_tokens, depth) = near.shape, columns.shape
    kernel = _Backward(tokens, column_tokens, count // ROWS, _part_of(depth), jnp.dtype(dtype))
    square = (ROWS, ROWS)
    scratch = {
        "columns": plgpu.SMEM((kernel.stages, ROWS, kernel.part), columns.dtype, transforms=in_tiles(TILE)),
        "far": plgpu.SMEM((kernel.stages, *square), far.dtype, transforms=in_tiles(TILE)),
        "near": plgpu.SMEM((_SLOTS, _GROUPS, *square), near.dtype, transforms=in_tiles(TILE)),
        "by_near": plgpu.SMEM((_SLOTS, *square), by_near.dtype, transforms=in_tiles(TILE)),
        "by_far": plgpu.SMEM((_SLOTS, *square), by_far.dtype, transforms=in_tiles(TILE)),
        "result": plgpu.SMEM((_GROUPS, ROWS, kernel.wide), dtype, transforms=in_tiles(kernel.wide)),
        "full": plgpu.Barrier(num_arrivals=2, num_barriers=kernel.stages),
        "empty": plgpu.ClusterBarrier(
            collective_axes=("cluster",), num_arrivals=_GROUPS, num_barriers=kernel.stages
        ),
        "block_full": plgpu.Barrier(num_arrivals=_GROUPS + 2, num_barriers=_SLOTS),
        "block_empty": plgpu.Barrier(num_arrivals=_GROUPS, num_barriers=_SLOTS),
    }  # fmt: skip
    if platform_in_use() != "gpu":  # the interpreter cannot multiply from registers
        scratch["flow"] = plgpu.SMEM((_GROUPS, *square), columns.dtype, transforms=in_tiles(TILE))
    call = plgpu.kernel(
        kernel,
        out_type=jax.ShapeDtypeStruct((rows, tokens, depth), dtype),
        grid=(rows // ROWS, depth // kernel.part, -(-tokens // (_GROUPS * _CLUSTER))),
        grid_names=("rows", "parts", "tokens"),
        cluster=(_CLUSTER,),
        cluster_names=("cluster",),
        num_threads=_GROUPS + 1,
        thread_name="group",
        scratch_types=[scratch],
        compiler_params=plgpu.CompilerParams(approx_math=True),
    )
    return call(near, far, by_near, by_far, columns)


def _part_of(depth: int) -> int:
    """How much of a token's width a block sums up: what the registers hold."""
    return depth if depth <= 256 else next(part for part in (256, 192, 128) if depth % part == 0)


@dataclasses.dataclass(frozen=True)
class _Backward:
    """The kernel. One of its warpgroups runs `_load`, each of the others `_multiply`."""

    row_tokens: int
    column_tokens: int
    blocks: int  # of 64 columns
    part: int
    dtype: Any

    @property
    def stages(self) -> int:
        square = 2 * ROWS * ROWS
        blocks = _SLOTS * (_GROUPS + 2) * square
        room = SHARED_BYTES - blocks - 2 * _GROUPS * square  # with the result, and the interpreter's copy
        return min(6, room // (2 * ROWS * self.part + square), self.blocks * self.column_tokens)

    @property
    def wide(self) -> int:
        """Columns of the result that leave at once: 128 bytes."""
        return 128 // self.dtype.itemsize

    def __call__(self, near, far, by_near, by_far, columns, result, scratch) -> None:
        group = lax.axis_index("group")

        @pl.when(group < _GROUPS)
        def _():
            plgpu.set_max_registers(232, action="increase")
            self._multiply(group, result, scratch)

        @pl.when(group == _GROUPS)
        def _():
            plgpu.set_max_registers(24, action="decrease")
            self._load(near, far, by_near, by_far, columns, scratch)

    def _first_token(self) -> Array:
        return (lax.axis_index("tokens") * _CLUSTER + lax.axis_index("cluster")) * _GROUPS

    def _load(self, near, far, by_near, by_far, columns, scratch) -> None:
        rows, part = pl.ds(lax.axis_index("rows") * ROWS, ROWS), pl.ds(lax.axis_index("parts") * self.part, self.part)

        def block(b, _):
            slot, here = lax.rem(b, _SLOTS), pl.ds(b * ROWS, ROWS)
            full = scratch["block_full"].at[slot]

            @pl.when(b >= _SLOTS)
            def _():
                plgpu.barrier_wait(scratch["block_empty"].at[slot])

            for group in range(_GROUPS):
                token = jnp.minimum(self._first_token() + group, self.row_tokens - 1)
                plgpu.copy_gmem_to_smem(near.at[token, rows, here], scratch["near"].at[slot, group], full)
            plgpu.copy_gmem_to_smem(by_near.at[rows, here], scratch["by_near"].at[slot], full)
            plgpu.copy_gmem_to_smem(by_far.at[rows, here], scratch["by_far"].at[slot], full)

            def fetch(t, _):
                n = b * self.column_tokens + t
                slot = lax.rem(n, self.stages)
                full = scratch["full"].at[slot]

                @pl.when(n >= self.stages)
                def _():
                    plgpu.barrier_wait(scratch["empty"].at[slot])

                plgpu.copy_gmem_to_smem(
                    columns.at[here, t, part], scratch["columns"].at[slot], full, collective_axes="cluster"
                )
                plgpu.copy_gmem_to_smem(
                    far.at[t, rows, here], scratch["far"].at[slot], full, collective_axes="cluster"
                )  # fmt: skip

            lax.fori_loop(0, self.column_tokens, fetch, None)

        lax.fori_loop(0, self.blocks, block, None)
        last = self.blocks * self.column_tokens
        lax.fori_loop(
            last - self.stages, last, lambda n, _: plgpu.barrier_wait(scratch["empty"].at[n % self.stages]), None
        )
        for b in range(max(0, self.blocks - _SLOTS), self.blocks):
            plgpu.barrier_wait(scratch["block_empty"].at[b % _SLOTS])

    def _multiply(self, group, result, scratch) -> None:
        token = self._first_token() + group

        def run(sums):
            def block(b, _):
                place = lax.rem(b, _SLOTS)
                plgpu.barrier_wait(scratch["block_full"].at[place])

                def add(t, _):
                    slot = lax.rem(b * self.column_tokens + t, self.stages)
                    plgpu.barrier_wait(scratch["full"].at[slot])
                    flow = _held(scratch["by_near"].at[place]) * equals(_held(scratch["near"].at[place, group]), t)
                    flow += _held(scratch["by_far"].at[place]) * equals(_held(scratch["far"].at[slot]), token)
                    if "flow" in scratch:
                        scratch["flow"][group] = flow
                        plgpu.commit_smem()
                        flow = scratch["flow"].at[group]
                    plgpu.wgmma(sums, flow, scratch["columns"].at[slot])
                    # The registers of F must not be written while the product still reads them.
                    plgpu.wgmma_wait(0)
                    plgpu.barrier_arrive(scratch["empty"].at[slot])

                lax.fori_loop(0, self.column_tokens, add, None)
                plgpu.barrier_arrive(scratch["block_empty"].at[place])

            lax.fori_loop(0, self.blocks, block, None)
            return sums[...]

        sums = pl.run_scoped(run, plgpu.WGMMAAccumulatorRef((ROWS, self.part), jnp.float32))

        @pl.when(token < self.row_tokens)
        def _():
            home = scratch["result"].at[group]
            for start in range(0, self.part, self.wide):
                plgpu.wait_smem_to_gmem(0, wait_read_only=True)
                home[...] = sums[:, start : start + self.wide].astype(self.dtype)
                plgpu.commit_smem()
                columns = pl.ds(lax.axis_index("parts") * self.part + start, self.wide)
                there = result.at[pl.ds(lax.axis_index("rows") * ROWS, ROWS), token, columns]
                plgpu.copy_smem_to_gmem(home, there)
            plgpu.wait_smem_to_gmem(0)


def equals(positions: Array, number: Array) -> Array:
    """1 where a position (0 to 255, or 512 for none) is the number, else 0, in the positions' bfloat16."""
    away = positions - number.astype(positions.dtype)
    return jnp.maximum(1 - away * away, jnp.zeros((), positions.dtype))


def _held(tile) -> Array:
    """A tile of shared memory, as the threads of a matrix instruction hold it."""
    return plgpu.load(tile, layout=FRAGMENT)
