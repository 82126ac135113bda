"""Which parameters a run leaves as they are: those that are named, or all but those that are."""

from typing import Any

import jax
import optax

from vlc.config import Config
from vlc.errors import ConfigError, did_you_mean
from vlc.models.lora import is_lora
from vlc.train.names import names_of


def is_frozen(params: Any, config: Config) -> Any:
    """True for the parameters that stay as they are.

    Those below a name of `frozen`, `image_tower` or `text_tower/embed`. Where the model has LoRA, or `trained` names
    some, all others stay too but LoRA's own and those below these names.

    Args:
        params: Of the model.
        config: `config.optimizer`.

    Raises:
        ConfigError: A name stands for no parameter, or nothing is left to train.
    """
    paths = [_path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    _check_names(paths, config)
    some = bool(config.trained) or any(is_lora(path) for path in paths)

    def still(path: Any, _: Any) -> bool:
        name = _path_of(path)
        if _is_below(name, config.frozen):
            return True
        return some and not (is_lora(name) or _is_below(name, config.trained))

    frozen = jax.tree_util.tree_map_with_path(still, params)
    if all(jax.tree.leaves(frozen)):
        raise ConfigError("config.optimizer.frozen names all that would be trained: nothing is left.")
    return frozen


def with_frozen(trained: optax.GradientTransformation, config: Config) -> optax.GradientTransformation:
    """The same, but for frozen parameters, which do not change and have no state."""

    def labels(params: Any) -> Any:
        return jax.tree.map(lambda still: "frozen" if still else "trained", is_frozen(params, config))

    return optax.multi_transform({"trained": trained, "frozen": optax.set_to_zero()}, labels)


def stop_frozen_gradients(params: Any, config: Config) -> Any:
    """Parameters of which the frozen ones have no gradient, so that none is computed."""
    return jax.tree.map(lambda still, x: jax.lax.stop_gradient(x) if still else x, is_frozen(params, config), params)


def _path_of(path: Any) -> str:
    return "/".join(names_of(path))


def _is_below(path: str, names: tuple[str, ...]) -> bool:
    return any(path == name or path.startswith(name + "/") for name in names)


def _check_names(paths: list[str], config: Config) -> None:
    for key in ("frozen", "trained"):
        for name in config[key]:
            if not any(_is_below(path, (name,)) for path in paths):
                known = sorted({path.split("/")[0] for path in paths})
                raise ConfigError(
                    f'config.optimizer.{key}: no parameter is called "{name}".{did_you_mean(name, known)}'
                )
