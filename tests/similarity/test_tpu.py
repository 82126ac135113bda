"""The TPU kernels: values and gradients in the interpreter, with race detection, and the real compiler's word."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vlc
from tests import oracle
from tests.conftest import unit_rows
from vlc.similarity import tpu

INTERPRETER = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
V5E, V5P, V6E = tpu.Chip(128, 1, False, 1 << 30), tpu.Chip(128, 2, False, 1 << 30), tpu.Chip(256, 1, True, 1 << 30)


@pytest.mark.parametrize("keep", [0, 1 << 30], ids=["found again", "saved"])
@pytest.mark.parametrize(
    "chip, dtype, shape",  # B, C, P, T, D: nothing divides anything; several blocks each way; images that share a tile
    [
        (V5E, "float32", (18, 130, 5, 6, 16)),
        (V5E, "bfloat16", (3, 2, 17, 1, 8)),
        (V5P, "float32", (40, 9, 6, 7, 24)),
        (V6E, "bfloat16", (33, 300, 20, 9, 32)),
        (V6E, "float32", (5, 7, 3, 300, 8)),  # positions beyond a byte
    ],
)
def test_values_and_gradients_are_the_oracle_s(chip, dtype, shape, keep, monkeypatch):
    monkeypatch.setattr(tpu, "_chip", lambda: chip)
    monkeypatch.setattr(tpu, "_ROWS", 16)
    count, captions, patches, tokens, width = shape
    rng = np.random.default_rng(0)
    images = jnp.asarray(unit_rows(rng, count, patches, width), dtype)
    texts = jnp.asarray(unit_rows(rng, captions, tokens, width), dtype)
    mask = rng.random((captions, tokens)) < 0.7
    mask[0], mask[-1] = True, False
    gradients = [rng.normal(size=(count, captions)).astype(np.float32) for _ in range(2)]
    score = functools.partial(vlc.late_interaction, implementation="pallas_tpu", argmax_bytes=keep)
    with pltpu.force_tpu_interpret_mode(INTERPRETER):
        scores, pull = jax.vjp(lambda i, t: score(i, t, jnp.asarray(mask)), images, texts)
        ours = pull(tuple(map(jnp.asarray, gradients)))
    wide = [np.asarray(x, np.float64) for x in (images, texts)]
    for got, wanted in zip(scores, oracle.late_interaction(*wide, mask), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, wanted, atol=3e-6)
    tolerance = 1e-6 if dtype == "float32" else 6e-3  # the gradient of the products is rounded to the inputs' type
    for got, wanted in zip(ours, oracle.late_interaction_gradient(*wide, mask, *gradients), strict=True):
        assert got.dtype == images.dtype
        assert np.linalg.norm(np.asarray(got, np.float64) - wanted) <= tolerance * np.linalg.norm(wanted)


needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed; `make test` installs it"
)


def compiled(topology: str, count: int, patches: int, tokens: int, width: int, keep: int):
    """Forward and backward of bfloat16 tokens, compiled for one chip of a topology."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = Mesh(np.array(devices)[:1], ("data",))
    sharding = NamedSharding(mesh, PartitionSpec())

    def array(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def run(images, texts, mask, *gradients):
        scores, pull = jax.vjp(
            lambda images, texts: vlc.late_interaction(images, texts, mask, argmax_bytes=keep), images, texts
        )
        return scores, pull(gradients)

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return (
            jax.jit(run)
            .lower(
                array((count, patches, width), jnp.bfloat16),
                array((count, tokens, width), jnp.bfloat16),
                array((count, tokens), jnp.bool_),
                *[array((count, count), jnp.float32)] * 2,
            )
            .compile()
        )


@needs_compiler
@pytest.mark.parametrize("keep", [0, 1 << 40], ids=["found again", "saved"])
@pytest.mark.parametrize("width", [256, 512, 768])
@pytest.mark.parametrize("patches, tokens", [(49, 32), (196, 64), (196, 77), (256, 77)])
@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x2", "v6e:2x2"])
def test_the_tpu_compiler_takes_them(topology, patches, tokens, width, keep):
    text = compiled(topology, 512, patches, tokens, width, keep).as_text()
    assert "late_interaction_forward" in text and "late_interaction_backward" in text


@needs_compiler
@pytest.mark.parametrize("topology", ["v5e:2x2", "v6e:2x2"])
@pytest.mark.parametrize("keep, gibibytes", [(9 << 29, 6), (0, 1)], ids=["default", "found again"])
def test_memory_at_4096_by_4096(topology, keep, gibibytes):
    """The products alone would be 784 GiB."""
    memory = compiled(topology, 4096, 196, 64, 256, keep).memory_analysis()
    assert memory.temp_size_in_bytes < gibibytes << 30
