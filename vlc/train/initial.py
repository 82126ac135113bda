"""A run that starts from another model: its towers, tokenizer and preprocessing, and a captioner where it has one."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vlc.config import Config, config_from_json, default_config
from vlc.data.controls import slot_sizes
from vlc.data.images import Preprocess
from vlc.data.tokenizers import Tokenizer
from vlc.errors import ConfigError
from vlc.parallel import print_once
from vlc.train.optimizer import restarted
from vlc.train.restoring import read_meta
from vlc.train.state import State

OWN = ("dtype", "scan", "remat", "attention", "lora")  # how a model is computed and trained, not what it is
_MASK = "['decoder']['mask'].value"
_SCALES = ("['log_scale']", "['token_log_scale']", "['logit_bias']")
VARIED = ("crop_scale", "flip", "interpolation", "augment")  # how training pictures are varied


@dataclass(frozen=True)
class Initial:
    """A model that is there already.

    Attributes:
        config: What describes it.
        params: Its parameters; none where a checkpoint of the run has them.
        tokenizer: As it was trained; `None` for an image tower alone.
        preprocess: As it was trained; `None` for a text tower alone.
        name: For messages.
    """

    config: Config
    params: Any
    tokenizer: Tokenizer | None
    preprocess: Preprocess | None
    name: str = "config.init"


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


def resumed_start(meta: dict[str, Any], where: str) -> Initial:
    """What a run that is resumed has of the model that it once started from: its checkpoint holds all of it."""
    saved, tokenizer, preprocess = read_meta(meta, where)
    return Initial(config_from_json(saved), {}, tokenizer, preprocess, f"the checkpoint in {where}")


def inherit_architecture(config: Config, initial: Initial) -> Config:
    """The config with the architecture and the pixels of the model that it starts from.

    The captioner is the model's as well, where it has one, except for what the config sets itself: `parallel`, and
    `control` where it names one; so are mask prompts, queries of regions, attributes and a head for grammar.
    `drop_patches` and prototypes are for training, and the config's too; so is `resize=naflex` with its size, since
    such a tower has positions for any grid. How the model is computed and how pictures are varied stays as it was. A
    model of one tower gives that tower; the other, its tokenizer or pixels, and the shared space are the config's. All
    that the model has otherwise than the config is said.
    """
    made, theirs = copy.deepcopy(config), copy.deepcopy(initial.config)
    towers = _towers(theirs)
    if len(towers) == 2:
        made.model.update({key: value for key, value in theirs.model.items() if key not in OWN})
        if not theirs.model.decoder.layers:
            made.model.decoder.update(copy.deepcopy(config.model.decoder))
    else:
        for name in towers:
            made.model[name].update({key: value for key, value in theirs.model[name].items() if key != "projection"})
    if config.model.text.prompts and "text" in towers:  # they take positions of the words
        rows = made.model.text.positions or made.model.text.length
        kept = {"prompts": config.model.text.prompts, "positions": rows}
        made.model.text.update(kept | {"length": min(made.model.text.length, rows - config.model.text.prompts)})
    made.model.text.grammar = config.model.text.grammar or made.model.text.grammar
    made.model.decoder.parallel = config.model.decoder.parallel
    made.model.image.drop_patches = config.model.image.drop_patches
    made.model.image.mask_prompt = config.model.image.mask_prompt or made.model.image.mask_prompt
    made.model.image.prototypes = config.model.image.prototypes or made.model.image.prototypes
    own, found = config.model.regions, made.model.regions
    if own.queries and not found.queries:
        found.update(own.to_dict() | {"attributes": own.attributes or found.attributes})
    found.attributes = own.attributes or found.attributes
    made.model.decoder.localiser = config.model.decoder.localiser or made.model.decoder.localiser
    made.model.decoder.places = config.model.decoder.places or made.model.decoder.places
    control = config.model.decoder.control
    if slot_sizes(control) or control.box or control.mask:
        made.model.decoder.control = copy.deepcopy(config.model.decoder.control)
    if initial.preprocess is not None:
        pixels = theirs.data.image.to_dict()
        made.data.image.update({key: value for key, value in pixels.items() if key not in VARIED})
        if config.data.image.resize == "naflex":  # whose positions are resampled for each picture
            made.model.image.grid = theirs.model.image.grid or theirs.data.image.size // theirs.model.image.patch
            made.data.image.update({"resize": "naflex", "size": config.data.image.size, "patch": 0})
    _say_what_is_taken(config, made, initial)
    if initial.tokenizer is not None:
        made.data.tokenizer = ""
    return made


def _towers(config: Config) -> list[str]:
    return [name for name in ("image", "text") if config.model[name].layers]


def _say_what_is_taken(config: Config, made: Config, initial: Initial) -> None:
    """Names what the model sets in place of the config, first what the config had asked to be otherwise."""
    plain, asked = flat_settings(default_config()), flat_settings(config)
    changed = {key: value for key, value in flat_settings(made).items() if value != asked[key]}
    against = [f"config.{key} is {asked[key]!r}, the model has {changed[key]!r}" for key in changed
               if asked[key] != plain[key]]  # fmt: skip
    if against:
        print_once(
            f"Warning: {initial.name} keeps its own architecture, not what this config asks for:\n  "
            + "\n  ".join(against)
            + "\n  (for images of another size import it first: vlc import MODEL --image-size PIXELS --out DIR)"
        )
    rest = [f"{key}={changed[key]!r}" for key in changed if asked[key] == plain[key]]
    if rest:
        print_once(f"Taken from {initial.name}: {', '.join(rest)}.")


def flat_settings(config: Config, prefix: str = "") -> dict[str, Any]:
    """The values of `model` and `data.image`, as plain values by dotted key."""
    if not prefix:
        return flat_settings(config.model, "model.") | flat_settings(config.data.image, "data.image.")
    found: dict[str, Any] = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            found |= flat_settings(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def spread(values: np.ndarray, place: Any) -> jax.Array:
    """An array that every process has whole, each of whose devices is given its part."""
    return jax.make_array_from_callback(values.shape, place, lambda index: values[index])


def start_from(state: State, initial: Initial, sharding: Any) -> State:
    """A fresh state with the parameters of a model in place of its own, where that has them.

    Raises:
        ConfigError: The model has a parameter of another shape, or one that the state lacks.
    """
    theirs = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(initial.params)}
    if len(_towers(initial.config)) == 1:  # it never compared anything: the scales are the config's
        theirs = {name: x for name, x in theirs.items() if not name.startswith(_SCALES)}
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
        return spread(np.asarray(other, own.dtype), place)

    params = jax.tree_util.tree_map_with_path(pick, state["params"], sharding["params"])
    left = sorted(theirs.keys() - taken - {_MASK})  # the mask token is of no use where nothing is predicted in parallel
    if left:
        raise ConfigError(f"config.init: the model has {left[0]} (and {len(left) - 1} more), the config has not.")
    parts = ", ".join(sorted({"/".join(name.split("/")[:2]) for name in fresh})) or "nothing"
    print_once(f"Started from another model: {len(taken)} arrays taken; new: {parts}.")
    started = state | {"params": params, "opt": restarted(state["opt"], params)}
    return started | {part: jax.tree.map(jnp.copy, params) for part in ("ema", "reference") if part in state}
