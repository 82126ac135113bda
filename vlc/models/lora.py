"""LoRA over a whole model: which of its matrices have it, and those matrices with it added in."""

import math
from fnmatch import fnmatchcase
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from vlc.errors import ConfigError, did_you_mean
from vlc.models.linear import Linear

NAMES = ("lora_in", "lora_out")  # the last part of its parameters' paths


def add_lora(model: nnx.Module, config: Any, rngs: nnx.Rngs) -> None:
    """Adds LoRA to the matrices that the config names.

    Args:
        model: Of `Linear` maps; a kind of stacked layers is one map.
        config: `config.model.lora`.
        rngs: Of the matrices that are drawn.

    Raises:
        ConfigError: No matrix is called so.
    """
    if not config.matrices:
        raise ConfigError("config.model.lora.rank is set, and config.model.lora.matrices names no matrix.")
    maps = {"/".join(map(str, path)): part for path, part in nnx.iter_modules(model) if isinstance(part, Linear)}
    for pattern in config.matrices:
        if not any(_stands_for(pattern, path) for path in maps):
            known = sorted({path.rsplit("/", 1)[-1] for path in maps})
            raise ConfigError(
                f'config.model.lora.matrices: no matrix is called "{pattern}"; there are {", ".join(known)}.'
                f"{did_you_mean(pattern, known)}"
            )
    for path in sorted(maps):
        if any(_stands_for(pattern, path) for pattern in config.matrices):
            maps[path].adapt(config.rank, config.alpha, rngs)


def _stands_for(pattern: str, path: str) -> bool:
    """Whether a path is the pattern or ends in it; `*` stands for anything."""
    return fnmatchcase(path, pattern) or fnmatchcase(path, f"*/{pattern}")


def is_lora(path: str) -> bool:
    """Whether a parameter's path, joined by `/`, is one of LoRA's."""
    return any(name in path.split("/") for name in NAMES)


def merged(kernel: Array, lora_in: Array, lora_out: Array, scale: float) -> Array:
    """`W + scale A B`, of one map or of stacked ones, in float32.

    Args:
        kernel: `[*layers, *in, *out]`.
        lora_in: `[*layers, *in, rank]`.
        lora_out: `[*layers, rank, *out]`.
        scale: `alpha / rank`.
    """
    stacked = lora_in.ndim + lora_out.ndim - 2 - kernel.ndim
    layers, inputs, rank = math.prod(kernel.shape[:stacked]), math.prod(lora_in.shape[stacked:-1]), lora_in.shape[-1]
    low, high = lora_in.reshape(layers, inputs, rank), lora_out.reshape(layers, rank, -1)
    return kernel + scale * jnp.matmul(low, high, precision="highest").reshape(kernel.shape)
