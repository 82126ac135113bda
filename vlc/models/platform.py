"""Which platform a program is traced for: that of the mesh in force, or of the default devices."""

import jax


def platform_in_use() -> str:
    """`cpu`, `gpu` or `tpu`. Under `jax.set_mesh` with devices that are only compiled for, it is theirs."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device is not None else jax.default_backend()
