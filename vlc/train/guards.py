"""What an optimizer is wrapped in: a guard against spikes of the gradient, and rates that fall with the depth."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vlc.train.names import names_of

_DECAY = 0.99  # of the running mean of gradient norms
_FIRST = 20  # steps whose norms are only looked at
_BEFORE_BLOCKS = ("embed", "cls", "positions", "registers", "pre_norm")  # of a tower


class SpikeState(NamedTuple):
    """State of `skip_spikes`.

    Attributes:
        inner: Of the optimizer.
        mean: Running mean of the logarithms of gradient norms.
        seen: Steps that entered it.
        skipped: Steps that were left out.
    """

    inner: Any
    mean: jax.Array
    seen: jax.Array
    skipped: jax.Array


def skip_spikes(inner: optax.GradientTransformation, factor: float) -> optax.GradientTransformation:
    """Leaves out a step whose gradient norm is over `factor` times the running (geometric) mean, or not finite.

    Parameters, moments and the mean stay as they were. The first 20 steps are never left out, unless not finite.
    """

    def init(params: Any) -> SpikeState:
        zero = jnp.zeros((), jnp.int32)
        return SpikeState(inner.init(params), jnp.zeros((), jnp.float32), zero, zero)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, SpikeState]:
        norm = jnp.log(jnp.maximum(optax.global_norm(updates).astype(jnp.float32), 1e-30))
        usual = norm - state.mean <= jnp.log(factor)
        good = jnp.isfinite(norm) & (usual | (state.seen < _FIRST))
        updates, changed = inner.update(updates, state.inner, params)
        updates = jax.tree.map(lambda x: jnp.where(good, x, 0), updates)
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), changed, state.inner)
        seen = state.seen + good
        share = jnp.maximum(1 - _DECAY, 1 / jnp.maximum(seen, 1))  # a plain mean at first
        mean = jnp.where(good, state.mean + share * (norm - state.mean), state.mean)
        return updates, SpikeState(kept, mean, seen, state.skipped + ~good)

    return optax.GradientTransformation(init, update)


def skipped_steps(state: Any) -> jax.Array:
    """How many steps a state of an optimizer with `skip_spikes` has left out."""
    found = [leaf for leaf in jax.tree.leaves(state, is_leaf=_is_spikes) if _is_spikes(leaf)]
    return found[0].skipped


def _is_spikes(x: Any) -> bool:
    return isinstance(x, SpikeState)


def scale_by_depth(decay: float) -> optax.GradientTransformation:
    """Updates of the towers times `decay` for each layer above (Bao et al., BEiT, arXiv 2106.08254; EVA-CLIP).

    Of a tower of L blocks, block l (from 0) has `decay^(L-l)` and what lies before the blocks `decay^(L+1)`; heads,
    pooling, the last norm, temperatures and the captioner have 1.
    """

    def apply(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        depth = _depths(params)

        def scale(path: Any, update: jax.Array) -> jax.Array:
            names = names_of(path)
            layers = depth.get(names[0])
            if layers is None:
                return update
            if "blocks" in names:
                powers = decay ** (layers - jnp.arange(layers, dtype=jnp.float32))
                return update * powers.reshape(-1, *[1] * (update.ndim - 1)).astype(update.dtype)
            return update * decay ** (layers + 1) if names[1] in _BEFORE_BLOCKS else update

        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), apply)


def _depths(params: Any) -> dict[str, int]:
    """Blocks of each tower."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = names_of(path)
        if names[0] in ("image_tower", "text_tower") and "blocks" in names:
            found[names[0]] = leaf.shape[0]
    return found
