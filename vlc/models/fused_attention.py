"""Attention that never holds all products of queries and keys: cuDNN's on GPUs, JAX's splash kernels on TPUs.

Both are JAX's own. They save memory and its traffic where sequences are long; on another platform, and where a kernel
does not take the arguments, XLA's attention does the same. What they save was counted by the compilers, not timed
(`benchmarks/attention.py`).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from vlc.models.platform import platform_in_use

KERNELS = ("xla", "cudnn", "splash")
_LANES = 128  # splash takes whole multiples of it
_BLOCKS = (512, 384, 256, 128)


def attention(
    queries: Float[Array, "N T H D"],
    keys: Float[Array, "N M H D"],
    values: Float[Array, "N M H D"],
    mask: Bool[Array, "..."] | None,
    *,
    causal: bool,
    kernel: str,
    axes: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
) -> Float[Array, "N T H D"]:
    """Softmax attention, scaled by 1 / sqrt(D).

    Args:
        queries: `[N, T, H, D]`.
        keys: `[N, M, H, D]`.
        values: `[N, M, H, D]`.
        mask: `[N or 1, 1, T or 1, M]`, true where attention may go.
        causal: Whether a position sees none after it.
        kernel: One of `KERNELS`, which is taken where it can be.
        axes: Axes of the mesh in force over which N and H are spread.
    """
    platform = platform_in_use()
    if kernel == "cudnn" and platform == "gpu" and _fits_cudnn(queries, keys, mask):
        if mask is not None:  # of which it broadcasts rows and heads alone
            mask = jnp.broadcast_to(mask, (*mask.shape[:2], queries.shape[1], keys.shape[1]))
        return jax.nn.dot_product_attention(queries, keys, values, mask=mask, is_causal=causal, implementation="cudnn")
    if kernel == "splash" and platform == "tpu" and _fits_splash(queries, mask):
        return _spread(queries, keys, values, mask, causal, axes)
    return jax.nn.dot_product_attention(queries, keys, values, mask=mask, is_causal=causal)


def _fits_cudnn(queries: Array, keys: Array, mask: Any) -> bool:
    """It takes 16 bits, heads of a multiple of 8, more than one query, and with a mask even lengths."""
    if queries.shape[1] == 1:
        return False
    even = queries.shape[1] % 2 == keys.shape[1] % 2 == 0
    return queries.dtype in (jnp.bfloat16, jnp.float16) and queries.shape[3] % 8 == 0 and (mask is None or even)


def _fits_splash(queries: Array, mask: Any) -> bool:
    """It takes masks of keys, alike for all queries; and it is made for more of these than a tile."""
    return queries.shape[1] > _LANES and (mask is None or mask.shape[1:3] == (1, 1))


def _spread(
    queries: Array, keys: Array, values: Array, mask: Any, causal: bool, axes: tuple[tuple[str, ...], tuple[str, ...]]
) -> Array:
    """Each device with its rows and heads: a kernel cannot be partitioned by XLA."""
    rows, heads = axes
    there = None if mask is None else jnp.broadcast_to(mask[:, 0, 0], (len(keys), keys.shape[1]))
    if not rows and not heads:
        return splash(queries, keys, values, there, causal=causal)
    split = PartitionSpec(rows or None, None, heads or None)
    run = functools.partial(splash, causal=causal)
    if there is None:
        run = jax.shard_map(lambda q, k, v: splash(q, k, v, None, causal=causal), in_specs=(split,) * 3,
                            out_specs=split, check_vma=False)  # fmt: skip
        return run(queries, keys, values)
    specs = (split, split, split, PartitionSpec(rows or None))
    return jax.shard_map(run, in_specs=specs, out_specs=split, check_vma=False)(queries, keys, values, there)


def splash(
    queries: Float[Array, "N T H D"], keys: Float[Array, "N M H D"], values: Float[Array, "N M H D"],
    there: Bool[Array, "N M"] | None, *, causal: bool = False, interpret: bool = False,
) -> Float[Array, "N T H D"]:  # fmt: skip
    """JAX's splash attention of self-attending sequences of any length.

    Args:
        queries: `[N, T, H, D]`.
        keys: `[N, M, H, D]`.
        values: `[N, M, H, D]`.
        there: Which keys there are; `None`: all. Every row needs one.
        causal: Whether a position sees none after it.
        interpret: Run the kernels in the interpreter, on any platform.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels  # slow to import
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    (rows, length, heads, head), seen = queries.shape, keys.shape[1]
    most = (_whole(length), _whole(seen))
    shape = masks.CausalMask(most) if causal else masks.FullMask(most)
    run = kernels.make_splash_mha(
        masks.MultiHeadMask([shape] * heads), block_sizes=_block_sizes(kernels, *most), head_shards=1, q_seq_shards=1,
        interpret=interpret,
    )  # fmt: skip
    there = jnp.ones((rows, seen), bool) if there is None else there
    there = jnp.pad(there, ((0, 0), (0, most[1] - seen))).astype(jnp.int32)
    asking = jnp.ones((rows, most[0]), jnp.int32)

    def heads_first(x: Array, to: int) -> Array:
        return jnp.pad(x, ((0, 0), (0, to - x.shape[1]), (0, 0), (0, 0))).swapaxes(1, 2)

    scaled = (queries * (1 / math.sqrt(head))).astype(queries.dtype)
    inputs = heads_first(scaled, most[0]), heads_first(keys, most[1]), heads_first(values, most[1])
    mixed: Any = jax.vmap(run)(*inputs, kernels.SegmentIds(asking, there))
    return mixed.swapaxes(1, 2)[:, :length].astype(queries.dtype)


def _whole(length: int) -> int:
    return -(-length // _LANES) * _LANES


def _block_sizes(kernels: Any, queries: int, keys: int) -> Any:
    """As large as divides the lengths."""
    q, kv = (next(block for block in _BLOCKS if length % block == 0) for length in (queries, keys))
    return kernels.BlockSizes(
        block_q=q, block_kv=kv, block_kv_compute=kv, block_q_dkv=q, block_kv_dkv=kv, block_kv_dkv_compute=kv,
        block_q_dq=q, block_kv_dq=kv,
    )  # fmt: skip
