"""What the tests of both pairs of kernels share: inputs, the oracle's word, programs for devices that are not there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vlc
from tests import oracle
from tests.conftest import unit_rows
from vlc.parallel import topology_devices


def check_against_the_oracle(interpreter, shape, dtype, *, scores_within, gradients_within, **options):
    """Scores and gradients of random tokens with gaps in their masks, a text without pads and one of pads only.

    Args:
        interpreter: A context in which kernels are interpreted.
        shape: B, C, P, T, D.
        dtype: Of the tokens.
        scores_within: Absolute.
        gradients_within: Relative, of the norm.
        **options: Of `vlc.late_interaction`.
    """
    count, captions, patches, tokens, width = shape
    rng = np.random.default_rng(0)
    images = jnp.asarray(unit_rows(rng, count, patches, width), dtype)
    texts = jnp.asarray(unit_rows(rng, captions, tokens, width), dtype)
    mask = rng.random((captions, tokens)) < 0.7
    mask[0], mask[-1] = True, False
    gradients = [rng.normal(size=(count, captions)).astype(np.float32) for _ in range(2)]
    score = functools.partial(vlc.late_interaction, **options)
    with interpreter:
        scores, pull = jax.vjp(lambda i, t: score(i, t, jnp.asarray(mask)), images, texts)
        ours = pull(tuple(map(jnp.asarray, gradients)))
    wide = [np.asarray(x, np.float64) for x in (images, texts)]
    for got, wanted in zip(scores, oracle.late_interaction(*wide, mask), strict=True):
        assert got.dtype == jnp.float32
        assert (np.asarray(got)[:, -1] == 0).all()
        np.testing.assert_allclose(got, wanted, atol=scores_within)
    for got, wanted in zip(ours, oracle.late_interaction_gradient(*wide, mask, *gradients), strict=True):
        assert got.dtype == images.dtype
        assert np.linalg.norm(np.asarray(got, np.float64) - wanted) <= gradients_within * np.linalg.norm(wanted)


def lowered(topology, count, patches, tokens, width, keep, dtype=jnp.bfloat16, **options):
    """Forward and backward, lowered for one device of a topology."""
    mesh = Mesh(np.array(topology_devices(topology))[:1], ("data",))
    sharding = NamedSharding(mesh, PartitionSpec())

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def run(images, texts, mask, *gradients):
        def score(images, texts):
            return vlc.late_interaction(images, texts, mask, argmax_bytes=keep, **options)

        scores, pull = jax.vjp(score, images, texts)
        return scores, pull(gradients)

    inputs = array(dtype, count, patches, width), array(dtype, count, tokens, width), array(jnp.bool_, count, tokens)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jax.jit(run).lower(*inputs, *[array(jnp.float32, count, count)] * 2)
