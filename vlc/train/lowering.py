"""The train step for devices that are not there: lowered from shapes alone, to be compiled and measured."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vlc.config import Config, check_config, resolve_auto
from vlc.data.attributes import Attributes
from vlc.data.controls import slot_sizes
from vlc.objectives import parts_used
from vlc.objectives.policy import baseline_of
from vlc.parallel import batch_sharding, check_batch, replicated, state_sharding
from vlc.train.inputs import make_preprocess, text_lengths
from vlc.train.optimizer import make_optimizer, updates_of
from vlc.train.state import init_state, make_graph
from vlc.train.step import make_train_step


def lower_train_step(config: Config, mesh: Mesh) -> Any:
    """The step as `vlc train` runs it, with its donated state and its shardings.

    Args:
        config: Any config; `data.vocab_size` stands for the tokenizer's.
        mesh: Of devices, or of a topology (`vlc.parallel.topology_devices`).

    Returns:
        What `jax.jit(...).lower` returns; `.compile().memory_analysis()` tells the memory of one device.
    """
    check_config(config)
    check_batch(mesh, config.batch_size, config.accumulate)
    run = resolve_auto(config, mesh.devices.flat[0].platform)
    function, optimizer = plain_step(run, run.data.vocab_size)
    shapes = state_shapes(run, run.data.vocab_size, optimizer)
    sharding = state_sharding(shapes, mesh)
    step = jax.jit(
        function,
        in_shardings=(sharding, batch_sharding(mesh)),
        out_shardings=(sharding, replicated(mesh)),
        donate_argnums=0,
    )
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return step.lower(shapes, batch_shapes(run))


def plain_step(config: Config, vocab_size: int) -> tuple[Any, Any]:
    """The step's function, not yet compiled, and its optimizer, of a resolved config; without another model's part
    (`objectives.distill.teacher`), which is not known here."""
    if config.objectives.distill.teacher:
        config = config.copy_and_resolve_references()
        config.objectives.distill.weight = 0.0
    optimizer = make_optimizer(config.optimizer, config.steps * updates_of(config), lora=bool(config.model.lora.rank))
    return make_train_step(make_graph(config, vocab_size), optimizer, config), optimizer


def state_shapes(config: Config, vocab_size: int, optimizer: Any) -> Any:
    """The train state as shapes."""
    return jax.eval_shape(functools.partial(init_state, config, vocab_size, optimizer), jax.random.key(config.seed))


def writes(config: Config) -> bool:
    """Whether captions are written and judged in training; the data may have them in pairs."""
    return "written" in parts_used(config.objectives) and not config.data.captions.preferred


def rollout_shapes(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
    """What captions that were written add to a batch (`vlc.train.rollout`)."""
    if not writes(config):
        return {}
    rows, most, length = config.batch_size, config.reward.samples, _length(config)
    made = {
        "sampled": jax.ShapeDtypeStruct((rows, most, length), jnp.int32),
        "reward": jax.ShapeDtypeStruct((rows, most), jnp.float32),
    }
    if baseline_of(config.objectives) == "greedy":
        made["reward_baseline"] = jax.ShapeDtypeStruct((rows,), jnp.float32)
    if config.reward.updates > 1:
        made["sampled_old"] = jax.ShapeDtypeStruct((rows, most, length - 1), jnp.float32)
    return made


def _length(config: Config) -> int:
    """Tokens of a caption, both marks included."""
    return config.model.decoder.length or config.model.text.length


def batch_shapes(config: Config, *, first: bool = False) -> dict[str, jax.ShapeDtypeStruct]:
    """What the step is fed, in the first part of training or later: uint8 images and token ids, and what of captions
    that were written."""
    count = config.batch_size
    lengths = text_lengths(config, first=first)
    shapes: dict[str, tuple[int, ...]] = {"text": (count, lengths.main), "target": (count, lengths.target)}
    if config.data.captions.sub_captions:
        shapes["subs"] = (count, config.data.captions.sub_captions, lengths.sub)
    if config.data.captions.negatives:
        shapes["hard"] = (count, config.data.captions.negatives, lengths.main)
    if "grammar" in parts_used(config.objectives):
        shapes["broken"] = (count, lengths.main)
    if slots := slot_sizes(config.model.decoder.control):
        shapes["control"] = (count, len(slots))
    size = config.data.first_size if first else 0
    floats: dict[str, Any] = {}
    if most := config.data.regions.count:
        shapes |= {"region_text": (count, most, lengths.region), "region_counts": (count, 3)}
        patches = ((size or config.data.image.size) // config.model.image.patch) ** 2
        floats = {"boxes": ((count, most, 4), jnp.float32), "cover": ((count, most, patches), jnp.float16)}
        shapes |= {"region_control": (count, most, len(slots))} if slots else {}
        shapes |= {"region_classes": (count, most)} if "region_classes" in parts_used(config.objectives) else {}
        if hard := config.data.regions.negatives:
            shapes["region_hard"] = (count, most, hard, lengths.region)
    if config.data.captions.class_source:
        shapes["classes"] = (count,)
    if config.data.captions.preferred:
        shapes["sampled"] = (count, 2, lengths.target)
        floats["reward"] = ((count, 2), jnp.float32)
    if named := len(Attributes.parse(config.data.regions.attributes)):
        floats["attributes"] = ((count, named), jnp.int8)
    return {
        **{name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()},
        **{name: jax.ShapeDtypeStruct(*kind) for name, kind in floats.items()},
        "image": jax.ShapeDtypeStruct((count, *make_preprocess(config, size).shape), jnp.uint8),
        **rollout_shapes(config),
    }
