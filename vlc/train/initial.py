"""A run that starts from another model: its towers, tokenizer and preprocessing, and a captioner where it has one."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vlc.config import Config
from vlc.data.controls import slot_sizes
from vlc.data.images import Preprocess
from vlc.data.tokenizers import Tokenizer
from vlc.errors import ConfigError
from vlc.parallel import print_once
from vlc.train.state import State

_OWN = ("dtype", "scan", "remat")  # how a model is computed, not what it is
_MASK = "['decoder']['mask'].value"
_PIXELS = ("crop_scale", "flip", "interpolation", "augment")  # how training pictures are varied


@dataclass(frozen=True)
class Initial:
    """A model that is there already.

    Attributes:
        config: What describes it.
        params: Its parameters.
        tokenizer: As it was trained.
        preprocess: As it was trained.
    """

    config: Config
    params: Any
    tokenizer: Tokenizer
    preprocess: Preprocess


def load_start(config: Config, load: Callable[[str], Initial] | None) -> Initial | None:
    """The model of `config.init`, or `None` where none is named.

    Raises:
        ConfigError: One is named, but the caller cannot load any.
        CheckpointError: It is missing or damaged.
    """
    if not config.init:
        return None
    if load is None:
        raise ConfigError("config.init is set: call train(..., load_initial=vlc.inference.load_initial).")
    return load(config.init)


def inherit_architecture(config: Config, initial: Initial) -> Config:
    """The config with the architecture and the pixels of the model that it starts from.

    The captioner is the model's as well, where it has one, except for what the config sets itself: `parallel`, and
    `control` where it names one. How the model is computed and how pictures are varied stays as it was.
    """
    config, theirs = copy.deepcopy(config), initial.config
    decoder = copy.deepcopy(config.model.decoder)
    config.model.update({key: value for key, value in copy.deepcopy(theirs.model).items() if key not in _OWN})
    if not theirs.model.decoder.layers:
        config.model.decoder.update(decoder)
    config.model.decoder.parallel = decoder.parallel
    if slot_sizes(decoder.control):
        config.model.decoder.control = decoder.control
    pixels = theirs.data.image.to_dict()
    config.data.image.update({key: value for key, value in pixels.items() if key not in _PIXELS})
    config.data.tokenizer = ""
    return config


def start_from(state: State, initial: Initial, sharding: Any) -> State:
    """A fresh state with the parameters of a model in place of its own, where that has them.

    Raises:
        ConfigError: The model has a parameter of another shape, or one that the state lacks.
    """
    theirs = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(initial.params)}
    taken: set[str] = set()
    fresh: list[str] = []

    def pick(path: Any, own: jax.Array, place: Any) -> jax.Array:
        name = jax.tree_util.keystr(path)
        other = theirs.get(name)
        if other is None:
            fresh.append(jax.tree_util.keystr(path, simple=True, separator="/"))
            return own
        if other.shape != own.shape:
            raise ConfigError(f"config.init: its {name} is {other.shape}, but the config makes it {own.shape}.")
        taken.add(name)
        values = np.asarray(other, own.dtype)  # every process has all, and gives its devices their parts
        return jax.make_array_from_callback(values.shape, place, lambda index: values[index])

    params = jax.tree_util.tree_map_with_path(pick, state["params"], sharding["params"])
    left = sorted(theirs.keys() - taken - {_MASK})  # the mask token is of no use where nothing is predicted in parallel
    if left:
        raise ConfigError(f"config.init: the model has {left[0]} (and {len(left) - 1} more), the config has not.")
    parts = ", ".join(sorted({"/".join(name.split("/")[:2]) for name in fresh})) or "nothing"
    print_once(f"Started from another model: {len(taken)} arrays taken; new: {parts}.")
    started = state | {"params": params}
    return started | {"ema": jax.tree.map(jnp.copy, params)} if "ema" in state else started
