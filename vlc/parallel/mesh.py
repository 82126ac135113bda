"""The device mesh `(dcn, data, fsdp, tensor)` from the config."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh

from vlc.errors import ConfigError

AXES = ("dcn", "data", "fsdp", "tensor")


def make_mesh(shape: Any, devices: list | None = None) -> Mesh:
    """Lays the devices out: slices along `dcn`, and each slice so that neighbours in the mesh are neighbours in wire.

    Args:
        shape: `config.mesh`: the size of each axis; one of them may be -1, which takes what is left. `dcn` 0, or left
            out, is the number of slices.
        devices: All devices when `None`.

    Raises:
        ConfigError: The sizes do not fit the number of devices, or of slices.
    """
    devices = jax.devices() if devices is None else devices
    slices = _slices(devices)
    sizes = [int(shape.get(axis, 0)) or (len(slices) if axis == "dcn" else 0) for axis in AXES]
    known = math.prod(size for size in sizes if size != -1)
    asked = describe_mesh(dict(zip(AXES, sizes, strict=True)))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ConfigError(f"config.mesh is {asked}: sizes are positive, and only one may be -1 (the rest).")
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if -1 in sizes or math.prod(sizes) != len(devices):
        raise ConfigError(
            f"config.mesh is {asked}, which does not fit {len(devices)} devices. Choose sizes whose product is "
            f"{len(devices)}, or set one to -1."
        )
    if sizes[0] % len(slices):
        raise ConfigError(
            f"config.mesh is {asked}, but the devices are {len(slices)} slices: let dcn be a multiple of that, or 0."
        )
    # Mesh, not jax.make_mesh: the latter's explicit axes refuse fsdp parameters beside an fsdp batch.
    return Mesh(np.concatenate([_lay_out(some, [sizes[0] // len(slices), *sizes[1:]]) for some in slices]), AXES)


def local_mesh() -> Mesh | None:
    """The devices of this process, for sharing batches among them; `None` where it has one."""
    devices = jax.local_devices()
    # Not laid out by `_lay_out`: on a TPU that wants a whole slice, and batches alone send nothing.
    return Mesh(np.asarray(devices).reshape(1, len(devices), 1, 1), AXES) if len(devices) > 1 else None


def _slices(devices: list) -> list[list]:
    """Devices that reach each other without the data-centre network."""
    found = defaultdict(list)
    for device in devices:
        found[getattr(device, "slice_index", 0) if device.platform == "tpu" else 0].append(device)
    return [found[index] for index in sorted(found)]


def _lay_out(devices: list, sizes: list[int]) -> np.ndarray:
    if devices[0].platform != "tpu":
        return np.asarray(devices).reshape(sizes)
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


def check_batch(mesh: Mesh, batch_size: int, accumulate: int) -> None:
    """Raises `ConfigError` when a (part of a) batch cannot be shared evenly along all axes but tensor."""
    shares = data_shares(mesh)
    part = batch_size // accumulate
    if part % shares:
        raise ConfigError(
            f"config.batch_size={batch_size} in {accumulate} part(s) of {part} cannot be shared by "
            f"{' x '.join(axis for axis in AXES[:-1] if axis != 'dcn' or mesh.shape[axis] > 1)} = {shares} devices. "
            f"Use a batch size divisible by {shares * accumulate}."
        )


def data_shares(mesh: Mesh) -> int:
    """Among how many devices a batch is shared: all axes but tensor."""
    return mesh.size // mesh.shape["tensor"]


def describe_mesh(sizes: Mapping[str, int]) -> str:
    """`data=4 x fsdp=2 x tensor=1`; dcn only where there are slices."""
    return " x ".join(f"{axis}={size}" for axis, size in sizes.items() if axis != "dcn" or size != 1)
