"""Attention by kernels: the same numbers and gradients, and XLA's wherever they cannot be taken."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.conftest import read_config
from tests.tiny import VOCAB, tiny_batch, tiny_config
from vlc.models.fused_attention import attention, splash
from vlc.models.layers import Attention
from vlc.parallel import make_mesh, topology_devices
from vlc.train.lowering import lower_train_step
from vlc.train.state import build_model


def example(rows=2, length=150, heads=2, head=32):
    keys = jax.random.split(jax.random.key(0), 4)
    inputs = [jax.random.normal(key, (rows, length, heads, head)) for key in keys[:3]]
    there = jnp.arange(length) < jnp.asarray([length, length // 3])[:, None]
    return inputs, there, jax.random.normal(keys[3], inputs[0].shape)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_splash_gives_what_xla_gives(masked, causal):
    """In the interpreter, for a length that is no multiple of a tile."""
    inputs, there, weights = example()
    there = there if masked else None
    mask = None if there is None else there[:, None, None]

    def run(function):
        def loss(inputs):
            return (function(*inputs) * weights).sum()

        return jax.value_and_grad(loss)(inputs)

    kernel = run(lambda q, k, v: splash(q, k, v, there, causal=causal, interpret=True))
    plain = run(lambda q, k, v: attention(q, k, v, mask, causal=causal, kernel="xla"))
    np.testing.assert_allclose(kernel[0], plain[0], rtol=1e-4)
    for one, other in zip(kernel[1], plain[1], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)


@pytest.mark.parametrize("kernel", ["cudnn", "splash"])
def test_on_another_platform_it_is_xlas(kernel):
    plain, fused = (
        build_model(tiny_config(model__attention=name), VOCAB, jax.random.key(0)) for name in ("xla", kernel)
    )
    images = tiny_batch(tiny_config(), 4)["image"]
    assert np.array_equal(plain.encode_image(images).embed, fused.encode_image(images).embed)
    assert {part.kernel for _, part in nnx.iter_graph(fused) if isinstance(part, Attention)} == {kernel}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="`make compilers` installs libtpu")
def test_a_step_over_rows_and_heads_of_a_tpu_runs_splash():
    config = read_config("siglip_b16", "smoke")
    config.data.image.size, config.model.image.patch, config.batch_size = 96, 8, 8
    config.model.attention = "splash"
    mesh = make_mesh({"data": 2, "fsdp": 1, "tensor": 2}, topology_devices("v5e:2x2"))
    lowered = lower_train_step(config, mesh)
    assert "splash" in lowered.as_text(debug_info=True)
    assert lowered.compile().memory_analysis().temp_size_in_bytes > 0
