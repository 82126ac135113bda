"""Recipes of today: each is what its paper says, and none is there where it is not asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny import VOCAB, tiny_batch, tiny_config, tiny_model
from vlc.models.cached_decoder import CachedDecoder
from vlc.models.places import angles_at, places_of_square, sines_at
from vlc.models.rotary import rotate, text_angles
from vlc.models.stem import ConvStem, strides_of
from vlc.train.patches import kept_patches, random_patches


def merged(**changes):
    config = tiny_config(**{"data__image__size": 32, **changes})  # 16 patches
    return config, nnx.merge(*tiny_model(config))


def numbers(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


# -- convolutions in place of a linear map


def test_strides_are_the_factors_of_a_patch():
    """With one more of stride 1 after each but the first and the last."""
    assert strides_of(16) == (2, 2, 1, 2, 1, 2) and strides_of(12) == (2, 2, 1, 3) and strides_of(14) == (2, 7)
    assert strides_of(1) == () and strides_of(2) == (2,)


@pytest.mark.parametrize(("patch", "grid"), [(8, 4), (14, 2), (1, 6)])
def test_a_stem_gives_a_place_for_each_patch(patch, grid):
    stem = ConvStem(patch, 32, dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert stem(numbers(2, patch * grid, patch * grid, 3)).shape == (2, grid * grid, 32)


def test_a_stem_sees_the_same_at_every_place():
    """Away from the border: a picture moved by a patch gives features that are moved by a place."""
    stem = ConvStem(4, 16, dtype=jnp.float32, rngs=nnx.Rngs(0))
    picture = jnp.zeros((1, 24, 24, 3)).at[:, 5:11, 6:12].set(numbers(1, 6, 6, 3))
    here = stem(picture).reshape(6, 6, 16)
    moved = stem(jnp.roll(picture, 4, axis=2)).reshape(6, 6, 16)
    np.testing.assert_allclose(moved[1:-1, 2:-1], here[1:-1, 1:-2], atol=1e-5)


# -- places


def test_sines_are_those_of_big_vision():
    """Its `posemb_sincos_2d(3, 3, 8)`, by hand: rates 1 and 1/10,000, x before y."""
    waves = sines_at(places_of_square(3, 3), 8)
    y, x = 2, 1  # place 7
    wanted = [wave(place * rate) for place in (x, y) for wave in (np.sin, np.cos) for rate in (1, 1e-4)]
    np.testing.assert_allclose(waves[7], wanted, rtol=1e-6)


def test_turned_products_depend_on_the_distance_alone():
    query, key = numbers(1, 1, 1, 8), numbers(1, 1, 2, 8)[:, :, 1:]
    angles = text_angles(12, 8)

    def product(i, j):
        return float((rotate(query, angles[[i]]) * rotate(key, angles[[j]])).sum())

    assert product(2, 5) == pytest.approx(product(7, 10), rel=1e-4) != pytest.approx(product(2, 6), rel=1e-2)
    np.testing.assert_allclose(jnp.linalg.norm(rotate(query, angles[[7]])), jnp.linalg.norm(query), rtol=1e-6)


def test_patches_are_turned_by_x_and_by_y():
    x, y = np.split(angles_at(places_of_square(4, 4), 16).reshape(4, 4, 8), 2, axis=-1)
    np.testing.assert_allclose(x[0, 3], 3 * 100.0 ** (-np.arange(4) / 4), rtol=1e-6)
    assert (x == x[:1]).all() and (y == y[:, :1]).all()


@pytest.mark.parametrize("causal", [True, False])
def test_pads_after_a_turned_text_change_nothing(causal):
    _, model = merged(model__text__rotary=True, model__text__causal=causal)
    ids = jnp.full((1, 12), VOCAB).at[0, :5].set(jnp.arange(5, 10))
    short, padded = model.encode_text(ids[:, :5]), model.encode_text(ids)
    np.testing.assert_allclose(short.embed, padded.embed, atol=1e-5)
    np.testing.assert_allclose(short.tokens, padded.tokens[:, :5], atol=1e-5)


# -- blocks


BLOCKS = {"norm": "rms", "qk_norm": True, "activation": "swiglu"}


def test_root_mean_square_gate_and_bounded_logits_are_their_equations():
    _, model = merged(**{f"model__image__{key}": value for key, value in BLOCKS.items()})
    block = model.image_tower.stack.unstack()[0]
    x = numbers(2, 5, 32)
    square = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(block.norm1(x), square, atol=1e-5)
    up = block.mlp.up(x)
    gated = up[..., 0, :] * jax.nn.sigmoid(up[..., 0, :]) * up[..., 1, :]
    np.testing.assert_allclose(block.mlp(x), block.mlp.down(gated), atol=1e-6)
    small, large = (block.attention.queries(scale * x) for scale in (1.0, 1e3))
    np.testing.assert_allclose(jnp.linalg.norm(large, axis=-1), 4, rtol=1e-3)  # the root of the head's width, 16
    assert float(jnp.abs(small - large).max()) < 0.05


def test_cached_decoding_with_other_blocks_equals_the_whole_pass():
    changes = {f"model__decoder__{key}": value for key, value in BLOCKS.items()}
    config, model = merged(model__decoder__layers=2, **changes)
    batch = tiny_batch(config)
    image = model.encode_image(batch["image"])
    ids = jnp.where(batch["target"] < VOCAB, batch["target"], 5)
    whole = model.caption_logits(image, ids)
    stepper = CachedDecoder(model, image, branches=("conditional",))
    cache, step = stepper.start(8), jax.jit(stepper.step)
    for place in range(ids.shape[1]):
        logits, cache = step(ids[:, place], jnp.int32(place), cache)
        np.testing.assert_allclose(logits[0], whole[:, place], atol=1e-5)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_registers_are_read_and_dropped(pool):
    config, model = merged(model__image__registers=3, model__image__pool=pool, model__image__layers=2)
    images = tiny_batch(config)["image"]
    before = model.encode_image(images)
    assert before.tokens.shape == (8, 16, 32)
    model.image_tower.registers[...] = numbers(3, 32)
    assert not np.allclose(model.encode_image(images).embed, before.embed, atol=1e-3)


# -- FLIP


@pytest.mark.parametrize("pool", ["cls", "mean", "map"])
@pytest.mark.parametrize("rotary", [False, True])
def test_all_patches_kept_are_the_whole_and_dropped_ones_are_not_seen(pool, rotary):
    config, model = merged(model__image__pool=pool, model__image__rotary=rotary)
    images = tiny_batch(config)["image"]
    whole = model.encode_image(images)
    every = jnp.broadcast_to(jnp.arange(16), (8, 16))
    np.testing.assert_allclose(model.encode_image(images, every).embed, whole.embed, atol=1e-6)
    kept = every[:, ::2]  # the even columns of four patches of 8 pixels
    seen = model.encode_image(images, kept)
    assert seen.tokens.shape == (8, 8, 32)
    columns = (np.arange(32) // 8) % 2 == 1
    hidden = jnp.asarray(np.where(columns[:, None], 0, images))
    np.testing.assert_allclose(model.encode_image(hidden, kept).embed, seen.embed, atol=1e-6)


def test_every_image_keeps_other_patches_and_the_same_in_the_same_step():
    images = np.zeros((64, 32, 32, 3), np.uint8)
    kept = np.asarray(random_patches(images, 8, 0.7, jax.random.key(1)))
    assert kept.shape == (64, kept_patches(32, 8, 0.7)) == (64, 5)
    assert (
        all(len(set(row)) == 5 and (np.diff(row) > 0).all() for row in kept) and len({tuple(row) for row in kept}) > 50
    )
    assert set(kept.ravel()) == set(range(16))
    assert np.array_equal(kept, random_patches(images, 8, 0.7, jax.random.key(1)))
