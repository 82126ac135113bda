"""A plan: what one device would hold, compute and send in a step, and the time that this takes at best."""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from vlc.config import Config, resolve_auto
from vlc.errors import ConfigError
from vlc.objectives import encode_batch, total_loss
from vlc.objectives.policy import needs_first
from vlc.parallel import Chip, batch_sharding, chip_of, data_shares, make_mesh, state_sharding
from vlc.plan.collectives import read_collectives, sent_by_axis
from vlc.plan.compiled import compile_step
from vlc.train.flops import step_flops
from vlc.train.lowering import batch_shapes, plain_step, state_shapes
from vlc.train.state import count_parameters, make_graph
from vlc.train.views import add_views, needs_average, taught


@dataclass(frozen=True)
class Plan:
    """Figures are of one device, in bytes, FLOPs and seconds, but for `parameters`, `batch_size` and `step_flops`.

    Attributes:
        fits: Whether the device's memory holds it; `None` where that is not known (a CPU).
        memory: By kind: `parameters`, `optimizer`, `average`, `batch`, `activations` (kept for the backward pass, by
            the trace), `temporaries` (the rest of what the compiler allocates).
        needed: Bytes in all, by the compiler.
        capacity: Of the device, 0 where unknown.
        model_flops: Of a step over the global batch, as in model FLOPs utilisation.
        device_flops: What one device computes, with what is computed again.
        sent: Bytes sent by axes and operation.
        seconds: At the chip's peak rates, by what takes them: `compute`, `memory`, `network`.
    """

    config: str
    topology: str
    mesh: dict[str, int]
    devices: int
    batch_size: int
    parameters: int
    fits: bool | None
    memory: dict[str, int]
    needed: int
    capacity: int
    model_flops: float
    device_flops: float
    sent: dict[str, dict[str, float]]
    seconds: dict[str, float] = field(default_factory=dict)
    compile_seconds: float = 0.0

    @property
    def limit(self) -> str:
        """What takes most of the time."""
        return max(self.seconds, key=lambda name: self.seconds[name]) if self.seconds else ""

    @property
    def step_seconds(self) -> tuple[float, float]:
        """An estimate: where all overlaps, and where nothing does."""
        return (max(self.seconds.values()), sum(self.seconds.values())) if self.seconds else (math.nan, math.nan)

    @property
    def images_per_second(self) -> float:
        """Of one device, where all overlaps; an estimate."""
        return self.batch_size / self.step_seconds[0] / self.devices


def make_plan(config: Config, topology: str, devices: list[Any], name: str) -> Plan:
    """Compiles the train step for some devices and reads off what it needs.

    Args:
        config: Any; `data.vocab_size` stands for the tokenizer's.
        topology: What the devices are called.
        devices: Real ones, or of `vlc.parallel.topology_devices`.
        name: The config's.

    Raises:
        ConfigError: The mesh does not fit the devices or the model, or the compiler refuses the program.
    """
    if config.objectives.distill.weight and config.objectives.distill.teacher:
        raise ConfigError(
            "The teacher of config.objectives.distill is another model, which a plan does not count. Plan with "
            "config.objectives.distill.weight=0, and add the teacher's parameters, 4 bytes each, sharded by the same "
            "rules, and its forward pass."
        )
    mesh = make_mesh(config.mesh, devices)
    run = resolve_auto(config, devices[0].platform)
    chip = chip_of(devices[0].device_kind)
    vocabulary = run.data.vocab_size
    _, optimizer = plain_step(run, vocabulary)
    shapes = state_shapes(run, vocabulary, optimizer)
    known = _state_bytes(shapes, run, mesh)
    activations = _activation_bytes(run, vocabulary) // data_shares(mesh)
    compiled = compile_step(config, mesh, sum(known.values()))
    rest = max(compiled.needed - sum(known.values()), 0)
    memory = known | {"activations": min(activations, rest), "temporaries": max(rest - activations, 0)}
    collectives = read_collectives(compiled.partitioned, dict(mesh.shape))
    sent: dict[str, dict[str, float]] = {}
    for (axes, operation), count in sorted(sent_by_axis(collectives).items()):
        sent.setdefault(axes, {})[operation] = count
    flops = step_flops(run, vocabulary, recomputed=True) / mesh.size
    return Plan(
        config=name, topology=topology, mesh=dict(mesh.shape), devices=mesh.size, batch_size=run.batch_size,
        parameters=count_parameters(shapes["params"]), memory=memory, needed=compiled.needed,
        capacity=int(chip.memory) if chip else 0,
        fits=(not compiled.refused and compiled.needed <= chip.memory) if chip else None,
        model_flops=step_flops(run, vocabulary), device_flops=flops, sent=sent, compile_seconds=compiled.seconds,
        seconds=_roofline(chip, run, flops, memory, sent, _whole(shapes["params"])) if chip else {},
    )  # fmt: skip


def _whole(tree: Any) -> int:
    """Bytes of all arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _state_bytes(shapes: Any, run: Config, mesh: Mesh) -> dict[str, int]:
    """Bytes of one device for each part of the state, and for its share of the batch."""

    def local(tree: Any, places: Any) -> int:
        pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(places), strict=True)
        return sum(math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, place in pairs)

    sharding = state_sharding(shapes, mesh)
    parts = {"params": "parameters", "opt": "optimizer", "ema": "average", "reference": "reference"}
    found = {word: local(shapes[part], sharding[part]) for part, word in parts.items() if part in shapes}
    batch = batch_shapes(run)
    return found | {"batch": local(batch, {name: batch_sharding(mesh) for name in batch})}


def _activation_bytes(run: Config, vocabulary: int) -> int:
    """Bytes of the whole batch that the trace keeps for the backward pass, where the loss is `gather`ed.

    What a pullback holds is weights, activations (which grow with the batch) and scores (with its square): three sizes
    of the batch tell them apart.
    """
    run = run.copy_and_resolve_references()
    part = run.batch_size // run.accumulate
    one, two, three = (_kept_bytes(run, vocabulary, part * times) for times in (1, 2, 3))
    square = (three - 2 * two + one) // 2
    return max(two - one - 2 * square, 0)


def _kept_bytes(run: Config, vocabulary: int, count: int) -> int:
    run.batch_size = count
    graph = make_graph(run, vocabulary)
    _, optimizer = plain_step(run, vocabulary)
    params = state_shapes(run, vocabulary, optimizer)["params"]

    def prepared(params: Any, batch: Any) -> Any:
        batch = add_views(run, batch, jax.random.key(0))
        if "reward" in batch:  # of the kind that the step itself keeps
            batch = {"reward_baseline": batch["reward"].mean(axis=1)} | batch
        return batch | taught(run, batch, nnx.merge(graph, params) if needs_average(run) else None, None)

    batch = jax.eval_shape(prepared, params, batch_shapes(run))

    def pullback(params: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            model = nnx.merge(graph, params)
            reference = nnx.merge(graph, params) if needs_first(run.objectives) else None
            encoded = encode_batch(model, batch, run.objectives, reference)
            return total_loss(encoded, model.scales(), run.objectives)[0]

        return jax.vjp(loss, params)[1]

    return _whole(jax.eval_shape(pullback, params, batch))


def _roofline(
    chip: Chip, run: Config, flops: float, memory: dict[str, int], sent: dict[str, dict[str, float]], weights: int
) -> dict[str, float]:
    """Seconds at the chip's peak rates.

    Memory traffic is what cannot be avoided: the optimizer reads and writes the state, the passes read all weights (in
    the type of computation, and again where they are recomputed), activations are written and read once.
    """
    state = 2 * (memory["parameters"] + memory["optimizer"] + memory.get("average", 0))
    passes = (3 if run.model.remat == "none" else 4) * run.accumulate
    read = weights // 4 * (2 if run.model.dtype == "bfloat16" else 4)
    moved = state + passes * read + 2 * memory["activations"] * run.accumulate
    network = 0.0
    for axes, operations in sent.items():
        rate = chip.network if "dcn" in axes.split("+") else chip.links
        network += sum(operations.values()) / rate
    return {"compute": flops / chip.flops, "memory": moved / chip.bandwidth, "network": network}
