"""From the words of other libraries' configs to ours, and the checks that nothing in them is passed over."""

from collections.abc import Collection, Mapping
from typing import Any

from vlc.config import Config, default_config
from vlc.errors import CheckpointError

ACTIVATIONS = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}


def activation(name: Any, where: str) -> str:
    """Our name of transformers' activation.

    Raises:
        CheckpointError: It is one that vlc's towers do not have.
    """
    if name not in ACTIVATIONS:
        raise CheckpointError(f"{where}: the activation {name!r} is not known; there are {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def imported_config() -> Config:
    """The settings that all imported models share: tokens go through the projection of the pooled features."""
    config = default_config()
    config.model.token_head = "pooled"
    config.model.max_logit_scale = 0.0
    config.data.image.full_scale = True
    return config


def without_image(config: Config) -> None:
    """No image tower."""
    config.model.image.layers = 0


def without_text(config: Config) -> None:
    """No text tower."""
    config.model.text.layers = 0


def as_siglip(config: Config) -> None:
    """The objective that a SigLIP model was trained with, so that its logits have their bias."""
    config.objectives.clip.weight, config.objectives.siglip.weight = 0.0, 1.0


def as_filip(config: Config) -> None:
    """The objective of a model whose tokens are compared, and nothing else."""
    config.objectives.clip.weight, config.objectives.filip.weight = 0.0, 1.0


def whole(settings: Mapping[str, Any], key: str, where: str, default: Any = None) -> int:
    """A positive whole number of a config.

    Raises:
        CheckpointError: It is missing, or something else.
    """
    value = settings.get(key, default)
    value = value[0] if isinstance(value, list) and len(set(value)) == 1 else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{where}: {key} is {value!r}; a whole number above 0 is meant.")
    return value


def part(settings: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """A part of a config that is an object itself.

    Raises:
        CheckpointError: It is missing, or something else.
    """
    value = settings.get(key)
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: {key} is missing, or no object.")
    return value


def refuse(settings: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Stops at a setting that changes the model and that vlc does not have.

    Raises:
        CheckpointError: A setting outside `known` is switched on.
    """
    others = {key: value for key, value in settings.items() if key not in known and value not in (None, False, 0, "")}
    if others:
        listed = ", ".join(f"{key}={value!r}" for key, value in others.items())
        raise CheckpointError(f"{where}: vlc's towers do not have {listed}, so the model cannot be imported.")
