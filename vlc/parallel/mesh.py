"""The device mesh `(data, fsdp, tensor)` from the config."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vlc.errors import ConfigError

AXES = ("data", "fsdp", "tensor")


def make_mesh(shape: Any, devices: list | None = None) -> Mesh:
    """Lays the devices out.

    Args:
        shape: `config.mesh`: the size of each axis; one of them may be -1, which takes what is left.
        devices: All devices when `None`.

    Raises:
        ConfigError: The sizes do not fit the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [int(shape[axis]) for axis in AXES]
    known = int(np.prod([size for size in sizes if size != -1]))
    asked = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ConfigError(f"config.mesh is {asked}: sizes are positive, and only one may be -1 (the rest).")
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if -1 in sizes or int(np.prod(sizes)) != len(devices):
        raise ConfigError(
            f"config.mesh is {asked}, which does not fit {len(devices)} devices. Choose sizes whose product is "
            f"{len(devices)}, or set one to -1."
        )
    # Mesh, not jax.make_mesh: the latter's explicit axes refuse fsdp parameters beside an fsdp batch.
    return Mesh(np.asarray(devices).reshape(sizes), AXES)


def check_batch(mesh: Mesh, batch_size: int, accumulate: int) -> None:
    """Raises `ConfigError` when a (part of a) batch cannot be shared evenly among the devices of data and fsdp."""
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    part = batch_size // accumulate
    if part % shares:
        raise ConfigError(
            f"config.batch_size={batch_size} in {accumulate} part(s) of {part} cannot be shared by "
            f"data x fsdp = {shares} devices. Use a batch size divisible by {shares * accumulate}."
        )
