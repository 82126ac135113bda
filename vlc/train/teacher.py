"""Another model that a run learns from (`objectives.distill.teacher`): loaded once, never changed, never saved."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vlc.config import Config, resolve_auto
from vlc.data.tokenizers import Tokenizer
from vlc.errors import ConfigError
from vlc.models import DualEncoder
from vlc.parallel import state_sharding
from vlc.train.initial import Initial, spread
from vlc.train.state import make_graph


@dataclass(frozen=True)
class Teacher:
    """A model that is only asked.

    Attributes:
        graph: Its structure.
        params: Its parameters, spread over the devices by the rules of training.
        size: Pixels on a side of its images; those of the batch are resized to it.
        sharding: Where its parameters lie.
    """

    graph: nnx.GraphDef[DualEncoder]
    params: Any
    size: int
    sharding: Any


def load_teacher(
    config: Config, load: Callable[[str], Initial] | None, tokenizer: Tokenizer, mesh: Mesh
) -> Teacher | None:
    """The model of `objectives.distill.teacher`, or `None` where the run has none.

    Raises:
        ConfigError: It cannot read the captions or see the pictures of the run, or the caller cannot load any.
        CheckpointError: It is missing or damaged.
    """
    distill = config.objectives.distill
    if not distill.weight or not distill.teacher:
        return None
    if load is None:
        raise ConfigError("objectives.distill.teacher: call train(..., load_initial=vlc.inference.load_initial).")
    given = load(distill.teacher)
    _check(config, given, tokenizer)
    run = resolve_auto(given.config, jax.default_backend())
    run.model.dtype = config.model.dtype
    sharding = state_sharding(given.params, mesh)
    size = given.config.data.image.size
    params = jax.tree.map(lambda x, place: spread(np.asarray(x), place), given.params, sharding)
    return Teacher(make_graph(run, tokenizer.vocab_size), params, size, sharding)


def _check(config: Config, given: Initial, tokenizer: Tokenizer) -> None:
    name = f"config.objectives.distill.teacher={config.objectives.distill.teacher}"
    if given.tokenizer is None or given.preprocess is None:
        raise ConfigError(f"{name} has one tower; scores of images with texts need both.")
    if given.tokenizer.to_json() != tokenizer.to_json():
        raise ConfigError(
            f"{name} cuts texts otherwise than this run does. Give the run its tokenizer: config.init or "
            "config.data.tokenizer of the same model, in a new workdir."
        )
    longest = given.config.model.text.length
    if longest < config.model.text.length:
        raise ConfigError(
            f"{name} reads {longest} tokens, and config.model.text.length is {config.model.text.length}: it would not "
            "see the end of a text."
        )
    if "naflex" in (given.preprocess.resize, config.data.image.resize):
        raise ConfigError(f"{name}: teacher and student need square images; resize=naflex of either does not do.")
