"""The tiled form equals the equations for any size, mask and mesh, and holds one tile at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

import vlc
from tests import oracle
from tests.conftest import unit_rows
from vlc.errors import ConfigError
from vlc.parallel import make_mesh
from vlc.similarity import xla


def example(images, texts, patches, tokens, width, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, tokens + 1, (texts, 1))
    return unit_rows(rng, images, patches, width), unit_rows(rng, texts, tokens, width), np.arange(tokens) < lengths


@pytest.mark.parametrize("implementation", ["reference", "xla"])
@settings(max_examples=12, deadline=None)
@given(st.tuples(*(st.integers(1, 9) for _ in range(5))), st.integers(0, 99))
def test_any_shape_and_mask(implementation, shape, seed):
    inputs = example(*shape, seed)
    got = vlc.late_interaction(*map(jnp.asarray, inputs), implementation=implementation)
    for ours, exact in zip(got, oracle.late_interaction(*inputs), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, exact, atol=3e-6)


@pytest.mark.parametrize("smoothing", [0.02, 0.3])
def test_smoothing_is_a_soft_maximum_in_value_and_gradient(smoothing):
    images, texts, mask = example(7, 19, 4, 6, 8)
    mask[3] = False
    mask[5] = [False, True, False, True, True, False]  # pads need not be at the end
    weights = [jnp.asarray(np.random.default_rng(i).normal(size=(7, 19)), jnp.float32) for i in range(2)]

    def run(implementation):
        def loss(images, texts):
            scores = vlc.late_interaction(
                images, texts, jnp.asarray(mask), implementation=implementation, smoothing=smoothing
            )
            return sum((w * s).sum() for w, s in zip(weights, scores, strict=True)), scores

        return jax.grad(loss, (0, 1), has_aux=True)(jnp.asarray(images), jnp.asarray(texts))

    exact = oracle.late_interaction(images, texts, mask, smoothing=smoothing)
    for ours, wanted in zip(run("xla")[1], exact, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=3e-6)
    for ours, wanted in zip(run("xla")[0], run("reference")[0], strict=True):
        np.testing.assert_allclose(ours, wanted, atol=3e-6)


def test_a_small_temperature_is_the_maximum():
    inputs = [jnp.asarray(x) for x in example(5, 6, 4, 6, 8)]
    for soft, hard in zip(vlc.late_interaction(*inputs, smoothing=1e-4), vlc.late_interaction(*inputs), strict=True):
        np.testing.assert_allclose(soft, hard, atol=2e-3)


def test_what_pads_hold_never_matters():
    images, texts, mask = example(5, 6, 4, 6, 8)
    mask[2] = False

    def run(texts):
        def loss(images, texts):
            return sum(s.sum() for s in vlc.late_interaction(images, texts, jnp.asarray(mask)))

        return jax.value_and_grad(loss, (0, 1))(jnp.asarray(images), jnp.asarray(texts))

    clean = run(texts)
    dirty = run(np.where(mask[..., None], texts, np.nan))
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"implementation": "pallas"}, "pallas_tpu"),
        ({"smoothing": -1.0}, "0 or more"),
        ({"smoothing": 0.1, "implementation": "pallas_tpu"}, "no smoothing"),
    ],
)
def test_a_wrong_setting_is_named(change, said):
    inputs = [jnp.asarray(x) for x in example(2, 2, 2, 2, 4)]
    with pytest.raises(ConfigError, match=said):
        vlc.late_interaction(*inputs, **change)


def test_shapes_and_types_that_do_not_belong_together_are_named():
    images, texts, mask = (jnp.asarray(x) for x in example(2, 3, 2, 4, 4))
    with pytest.raises(ConfigError, match="a mask"):
        vlc.late_interaction(images, texts, mask[:, :3])
    with pytest.raises(ConfigError, match="one type"):
        vlc.late_interaction(images, texts.astype(jnp.bfloat16), mask)


@pytest.mark.parametrize("tile", [1, 200, 10**6])
def test_tiles_of_any_size_give_the_same_gradient(tile, monkeypatch):
    monkeypatch.setitem(xla._TILE, "cpu", tile)
    monkeypatch.setitem(xla._TEXTS, "cpu", 2)
    images, texts, mask = example(7, 5, 4, 6, 8)
    rng = np.random.default_rng(1)
    weights = [jnp.asarray(rng.normal(size=(7, 5)), jnp.float32) for _ in range(2)]

    def weighted(implementation):
        def loss(images, texts):
            scores = vlc.late_interaction(images, texts, jnp.asarray(mask), implementation=implementation)
            return sum((w * s).sum() for w, s in zip(weights, scores, strict=True))

        return jax.grad(loss, (0, 1))(jnp.asarray(images), jnp.asarray(texts))

    for ours, exact in zip(weighted("xla"), weighted("reference"), strict=True):
        np.testing.assert_allclose(ours, exact, atol=2e-6)


def test_a_text_of_pads_only_gives_zero_and_no_nan():
    images, texts, _ = example(3, 2, 4, 5, 6)
    mask = jnp.asarray([[True] * 5, [False] * 5])

    def loss(images, texts):
        i2t, t2i = vlc.late_interaction(images, texts, mask)
        return (i2t + t2i).sum(), (i2t, t2i)

    gradients, (i2t, t2i) = jax.grad(loss, (0, 1), has_aux=True)(jnp.asarray(images), jnp.asarray(texts))
    assert (i2t[:, 1] == 0).all() and (t2i[:, 1] == 0).all()
    assert all(np.isfinite(g).all() for g in gradients) and (gradients[1][1] == 0).all()


def test_ties_have_one_unit_of_gradient():
    images = jnp.ones((1, 3, 2), jnp.float32)
    texts = jnp.ones((1, 4, 2), jnp.float32)
    gradient = jax.grad(lambda t: vlc.late_interaction(images, t, jnp.ones((1, 4), bool))[0].sum())(texts)
    np.testing.assert_allclose(gradient.sum(axis=(0, 1)), [1.0, 1.0], rtol=1e-6)


def test_bfloat16_accumulates_in_float32():
    inputs = example(6, 6, 9, 7, 256)
    narrow = [jnp.asarray(x, jnp.bfloat16) for x in inputs[:2]]
    got = vlc.late_interaction(*narrow, jnp.asarray(inputs[2]))
    exact = oracle.late_interaction(*(np.asarray(x, np.float64) for x in narrow), inputs[2])
    for ours, wanted in zip(got, exact, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 2, 1)])
def test_any_mesh_gives_the_same_loss_and_gradient(shape):
    images, texts, mask = example(16, 16, 5, 6, 8)
    mask[:, 0] = True

    def loss(images, texts, mask, scale):
        return vlc.objectives.filip_loss(images, texts, mask, scale)

    run = jax.value_and_grad(loss, (0, 1, 3))
    alone = run(images, texts, mask, 10.0)
    mesh = make_mesh(dict(zip(("data", "fsdp", "tensor"), shape, strict=True)))
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    with jax.set_mesh(mesh):
        spread = jax.jit(run)(*(jax.device_put(x, rows) for x in (images, texts, mask)), 10.0)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def temporary_bytes(count, patches, tokens, width, **options):
    shapes = [jax.ShapeDtypeStruct((count, n, width), jnp.float32) for n in (patches, tokens)]
    mask = jax.ShapeDtypeStruct((count, tokens), bool)

    def loss(images, texts, mask):
        i2t, t2i = vlc.late_interaction(images, texts, mask, **options)
        return (i2t * t2i).sum()

    return jax.jit(jax.grad(loss, (0, 1))).lower(*shapes, mask).compile().memory_analysis().temp_size_in_bytes


def test_memory_is_that_of_a_tile_not_of_all_products():
    products = 4 * 256 * 256 * 49 * 32  # bytes of all products, 392 MiB
    assert temporary_bytes(256, 49, 32, 64, implementation="reference") > products
    assert temporary_bytes(256, 49, 32, 64, implementation="xla") < products / 8


@pytest.mark.parametrize("count", [64, 512])
def test_memory_is_flat_in_the_batch(count):
    """Beside what grows as the inputs do, and the saved positions where they are asked for, a tile is all there is."""
    inputs = 4 * count * (196 + 64) * 256
    positions = count * count * (196 + 64)
    assert temporary_bytes(count, 196, 64, 256, argmax_bytes=0) < inputs + (12 << 20)
    assert temporary_bytes(count, 196, 64, 256) < inputs + positions + (12 << 20)


def test_positions_beyond_a_byte_count_twice_in_the_budget():
    def bytes_with(budget):
        return temporary_bytes(96, 4, 300, 8, argmax_bytes=budget)

    positions = 96 * 96 * (4 + 300)
    assert bytes_with(2 * positions) - bytes_with(0) >= positions  # saved
    assert bytes_with(2 * positions - 1) == bytes_with(0)  # not saved


@pytest.mark.parametrize("keep", [0, 1 << 30])
def test_positions_found_again_or_saved_give_the_same_gradient(keep):
    images, texts, mask = example(9, 21, 7, 5, 8)

    def gradient(**options):
        def loss(images, texts):
            i2t, t2i = vlc.late_interaction(images, texts, jnp.asarray(mask), **options)
            return (i2t * t2i).sum()

        return jax.grad(loss, (0, 1))(jnp.asarray(images), jnp.asarray(texts))

    for ours, exact in zip(gradient(argmax_bytes=keep), gradient(implementation="reference"), strict=True):
        np.testing.assert_allclose(ours, exact, atol=2e-6)
