"""FILIP's loss over several devices that are not there: the kernels inside the ring, by the real compilers."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vlc.objectives import filip_loss
from vlc.parallel import make_mesh, topology_devices

SHARE = 128  # images of each device


def compiled(topology: str, **options):
    mesh = make_mesh({"data": -1, "fsdp": 1, "tensor": 1}, topology_devices(topology))
    rows = NamedSharding(mesh, PartitionSpec("data"))

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct((SHARE * mesh.size, *shape), dtype, sharding=rows)

    def loss(images, texts, mask):
        return filip_loss(images, texts, mask, 10.0, **options)

    inputs = array(jnp.bfloat16, 49, 256), array(jnp.bfloat16, 32, 256), array(jnp.bool_, 32)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*inputs).compile()


def compiler_of(topology: str) -> str:
    return "jax_cuda13_plugin" if topology.startswith("h100") else "libtpu"


KERNEL = {"h100": "mosaic_gpu", "v5e": "late_interaction_forward"}


def ring_of(topology: str, **options):
    if importlib.util.find_spec(compiler_of(topology)) is None:
        pytest.skip(f"{compiler_of(topology)} is not installed; `make compilers` installs it")
    program = compiled(topology, exchange="ring", **options)
    text = program.as_text()
    assert KERNEL[topology.split(":")[0]] in text and "collective-permute" in text and "all-gather" not in text
    return program


@pytest.mark.slow
@pytest.mark.parametrize("few, many", [("v5e:2x2", "v5e:4x4"), ("h100:4", "h100:8")])
def test_the_ring_takes_the_kernels_and_memory_stays_flat(few, many):
    small, large = (ring_of(topology).memory_analysis().temp_size_in_bytes for topology in (few, many))
    assert large <= 1.05 * small


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e:2x2", "h100:4"])
def test_buckets_go_around_the_ring_too(topology):
    ring_of(topology, buckets=(16,))
