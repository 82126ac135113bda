"""One step of training: the loss over the global batch, its gradient, the update.

With accumulation the batch is encoded in parts, but the loss still compares all of it (GradCache, Gao et al. 2021,
arXiv 2101.06983): the parts are encoded once without keeping activations, the loss is differentiated with respect to
the encodings and the temperatures, and each part is encoded again to carry its share of that gradient back. Gradients
equal those of the undivided batch, the temperatures' included, which is counted once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vlc.config import SCHEDULE_FREE, Config
from vlc.models import DualEncoder
from vlc.objectives import encode_batch, total_loss
from vlc.train.frozen import stop_frozen_gradients
from vlc.train.guards import skipped_steps
from vlc.train.optimizer import averaged, make_schedule, updates_of
from vlc.train.state import State
from vlc.train.teacher import Teacher
from vlc.train.views import add_views, embeddings_of, needs_average, taught

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def loss_and_gradient(
    graph: nnx.GraphDef[DualEncoder],
    params: Any,
    batch: Batch,
    objectives: Any,
    accumulate: int = 1,
    optimizer: Config | None = None,
    reference: Any = None,
) -> tuple[jax.Array, dict[str, jax.Array], Any]:
    """Total loss, its terms, and the gradient of the parameters, which is zero for those that `config.optimizer`, if
    given, leaves frozen. `reference` are the parameters that training began with, where the loss asks for them."""
    first = None if reference is None else nnx.merge(graph, reference)

    def encode(params, batch):
        moving = params if optimizer is None else stop_frozen_gradients(params, optimizer)
        return encode_batch(nnx.merge(graph, moving), batch, objectives, first)

    def compare(params, encoded):
        return total_loss(encoded, nnx.merge(graph, params).scales(), objectives)

    if accumulate == 1:
        whole = jax.value_and_grad(lambda params: compare(params, encode(params, batch)), has_aux=True)
        (total, terms), gradient = whole(params)
        return total, terms, gradient

    parts = jax.tree.map(lambda x: _split(x, accumulate), batch)
    encoded = in_parts(lambda part: encode(params, part), batch, accumulate)
    compared = jax.value_and_grad(compare, argnums=(0, 1), has_aux=True)
    (total, terms), (gradient, wanted) = compared(params, encoded)

    def accumulate_gradient(gradient, part_and_wanted):
        part, wanted = part_and_wanted
        _, pull = jax.vjp(lambda params: encode(params, part), params)
        return jax.tree.map(jnp.add, gradient, pull(wanted)[0]), None

    wanted = jax.tree.map(lambda x: _split(x, accumulate), wanted)
    gradient, _ = jax.lax.scan(accumulate_gradient, gradient, (parts, wanted))
    return total, terms, gradient


def wrong_texts(model: DualEncoder, batch: Batch) -> Metrics:
    """How many wrong texts an image has: those that rules did not find, or that a share leaves out, are missed."""
    if "hard" not in batch or model.text_tower is None:
        return {}
    there = (batch["hard"] < model.text_tower.vocab_size).any(axis=2)
    return {"wrong_texts": there.sum(axis=1).astype(jnp.float32).mean()}


def region_numbers(batch: Batch) -> Metrics:
    """Regions of an image: how many are trained on, lie outside of the crop, and are more than are wanted."""
    if "region_counts" not in batch:
        return {}
    counts = batch["region_counts"].astype(jnp.float32).mean(axis=0)
    return {"regions": counts[0], "regions_outside": counts[1], "regions_too_many": counts[2]}


def running_mean(
    kept: dict[str, jax.Array], value: jax.Array, momentum: float = 0.9
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mean of past values, in which each counts `momentum` times as much as the one after it (the first time the
    value itself), and what is kept of them and the new one."""
    known = kept["mean"] / jnp.maximum(kept["weight"], 1e-9)
    expected = jnp.where(kept["weight"] > 0, known, value)
    return expected, {
        "mean": momentum * kept["mean"] + (1 - momentum) * value,
        "weight": momentum * kept["weight"] + (1 - momentum),
    }


def _repeated(update: Callable[[Any], tuple[Any, Any]], moving: Any, times: int) -> tuple[Any, Any]:
    """What moves after so many updates, and what the first of them says."""
    if times == 1:
        return update(moving)
    moved, said = jax.lax.scan(lambda moving, _: update(moving), moving, length=times)
    return moved, jax.tree.map(lambda x: x[0], said)


def in_parts(function: Callable[[Batch], Any], batch: Batch, parts: int) -> Any:
    """What a function of each record gives for a batch, a part of it at a time, so that memory is that of a part."""
    if parts == 1:
        return function(batch)
    return jax.tree.map(_join, jax.lax.map(function, jax.tree.map(lambda x: _split(x, parts), batch)))


def _split(x: jax.Array, parts: int) -> jax.Array:
    """`[B, ...]` to `[parts, B/parts, ...]`, every device keeping the rows that it has."""
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def _join(x: jax.Array) -> jax.Array:
    """Undoes `_split`."""
    return x.swapaxes(0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def make_train_step(
    graph: nnx.GraphDef[DualEncoder],
    optimizer: optax.GradientTransformation,
    config: Config,
    teacher: Teacher | None = None,
) -> Callable[..., tuple[State, Metrics]]:
    """The function to compile, of state and batch. Its randomness is a function of `config.seed` and the step alone.

    With a `teacher` it takes the teacher's parameters as well, which stay as they are.
    """
    schedule = make_schedule(config.optimizer, config.steps * updates_of(config))
    decay = config.optimizer.ema

    def train_step(state: State, batch: Batch, teacher_params: Any = None) -> tuple[State, Metrics]:
        params = state["params"]
        key = jax.random.fold_in(jax.random.key(config.seed + 1), state["step"])
        batch = add_views(config, batch, key)
        average = nnx.merge(graph, state["ema"]) if needs_average(config) else None
        other = None if teacher is None else embeddings_of(nnx.merge(teacher.graph, teacher_params), teacher.size)
        if average is not None or other is not None:
            with jax.named_scope("teacher"):
                batch |= in_parts(lambda part: taught(config, part, average, other), batch, config.accumulate)
        kept = {"reference": state["reference"]} if "reference" in state else {}
        if "rewards" in state:
            expected, kept["rewards"] = running_mean(state["rewards"], batch["reward"].mean())
            batch |= {"reward_baseline": jnp.full(batch["reward"].shape[:1], expected)}

        def update(moving: tuple[Any, Any]) -> tuple[tuple[Any, Any], tuple[jax.Array, Metrics, jax.Array]]:
            params, opt = moving
            total, terms, gradient = loss_and_gradient(
                graph, params, batch, config.objectives, config.accumulate, config.optimizer, state.get("reference")
            )
            with jax.named_scope("optimizer"):
                updates, opt = optimizer.update(gradient, opt, params)
                params = optax.apply_updates(params, updates)
            return (params, opt), (total, terms, optax.global_norm(gradient))

        moved, (total, terms, norm) = _repeated(update, (params, state["opt"]), updates_of(config))
        with jax.named_scope("optimizer"):
            new = {"params": moved[0], "opt": moved[1], "step": state["step"] + 1, **kept}
            opt = moved[1]
            if config.optimizer.name == SCHEDULE_FREE:
                new["ema"] = averaged(opt, new["params"])
            if decay:
                new["ema"] = jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, state["ema"], new["params"])
        model = nnx.merge(graph, params)
        scales = model.scales()
        metrics = {
            "loss": total,
            **{f"loss/{name}": term for name, term in terms.items()},
            "grad_norm": norm,
            "logit_scale": scales.logit_scale,
            "token_logit_scale": scales.token_logit_scale,
            **wrong_texts(model, batch),
            **region_numbers(batch),
            **({"skipped_steps": skipped_steps(new["opt"])} if config.optimizer.skip_spikes else {}),
            "lr": jnp.asarray(schedule(state["step"] * updates_of(config)), jnp.float32),
        }
        return new, metrics

    return train_step
