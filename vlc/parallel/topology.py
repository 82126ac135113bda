"""Devices that are not there: programs can be compiled for them on any machine.

The compilers come with JAX's own packages, `libtpu` for TPUs and `jax-cuda13-plugin` with `jax-cuda13-pjrt` for GPUs;
`make test` fetches both into `.venv/compilers`. Set `JAX_PLATFORMS=cpu` before JAX starts, or it looks for the devices.
"""

import re
from typing import Any

import jax
from jax.experimental import topologies

from vlc.errors import ConfigError

# What the compiler asks a card about itself; from the vendor's data sheet and tuning guide for the H100 SXM.
_H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "shared_memory_per_block": 48 << 10,
    "shared_memory_per_block_optin": 227 << 10,
    "shared_memory_per_core": 228 << 10,
    "registers_per_block_limit": 1 << 16,
    "registers_per_core_limit": 1 << 16,
    "core_count": 132,
    "fpus_per_core": 128,
    "block_dim_limit_x": (1 << 31) - 1,
    "block_dim_limit_y": (1 << 16) - 1,
    "block_dim_limit_z": (1 << 16) - 1,
    "clock_rate_ghz": 1.98,
    "memory_bandwidth": 3_352_320_000_000,
    "l2_cache_size": 50 << 20,
    "device_memory_size": 84_929_347_584,
}
_H100_VERSIONS = (
    'platform_name: "CUDA" dnn_version_info { major: 9 minor: 12 } runtime_version { major: 13 minor: 0 patch: 0 }'
)


def topology_devices(topology: str, slices: int = 1) -> list[Any]:
    """The devices of a topology, to build a mesh of and compile for.

    Args:
        topology: A TPU slice such as `v5e:16x16`, `v5p:2x2x2` or `v6e:16x16`, or `h100:8` for GPUs of one host.
        slices: So many TPU slices.

    Raises:
        ConfigError: The name is not understood, or its compiler is not installed.
    """
    gpus = re.fullmatch(r"h100:(\d+)", topology)
    try:
        if gpus:
            return list(_gpu_topology(int(gpus[1])).devices)
        # A v4 chip has two cores that programs see as one device.
        more: dict[str, Any] = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
        if slices > 1:
            more["num_slices"] = slices
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology, **more).devices)
    except Exception as error:
        raise ConfigError(
            f'Cannot compile for the topology "{topology}": {str(error).splitlines()[0]}. Names are like "v5e:16x16", '
            '"v5p:2x2x2", "v6e:16x16" or "h100:8"; TPUs need the package libtpu, GPUs jax-cuda13-plugin and '
            f"jax-cuda13-pjrt {jax.__version__}."
        ) from error


def _gpu_topology(count: int) -> Any:
    facts = " ".join(f"{key}: {value}" for key, value in _H100.items() if key != "name")
    config = (
        f"gpu_device_info {{ {facts} cuda_compute_capability {{ major: 9 }} }} {_H100_VERSIONS} "
        f'device_description_str: "{_H100["name"]}"'
    )
    return topologies.get_topology_desc(platform="cuda", target_config=config, topology=f"1x1x{count}")
