"""FLOPs of a train step, from its jaxpr: for model FLOPs utilisation and for plans."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vlc.config import Config
from vlc.objectives.policy import baseline_of
from vlc.train.lowering import batch_shapes, plain_step, state_shapes, writes
from vlc.train.state import make_graph


def step_flops(config: Config, vocab_size: int, *, first: bool = False, recomputed: bool = False) -> float:
    """FLOPs of all matrix products of a step over the global batch.

    What the model asks for, however it is computed: the late interaction as its equations, without the products that
    kernels, rings and accumulation make a second time, nor (unless `recomputed`) those of `config.model.remat`.

    Args:
        config: Resolved (`vlc.config.resolve_auto`).
        vocab_size: Of the tokenizer.
        first: Of a step of the first part of training (`data.first_size`, `data.first_length`).
        recomputed: Count what is computed again to save memory, accumulation included.
    """
    config = config.copy_and_resolve_references()
    config.objectives.filip.implementation, config.objectives.filip.buckets = "reference", ()
    for objective in config.objectives.values():
        if "exchange" in objective:
            objective.exchange = "gather"
    if not recomputed:
        config.model.remat, config.accumulate = "none", 1
    step, optimizer = plain_step(config, vocab_size)
    state, batch = state_shapes(config, vocab_size, optimizer), batch_shapes(config, first=first)
    return count_flops(step, state, batch) + writing_flops(config, vocab_size, state["params"], batch)


def writing_flops(config: Config, vocab_size: int, params: Any, batch: dict[str, jax.ShapeDtypeStruct]) -> float:
    """FLOPs of the captions that are written between reading a batch and the step, all of full length.

    With cached keys a caption costs what one pass over it does. The judge is another model, and is not counted.
    """
    if not writes(config):
        return 0.0
    graph, baseline, reward = make_graph(config, vocab_size), baseline_of(config.objectives), config.reward
    rows, _, length = batch["sampled"].shape
    branches = 1 if reward.guidance_scale == 1 else 2

    def written(params: Any, images: Any, ids: Any) -> Any:
        model = nnx.merge(graph, params)
        return model.sampled_logits(model.encode_image(images), ids)

    drawn = branches * (reward.samples + (baseline == "greedy")) + reward.samples * (reward.updates > 1)
    ids = jax.ShapeDtypeStruct((rows, drawn, length - 1), jnp.int32)
    return count_flops(written, params, batch["image"], ids)


def count_flops(function: Any, *args: Any) -> float:
    """FLOPs of all matrix products of a call, from its jaxpr; the body of a loop counts as often as it runs.

    The compiler's own count takes a scan's body once, and so is of no use here. What runs inside a kernel is not seen.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contract, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contract)
            continue
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += times * _count(inner)
    return total
