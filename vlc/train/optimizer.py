"""Optimizers and schedules: AdamW and LAMB with warm-up, clipping, and weight decay on matrices only."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from vlc.config import SCHEDULE_FREE, Config
from vlc.objectives import parts_used
from vlc.train.frozen import with_frozen
from vlc.train.guards import scale_by_depth, skip_spikes
from vlc.train.muon import scale_by_muon_or
from vlc.train.names import names_of

_ADAFACTOR_POWER = 0.8  # the second moment forgets by 1 - step ** -0.8
_FACTORED = 32  # sides of a matrix, at the least, for which rows and columns are kept alone
# Parameters whose updates LAMB does not scale, by the last part of their names.
_UNSCALED = ("bias", "scale", "log_scale", "token_log_scale", "logit_bias")


def make_schedule(config: Config, steps: int) -> optax.Schedule:
    """Linear warm-up to the peak, then cosine or linear decay to 0, or constant.

    Args:
        config: `config.optimizer`.
        steps: Of the whole run.
    """
    warmup = min(config.warmup_steps, steps)
    rest = max(steps - warmup, 1)
    after = {
        "cosine": optax.cosine_decay_schedule(config.lr, rest),
        "linear": optax.linear_schedule(config.lr, 0.0, rest),
        "constant": optax.constant_schedule(config.lr),
    }[config.schedule]
    return optax.join_schedules([optax.linear_schedule(0.0, config.lr, warmup), after], [warmup])


def updates_of(config: Config) -> int:
    """Updates of the parameters in a step of a run: several, where captions that were written are learnt from again."""
    return config.reward.updates if "written" in parts_used(config.objectives) else 1


def make_optimizer(config: Config, steps: int, *, lora: bool = False) -> optax.GradientTransformation:
    """The gradient transformation of `config.optimizer`. Frozen parameters stay as they are, and have no state.

    Args:
        config: `config.optimizer`.
        steps: Of the whole run.
        lora: Whether the model has LoRA, so that all else stays.
    """
    trained = _make_trained(config, steps)
    if lora or config.frozen or config.trained:
        trained = with_frozen(trained, config)
    return skip_spikes(trained, config.skip_spikes) if config.skip_spikes else trained


def _make_trained(config: Config, steps: int) -> optax.GradientTransformation:
    chain = _make_chain(config, steps)
    if config.name != SCHEDULE_FREE:
        return chain
    return optax.contrib.schedule_free(chain, make_schedule(config, steps), b1=config.b1)


def averaged(state: Any, params: Any) -> Any:
    """The parameters that schedule-free AdamW is evaluated with (Defazio et al., NeurIPS 2024, arXiv 2405.15682, eq. 1
    to 3): the weighted mean of all its steps, found again from the two sequences that it keeps."""
    found = next(node for node in jax.tree.leaves(state, is_leaf=_is_schedule_free) if _is_schedule_free(node))
    return optax.contrib.schedule_free_eval_params(found, params)


def restarted(state: Any, params: Any) -> Any:
    """The state of a fresh optimizer for parameters that are not those it was made for."""
    return jax.tree.map(
        lambda node: node._replace(z=jax.tree.map(jnp.copy, params)) if _is_schedule_free(node) else node,
        state, is_leaf=_is_schedule_free,
    )  # fmt: skip


def _is_schedule_free(node: Any) -> bool:
    return isinstance(node, optax.contrib.ScheduleFreeState)


def _make_chain(config: Config, steps: int) -> optax.GradientTransformation:
    # The identity keeps the structure of the state, so that a run can be resumed with clipping turned on or off.
    parts = [clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()]
    parts.append(_make_rule(config))
    parts.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
    if config.name == "lamb":
        parts.append(scale_by_layer_trust_ratio())
    if config.layer_decay < 1:
        parts.append(scale_by_depth(config.layer_decay))
    parts.append(optax.scale_by_learning_rate(make_schedule(config, steps)))
    return optax.chain(*parts)


def _make_rule(config: Config) -> optax.GradientTransformation:
    """What the optimizer makes of a gradient, before decay and learning rate."""
    if config.name == "lion":
        return optax.scale_by_lion(b1=config.b1, b2=config.b2, mu_dtype=config.moment_dtype)
    if config.name == "adafactor":
        return scale_by_adafactor(config)
    b1 = 0.0 if config.name == SCHEDULE_FREE else config.b1  # whose average takes the place of the first moment
    adam = optax.scale_by_adam(b1=b1, b2=config.b2, eps=config.eps, mu_dtype=config.moment_dtype)
    return scale_by_muon_or(adam, config.moment_dtype) if config.name == "muon" else adam


def scale_by_adafactor(config: Config) -> optax.GradientTransformation:
    """Adafactor (Shazeer & Stern, ICML 2018, arXiv 1804.04235) as vision transformers are trained with it (Zhai et al.,
    CVPR 2022, arXiv 2106.04560, section 3.4): the second moment of a matrix is kept as that of its rows and columns
    with a decay of at most `b2`, each update is clipped to a root mean square of 1, and there is a first moment in
    `moment_dtype`. Learning rates are those of AdamW.
    """
    return optax.chain(
        optax.scale_by_factored_rms(
            decay_rate=_ADAFACTOR_POWER,
            min_dim_size_to_factor=_FACTORED,
            decay_rate_fn=lambda step, power: jnp.minimum(
                1 - jnp.power(jnp.asarray(step) + 1.0, -jnp.asarray(power)), config.b2
            ),
        ),
        optax.clip_by_block_rms(1.0),
        optax.ema(config.b1, debias=False, accumulator_dtype=config.moment_dtype),
    )


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scales all gradients down by one factor where their global norm is above the limit.

    As optax's, but a factor for all in place of a division for each element: XLA fuses the product into what reads it,
    which a division it does not. That saves a pass over the gradients, and their kernels' compilation.
    """

    def apply(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factor = jnp.minimum(1.0, limit / optax.global_norm(updates))
        return jax.tree.map(lambda update: update * factor, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), apply)


def decayed(params: Any) -> Any:
    """True for the kernels of linear maps; biases, norms, embeddings, positions and temperatures do not decay."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in names_of(path), params)


def scale_by_layer_trust_ratio() -> optax.GradientTransformation:
    """LAMB's trust ratio |w| / |update| (You et al., ICLR 2020, arXiv 1904.00962, algorithm 2), layer by layer.

    Blocks are stored stacked, `[layers, ...]`; each layer has a ratio of its own, as if it stood alone. Biases, norms
    and temperatures have none, as in LAMB's own code: a temperature that starts at log(1) = 0 has no length that its
    updates could be scaled to, and would never leave it.
    """

    def scale(path: Any, update: jax.Array, param: jax.Array) -> jax.Array:
        if next(name for name in reversed(names_of(path)) if name != "value") in _UNSCALED:
            return update
        axes = tuple(range(1 if "blocks" in names_of(path) else 0, param.ndim))
        weight = jnp.sqrt(jnp.sum(param**2, axis=axes, keepdims=True))
        step = jnp.sqrt(jnp.sum(update**2, axis=axes, keepdims=True))
        return update * jnp.where((weight > 0) & (step > 0), weight / jnp.where(step > 0, step, 1), 1)

    def apply(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree_util.tree_map_with_path(scale, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), apply)
