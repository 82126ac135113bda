"""The train state: parameters, optimizer, moving average and step, born where they will live."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vlc.config import Config, has_average
from vlc.models import DualEncoder
from vlc.objectives.policy import baseline_of, needs_first

State = dict[str, Any]  # params, opt, step; where configured ema, reference (of rewards) and rewards (their mean)


def build_model(config: Config, vocab_size: int, key: jax.Array) -> DualEncoder:
    """A model with fresh parameters; `config` must be resolved (`vlc.config.resolve_auto`)."""
    return DualEncoder(config.model, image=config.data.image, vocab_size=vocab_size, rngs=nnx.Rngs(key))


def make_graph(config: Config, vocab_size: int) -> nnx.GraphDef[DualEncoder]:
    """The model's structure, without computing any parameter."""
    return nnx.graphdef(nnx.eval_shape(lambda: build_model(config, vocab_size, jax.random.key(0))))


def init_state(config: Config, vocab_size: int, optimizer: optax.GradientTransformation, key: jax.Array) -> State:
    """A fresh state; run it under `jit` with shardings, so that no device ever holds what is not its own."""
    params = nnx.state(build_model(config, vocab_size, key), nnx.Param)
    state = {"params": params, "opt": optimizer.init(params), "step": jnp.zeros((), jnp.int32)}
    if has_average(config.optimizer):
        state["ema"] = jax.tree.map(jnp.copy, params)
    if needs_first(config.objectives):
        state["reference"] = jax.tree.map(jnp.copy, params)
    if baseline_of(config.objectives) == "running":
        state["rewards"] = {"mean": jnp.zeros(()), "weight": jnp.zeros(())}
    return state


def eval_params(state: State) -> Any:
    """The parameters to evaluate: the moving average where there is one."""
    return state.get("ema", state["params"])


def count_parameters(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
