"""Causality, pads, caches, layouts: what must hold bit for bit before any checkpoint is published."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from tests.tiny import VOCAB, tiny_batch, tiny_config, tiny_model
from vlc.config import default_config, resolve_auto
from vlc.models import presets
from vlc.models.cached_decoder import CachedDecoder
from vlc.models.vit import cut_patches
from vlc.train.state import build_model, count_parameters


def merged(**changes):
    layers = {f"model__{part}__layers": 2 for part in ("image", "text", "decoder")}
    config = tiny_config(**layers | changes)
    return config, nnx.merge(*tiny_model(config))


@pytest.mark.parametrize("memory", ["tokens", "pooled", "embedding"])
def test_cached_decoding_equals_the_whole_pass(memory):
    """Both branches, with something asked for before the words, two captions of each image."""
    asked_for = {"length": 9, "alignment": 0, "edges": (), "best": 0, "sources": "alt,long", "box": True,
                 "mask": False}  # fmt: skip
    config, model = merged(model__decoder__memory=memory, model__decoder__control=ConfigDict(asked_for))
    batch = tiny_batch(config)
    image = model.encode_image(batch["image"])
    ids = jnp.where(batch["target"] < VOCAB, batch["target"], 5)
    control = jnp.asarray([[row, row % 3] for row in range(8)])
    read = jax.jit(model.caption_logits)
    whole = [read(image, ids, jnp.full(8, null), control) for null in (False, True)]
    stepper = CachedDecoder(model, image, branches=("conditional", "unconditional"), control=control)
    cache, step = stepper.start(16), jax.jit(stepper.step)
    for place in range(ids.shape[1]):
        logits, cache = step(jnp.repeat(ids[:, place], 2), jnp.int32(place), cache)
        np.testing.assert_allclose(logits[:, ::2], [part[:, place] for part in whole], atol=1e-5)
        np.testing.assert_allclose(logits[:, 1::2], logits[:, ::2], atol=1e-5)


def test_the_captioner_does_not_look_ahead_and_pads_change_nothing():
    config, model = merged()
    batch = tiny_batch(config)
    image, ids, read = model.encode_image(batch["image"]), batch["target"], jax.jit(model.caption_logits)
    logits = read(image, ids)
    other = read(image, ids.at[:, 6].set(4))
    assert np.array_equal(logits[:, :6], other[:, :6]) and not np.array_equal(logits[:, 6], other[:, 6])
    assert np.array_equal(logits, read(image, jnp.where(ids == VOCAB, VOCAB + 1000, ids)))


def test_what_is_asked_for_changes_the_words():
    asked_for = {"length": 9, "alignment": 3, "edges": (), "best": 0, "sources": "alt,long", "box": True,
                 "mask": False}  # fmt: skip
    config, model = merged(model__decoder__control=ConfigDict(asked_for))
    batch = tiny_batch(config)
    image = model.encode_image(batch["image"])
    asked = [model.caption_logits(image, batch["target"], None, jnp.full((8, 3), value)) for value in (0, 1)]
    unsaid = model.caption_logits(image, batch["target"])
    assert np.array_equal(asked[0], unsaid) and not np.allclose(asked[1], unsaid, atol=1e-4)


def test_parallel_prediction_reads_no_word():
    """CapPa: logits of a caption in parallel depend on the image alone; its neighbours in the batch are as ever."""
    config, model = merged(model__decoder__parallel=0.75)
    batch = tiny_batch(config)
    image, parallel = model.encode_image(batch["image"]), jnp.arange(8) < 4
    logits = model.caption_logits(image, batch["target"], parallel=parallel)
    other = model.caption_logits(image, (batch["target"] + 7) % VOCAB, parallel=parallel)
    assert np.array_equal(logits[:4], other[:4]) and not np.array_equal(logits[4:], other[4:])
    np.testing.assert_allclose(logits[4:], model.caption_logits(image, batch["target"])[4:], atol=1e-5)
    assert not np.allclose(logits[:1], logits[1:2], atol=1e-4)


def test_a_null_image_hides_the_image():
    config, model = merged()
    batch = tiny_batch(config)
    hidden = jnp.ones(8, bool)
    one = model.caption_logits(model.encode_image(batch["image"]), batch["target"], hidden)
    two = model.caption_logits(model.encode_image(255 - batch["image"]), batch["target"], hidden)
    shown = model.caption_logits(model.encode_image(batch["image"]), batch["target"], ~hidden)
    assert np.array_equal(one, two) and not np.array_equal(one, shown)


@pytest.mark.parametrize("changes", [{"model__scan": True}, {"model__remat": "full"}, {"model__remat": "dots"}])
def test_scan_and_remat_change_neither_parameters_nor_results(changes):
    config, model = merged()
    _, other = merged(**changes)
    for a, b in zip(jax.tree.leaves(nnx.state(model)), jax.tree.leaves(nnx.state(other)), strict=True):
        assert np.array_equal(a, b)
    images = tiny_batch(config)["image"]

    def loss(model):
        encoded = model.encode_image(images)
        return (encoded.embed * encoded.tokens[:, 0]).sum()

    for a, b in zip(jax.tree.leaves(nnx.grad(loss)(model)), jax.tree.leaves(nnx.grad(loss)(other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pool", ["cls", "mean", "map"])
def test_tokens_and_embeddings_have_unit_length(pool):
    config, model = merged(model__image__pool=pool)
    encoded = model.encode_image(tiny_batch(config)["image"])
    assert encoded.tokens.shape == (8, 4, 32) and encoded.embed.shape == (8, 32)
    np.testing.assert_allclose(np.linalg.norm(encoded.tokens, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(encoded.embed, axis=-1), 1, atol=1e-5)


def test_patches_are_read_row_by_row():
    pixels = np.zeros((1, 16, 16, 3), np.float32)
    pixels[0, :8, 8:] = 1  # the second patch of the first row
    patches = cut_patches(jnp.asarray(pixels), 8)
    assert [float(p.mean()) for p in patches[0]] == [0.0, 1.0, 0.0, 0.0]


def test_bfloat16_computes_narrow_and_keeps_wide_parameters():
    config, model = merged(model__dtype="bfloat16")
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    encoded = model.encode_image(tiny_batch(config)["image"])
    assert encoded.features.dtype == jnp.bfloat16 and encoded.embed.dtype == jnp.float32


@pytest.mark.parametrize(
    ("image", "text", "patches", "millions"),
    [("B/32", "B", 49, 151), ("B/16", "B", 196, 150), ("L/14", "L", 256, 428)],
)
def test_presets_have_the_size_of_the_published_models(image, text, patches, millions):
    """CLIP's released models have 151, 150 and 428 million parameters; ours add the token projections."""
    config = default_config()
    config.model.image.update(presets.image_tower(image))
    config.model.text.update(presets.text_tower(text))
    config.model.embed_dim = 768 if text == "L" else 512
    run = resolve_auto(config, "cpu")
    model = nnx.eval_shape(lambda: build_model(run, 49_408, jax.random.key(0)))
    assert model.image_tower.grid**2 == patches
    assert count_parameters(nnx.state(model, nnx.Param)) / 1e6 == pytest.approx(millions, rel=0.012)


def test_the_temperature_is_bounded():
    _, model = merged(model__init_logit_scale=5000.0)
    assert float(model.scales().logit_scale) == pytest.approx(100.0, rel=1e-5)


@pytest.mark.parametrize("scan", [True, False])
def test_only_unrolled_layers_pass_a_barrier(scan):
    """On accelerators, where layers are a loop, the program is what it was without one."""
    config = tiny_config(model__scan=scan)
    graph, params = tiny_model(config)

    def embed(params, images):
        return nnx.merge(graph, params).encode_image(images).embed.sum()

    step = jax.jit(jax.grad(embed)).lower(params, tiny_batch(config)["image"])
    assert ("optimization_barrier" in step.as_text()) != scan
