"""Transformer layers: attention, MLP, and stacks of blocks.

Every parameter names its axes where it is made (`embed`, `mlp`, `heads`, `kv`, `vocab`, `position`, `norm`, and
`layers` for stacked ones); `vlc.parallel.sharding` maps these names to mesh axes in one table.

Parameters are drawn from uniform distributions: a normal one goes through the inverse error function, whose last bit
depends on how an array is split, and a run should start from the same bits on every mesh.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from vlc.models.fused_attention import attention
from vlc.models.linear import linear
from vlc.models.rotary import rotate

# Parameters only carry the names of their axes; the rules are applied once, at the jit boundary. With flax's eager
# sharding a model could not be built outside a mesh, e.g. in a notebook.
flax.config.update("flax_always_shard_variable", False)

BATCH_AXES = ("dcn", "data", "fsdp")  # dcn: slices of a pod, over the data-centre network
REMAT_POLICIES: dict[str, Any] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def batch_axes() -> tuple[str, ...]:
    """The axes of the mesh in force over which a batch is spread; none outside a mesh or inside a `shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(axis for axis in BATCH_AXES if axis in mesh.auto_axes)


def batch_shares(count: int) -> int:
    """Among how many devices of the mesh in force `count` rows are shared; 1 where they cannot be."""
    mesh = jax.sharding.get_abstract_mesh()
    devices = math.prod(mesh.shape[axis] for axis in batch_axes())
    return 1 if count % devices else devices


def tensor_axes(heads: int) -> tuple[str, ...]:
    """The axis of the mesh in force over which heads are spread; none where they are not."""
    mesh = jax.sharding.get_abstract_mesh()
    return ("tensor",) if "tensor" in mesh.auto_axes and heads % mesh.shape["tensor"] == 0 else ()


def shard_batch(x: Array) -> Array:
    """Keeps the leading (batch) axis spread over the data axes of the mesh in force; elsewhere does nothing.

    Without it XLA moves activations between layouts at will.
    """
    axes = batch_axes()
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes)) if axes else x


def layer_norm(width: int, *, eps: float = 1e-6, dtype: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation; its statistics are computed in float32."""
    names = {"out_sharding": ("norm",)}
    return nnx.LayerNorm(
        width, epsilon=eps, dtype=dtype, rngs=rngs, scale_metadata=names, bias_metadata=names, use_fast_variance=False
    )


def rms_norm(width: int, *, eps: float = 1e-6, dtype: Any, rngs: nnx.Rngs) -> nnx.RMSNorm:
    """Division by the root mean square, and a scale (Zhang & Sennrich, NeurIPS 2019, arXiv 1910.07467)."""
    return nnx.RMSNorm(
        width, epsilon=eps, dtype=dtype, rngs=rngs, scale_metadata={"out_sharding": ("norm",)}, use_fast_variance=False
    )


NORMS: dict[str, Callable[..., Any]] = {"layer": layer_norm, "rms": rms_norm}


def norm_of(config: Any, *, dtype: Any, rngs: nnx.Rngs) -> Any:
    """A norm as a tower's config wants it."""
    return NORMS[config.norm](config.width, eps=config.eps, dtype=dtype, rngs=rngs)


def table(rows: int, width: int, axes: tuple[str, str], *, rngs: nnx.Rngs, scale: float = 0.02) -> nnx.Param:
    """A learned table `[rows, width]`, of standard deviation `scale`: embeddings, positions, queries."""
    limit = math.sqrt(3) * scale
    made = jax.random.uniform(rngs.params(), (rows, width), jnp.float32, -limit, limit)
    return nnx.Param(made, out_sharding=axes)


class KeyValue(NamedTuple):
    """Keys and values `[N, H, M, W/H]` of a sequence, laid out so that a few queries read them fast."""

    keys: Array
    values: Array


class Attention(nnx.Module):
    """Multi-head attention, of a sequence to itself or to a memory.

    With `qk_norm` the queries and keys of each head are normalised, so that its logits cannot grow without bound
    (Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters", arXiv 2302.05442, section 2).
    """

    def __init__(
        self, width: int, heads: int, *, memory_width: int | None = None, qk_norm: bool = False, dtype: Any,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        head, self.kernel = width // heads, "xla"
        make = functools.partial(linear, dtype=dtype, rngs=rngs)
        self.query = make(width, (heads, head), ("embed", "heads", "kv"))
        self.key_value = make(memory_width or width, (2, heads, head), ("embed", "pair", "heads", "kv"))
        self.out = make((heads, head), width, ("heads", "kv", "embed"))
        self.query_norm = layer_norm(head, dtype=dtype, rngs=rngs) if qk_norm else None
        self.key_norm = layer_norm(head, dtype=dtype, rngs=rngs) if qk_norm else None

    def project(self, memory: Float[Array, "N M W"]) -> tuple[Array, Array]:
        """Keys and values `[N, M, H, W/H]` of a memory."""
        both = self.key_value(memory)
        keys, values = both[:, :, 0], both[:, :, 1]
        return keys if self.key_norm is None else self.key_norm(keys), values

    def queries(self, x: Float[Array, "N T W"]) -> Float[Array, "N T H _"]:
        """What the positions of a sequence ask for."""
        queries = self.query(x)
        return queries if self.query_norm is None else self.query_norm(queries)

    def attend(
        self, x: Float[Array, "N T W"], keys: Array, values: Array, mask: Bool[Array, "..."] | None = None,
        *, causal: bool = False, angles: Float[Array, "T _"] | None = None,
    ) -> Float[Array, "N T W"]:  # fmt: skip
        """Attends to given keys and values.

        Args:
            x: The sequence that asks.
            keys: Of the memory.
            values: Of the memory.
            mask: `[N or 1, 1, T or 1, M]`, true where attention may go.
            causal: Whether a position sees none after it.
            angles: By which queries are turned (`vlc.models.rotary`).
        """
        queries = self.queries(x)
        queries = queries if angles is None else rotate(queries, angles)
        axes = batch_axes() if batch_shares(len(x)) > 1 else (), tensor_axes(queries.shape[2])
        return self.out(attention(queries, keys, values, mask, causal=causal, kernel=self.kernel, axes=axes))

    def __call__(
        self, x: Float[Array, "N T W"], mask: Bool[Array, "..."] | None = None, *, causal: bool = False,
        angles: Float[Array, "T _"] | None = None,
    ) -> Float[Array, "N T W"]:  # fmt: skip
        keys, values = self.project(x)
        keys = keys if angles is None else rotate(keys, angles)
        return self.attend(x, keys, values, mask, causal=causal, angles=angles)

    # -- for decoding: keys and values are kept

    def project_cached(self, memory: Float[Array, "N M W"]) -> KeyValue:
        """The keys and values of a memory, to be attended to many times."""
        return KeyValue(*(x.swapaxes(1, 2) for x in self.project(memory)))

    def attend_cached(self, x: Float[Array, "N T W"], kept: KeyValue, seen: Bool[Array, "..."] | None = None) -> Array:
        """As `attend`, from a few positions to cached keys and values."""
        query = self.queries(x)
        alone = x.shape[1] == 1  # without the axis of positions XLA:CPU takes two thirds of the time
        if alone:
            scores = jnp.einsum("nhd,nhmd->nhm", query[:, 0], kept.keys)[:, :, None]
        else:
            scores = jnp.einsum("nthd,nhmd->nhtm", query, kept.keys)
        scores = scores.astype(jnp.float32) / math.sqrt(query.shape[-1])
        share = jax.nn.softmax(scores if seen is None else jnp.where(seen, scores, -jnp.inf), axis=-1)
        share = share.astype(kept.values.dtype)
        if alone:
            return self.out(jnp.einsum("nhm,nhmd->nhd", share[:, :, 0], kept.values)[:, None])
        return self.out(jnp.einsum("nhtm,nhmd->nthd", share, kept.values))

    def extend(self, x: Float[Array, "N T W"], cache: KeyValue, position: Int[Array, ""]) -> tuple[Array, KeyValue]:
        """Causal attention of the positions from `position` on, and the cache with them in it."""
        new = self.project_cached(x)
        cache = KeyValue(
            *(jax.lax.dynamic_update_slice_in_dim(a, b, position, axis=2) for a, b in zip(cache, new, strict=True))
        )
        seen = jnp.arange(cache.keys.shape[2]) <= position + jnp.arange(x.shape[1])[:, None]
        return self.attend_cached(x, cache, seen), cache

    def empty_cache(self, rows: int, length: int) -> KeyValue:
        """A cache for `length` positions, still empty."""
        heads, head = self.query.out_features
        return KeyValue(*(jnp.zeros((rows, heads, length, head), self.query.dtype) for _ in range(2)))

    def zero_memory(self) -> Float[Array, "1 1 W"]:
        """One token of a null image."""
        return jnp.zeros((1, 1, *self.key_value.in_features), self.query.dtype)


def _quick_gelu(x: Array) -> Array:
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": _quick_gelu,  # of OpenAI's CLIP
}


GATED = "swiglu"  # a product of two linear maps, one through x sigmoid(x) (Shazeer, arXiv 2002.05202)


class Mlp(nnx.Module):
    """Two linear maps with an activation, one of `ACTIVATIONS` or `GATED`, between."""

    def __init__(self, width: int, hidden: int, *, activation: str = "gelu_tanh", dtype: Any, rngs: nnx.Rngs):
        self.gated = activation == GATED
        self.up = (
            linear(width, (2, hidden), ("embed", "pair", "mlp"), dtype=dtype, rngs=rngs)
            if self.gated
            else linear(width, hidden, ("embed", "mlp"), dtype=dtype, rngs=rngs)
        )
        self.down = linear(hidden, width, ("mlp", "embed"), dtype=dtype, rngs=rngs)
        self.activation = activation

    def __call__(self, x: Float[Array, "N T W"]) -> Float[Array, "N T W"]:
        x = self.up(x)
        if self.gated:
            return self.down(jax.nn.silu(x[..., 0, :]) * x[..., 1, :])
        return self.down(ACTIVATIONS[self.activation](x))


def attention_of(config: Any, *, dtype: Any, rngs: nnx.Rngs) -> Attention:
    """Attention as a tower's config wants it."""
    return Attention(config.width, config.heads, qk_norm=config.qk_norm, dtype=dtype, rngs=rngs)


def set_kernel(model: nnx.Module, kernel: str) -> None:
    """Has all attention of a model computed by one of `fused_attention.KERNELS`."""
    for _, part in nnx.iter_graph(model):
        if isinstance(part, Attention):
            part.kernel = kernel


def mlp_of(config: Any, *, dtype: Any, rngs: nnx.Rngs) -> Mlp:
    """An MLP as a tower's config wants it."""
    return Mlp(config.width, hidden_width(config), activation=config.activation, dtype=dtype, rngs=rngs)


def hidden_width(config: Any) -> int:
    """Hidden units of the MLPs of a tower."""
    return round(config.width * config.mlp_ratio)


class Block(nnx.Module):
    """Transformer block: self-attention and MLP, each normalised before, or after where `post_norm` (BERT)."""

    def __init__(self, config: Any, *, post_norm: bool = False, dtype: Any, rngs: nnx.Rngs):
        common = {"dtype": dtype, "rngs": rngs}
        self.norm1 = norm_of(config, **common)
        self.attention = attention_of(config, **common)
        self.norm2 = norm_of(config, **common)
        self.mlp = mlp_of(config, **common)
        self.post_norm = post_norm

    def __call__(
        self, x: Float[Array, "N T W"], mask: Bool[Array, "..."] | None = None, *, causal: bool = False,
        angles: Float[Array, "T _"] | None = None,
    ) -> Float[Array, "N T W"]:  # fmt: skip
        if self.post_norm:
            x = self.norm1(x + self.attention(x, mask, causal=causal, angles=angles))
            return shard_batch(self.norm2(x + self.mlp(x)))
        x = x + self.attention(self.norm1(x), mask, causal=causal, angles=angles)
        return shard_batch(x + self.mlp(self.norm2(x)))

    def step(self, x: Float[Array, "N T W"], cache: KeyValue, position: Int[Array, ""]) -> tuple[Array, KeyValue]:
        """The next positions of a causal pre-norm block, from `position` on, and the cache with them in it."""
        mixed, cache = self.attention.extend(self.norm1(x), cache, position)
        x = x + mixed
        return x + self.mlp(self.norm2(x)), cache


def _behind_barrier(body: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The same, with a carry that is computed once, not again by whatever reads it."""

    def behind_barrier(carry: Any, item: Any) -> tuple[Any, Any]:
        carry, output = body(carry, item)
        return jax.lax.optimization_barrier(carry), output

    return behind_barrier


class Stack(nnx.Module):
    """Blocks with stacked parameters `[layers, ...]`, run as a loop or unrolled.

    The parameters are the same either way, so a checkpoint does not depend on `scan` or `remat`.
    """

    def __init__(
        self, make_block: Callable[[nnx.Rngs], nnx.Module], layers: int, *, scan: bool, remat: str, rngs: nnx.Rngs
    ):
        make = nnx.vmap(make_block, in_axes=(0,), out_axes=0, transform_metadata={nnx.PARTITION_NAME: "layers"})
        self.blocks = nnx.split_rngs(splits=layers)(make)(rngs)
        self.layers = layers
        self.scan = scan
        self.remat = remat

    def run(self, body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, *per_layer: Any) -> tuple[Any, Any]:
        """`lax.scan` of `body(carry, (block, *per_layer))` over the layers.

        Unrolled layers pass their result through a barrier. Without it XLA for the CPU computes the whole chain of
        residual additions again in every reader, so that a step grows with the square of the depth.
        """
        if not self.scan:
            body = _behind_barrier(body)
        if self.remat != "none":
            body = jax.checkpoint(body, policy=REMAT_POLICIES[self.remat], prevent_cse=not self.scan)
        return jax.lax.scan(body, carry, (self.blocks, *per_layer), unroll=1 if self.scan else self.layers)

    def unstack(self) -> list[Any]:
        """The blocks as a list. Unstacked before a loop, their parameters are not sliced again in each iteration."""
        return [jax.tree.map(lambda x, i=i: x[i], self.blocks) for i in range(self.layers)]

    def __call__(self, x: Array, **kwargs: Any) -> Array:
        return self.run(lambda x, item: (item[0](x, **kwargs), None), x)[0]


def l2_normalise(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Rows of unit length, in float32; a zero row stays zero and its gradient finite."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
