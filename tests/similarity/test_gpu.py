"""The Hopper kernels: values and gradients in the interpreter, with race detection, and the real compiler's word."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

import vlc
from tests import oracle
from tests.conftest import unit_rows
from vlc.similarity import gpu

INTERPRETER = plgpu.InterpretGPUParams(detect_races=True)


@pytest.mark.parametrize("keep", [0, 1 << 30], ids=["found again", "saved"])
@pytest.mark.parametrize(
    "shape",  # B, C, P, T, D: nothing divides anything
    [
        (70, 9, 5, 6, 40),  # two blocks of images, an odd number of patches
        (3, 66, 2, 13, 64),  # two blocks of texts
        (5, 3, 3, 75, 264),  # a width in two parts; the widest text of two
        (2, 5, 256, 1, 8),  # as many patches as a byte can tell apart
        (2, 3, 2, 150, 512),  # a text on its own
    ],
)
def test_values_and_gradients_are_the_oracle_s(shape, keep, monkeypatch):
    monkeypatch.setattr(gpu, "_CHUNK_BYTES", {True: 1, False: 1})  # several chunks of images
    count, captions, patches, tokens, width = shape
    rng = np.random.default_rng(0)
    images = jnp.asarray(unit_rows(rng, count, patches, width), jnp.bfloat16)
    texts = jnp.asarray(unit_rows(rng, captions, tokens, width), jnp.bfloat16)
    mask = rng.random((captions, tokens)) < 0.7
    mask[0], mask[-1] = True, False
    gradients = [rng.normal(size=(count, captions)).astype(np.float32) for _ in range(2)]
    score = functools.partial(vlc.late_interaction, implementation="pallas_gpu", argmax_bytes=keep)
    with plgpu.force_gpu_interpret_mode(INTERPRETER):
        scores, pull = jax.vjp(lambda i, t: score(i, t, jnp.asarray(mask)), images, texts)
        ours = pull(tuple(map(jnp.asarray, gradients)))
    wide = [np.asarray(x, np.float64) for x in (images, texts)]
    for got, wanted in zip(scores, oracle.late_interaction(*wide, mask), strict=True):
        assert got.dtype == jnp.float32
        assert (np.asarray(got)[:, -1] == 0).all()  # of pads only
        np.testing.assert_allclose(got, wanted, atol=3e-6 if keep == 0 else 2e-5)
    for got, wanted in zip(ours, oracle.late_interaction_gradient(*wide, mask, *gradients), strict=True):
        assert got.dtype == images.dtype
        assert np.linalg.norm(np.asarray(got, np.float64) - wanted) <= 8e-3 * np.linalg.norm(wanted)
