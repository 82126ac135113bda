"""Regions as vectors, the captioner that is told them, and queries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny import VOCAB, tiny_batch, tiny_config, tiny_model
from vlc.data.frame import cover_of_boxes
from vlc.models.cached_decoder import CachedDecoder
from vlc.models.layers import l2_normalise
from vlc.models.regions import region_pool

REGIONS = {"data__regions__count": 3, "model__decoder__control__box": True, "model__decoder__control__mask": True}


def region_batch(config, count=8, seed=1):
    """A batch with regions, of which some images have fewer and one has none."""
    rng = np.random.default_rng(seed)
    most, side = config.data.regions.count, config.data.image.size // config.model.image.patch
    boxes = np.sort(rng.random((count, most, 2, 2)), axis=2).reshape(count, most, 4)
    cover = np.stack([cover_of_boxes(one, side, side) for one in boxes])
    text = rng.integers(3, VOCAB, (count, most, 9))
    text[:, :, 6:] = VOCAB
    text[0], text[1, 1:] = VOCAB, VOCAB
    boxes[0], boxes[1, 1:], cover[0], cover[1, 1:] = 0, 0, 0, 0
    shown = (text < VOCAB).any(axis=2).sum(axis=1)
    return tiny_batch(config, count) | {
        "attributes": jnp.asarray(rng.random((count, 3)) < 0.5, jnp.int8),
        "boxes": jnp.asarray(boxes, jnp.float32),
        "cover": jnp.asarray(cover, jnp.float16),
        "region_text": jnp.asarray(text, jnp.int32),
        "region_classes": jnp.asarray(
            np.where(text[..., 0] < VOCAB, rng.integers(-1, 3, (count, most)), -1), jnp.int32
        ),
        "region_hard": jnp.asarray(_wrong(text, rng), jnp.int32),
        "classes": jnp.asarray(rng.integers(-1, 3, count), jnp.int32),
        "region_counts": jnp.asarray(np.stack([shown, 0 * shown, 0 * shown], axis=1), jnp.int32),
    }


def _wrong(text, rng):
    """Two wrong texts of each region, of some one or none."""
    wrong = np.repeat(text[:, :, None], 2, axis=2)
    wrong[..., 2] = np.where(wrong[..., 2] < VOCAB, rng.integers(3, VOCAB, wrong.shape[:3]), VOCAB)
    wrong[2, 0, 1], wrong[3] = VOCAB, VOCAB
    return wrong


def model_of(**changes):
    config = tiny_config(**REGIONS | changes)
    return config, nnx.merge(*tiny_model(config))


def test_the_pool_is_a_weighted_mean(rng):
    features, cover = rng.normal(size=(2, 6, 4)).astype(np.float32), rng.random((2, 3, 6)).astype(np.float32)
    cover[0, 1], cover[0, 2] = 0, [0, 0, 0.01, 0, 0, 0]
    pooled = np.asarray(region_pool(jnp.asarray(features), jnp.asarray(cover)))
    np.testing.assert_allclose(pooled[1, 0], (cover[1, 0][:, None] * features[1]).sum(0) / cover[1, 0].sum(), rtol=1e-5)
    assert not pooled[0, 1].any()
    np.testing.assert_allclose(pooled[0, 2], features[0, 2], rtol=1e-4)  # smaller than a patch: that patch
    whole = region_pool(jnp.asarray(features), jnp.ones((2, 1, 6)))
    np.testing.assert_allclose(whole[:, 0], features.mean(axis=1), rtol=1e-5)
    gradient = jax.grad(lambda f: region_pool(f, jnp.asarray(cover))[0, 1].sum())(jnp.asarray(features))
    assert not np.asarray(gradient).any()


@pytest.mark.parametrize("pool", ["mean", "map", "cls"])
def test_a_region_of_the_whole_picture(pool):
    config, model = model_of(model__image__pool=pool)
    batch = region_batch(config)
    image = model.encode_image(batch["image"])
    whole = model.encode_regions(image, jnp.ones((8, 1, image.features.shape[1])))[:, 0]
    np.testing.assert_allclose(np.linalg.norm(np.asarray(whole), axis=1), 1, rtol=1e-5)
    if pool == "mean":
        np.testing.assert_allclose(whole, image.embed, atol=1e-5)
    some = model.encode_regions(image, batch["cover"])
    shuffled = model.encode_regions(image, batch["cover"][:, ::-1])
    assert np.array_equal(some[:, ::-1], shuffled) and not np.asarray(some[0]).any()


def test_captions_of_regions_are_those_of_their_image_alone():
    """Rows of one image share its keys and values; the result is as if each had its own."""
    config, model = model_of()
    batch = region_batch(config)
    image = model.encode_image(batch["image"])
    logits = np.asarray(model.region_logits(image, batch["region_text"], batch["boxes"], batch["cover"], batch["null"]))
    decoder = model.captioner()
    for row, place in ((2, 0), (5, 2), (7, 1)):
        alone = jax.tree.map(lambda x, row=row: x[row : row + 1], image)
        one = (slice(row, row + 1), slice(place, place + 1))
        memory = decoder.memory(alone.features, alone.embed, batch["null"][row : row + 1], cover=batch["cover"][one])
        single = decoder(batch["region_text"][one][0], memory, boxes=batch["boxes"][one][0])
        np.testing.assert_allclose(logits[row, place], single[0], atol=1e-5)
    moved = model.region_logits(image, batch["region_text"], batch["boxes"][:, ::-1], batch["cover"], batch["null"])
    marked = model.region_logits(image, batch["region_text"], batch["boxes"], batch["cover"][:, ::-1], batch["null"])
    assert not np.allclose(moved, logits, atol=1e-4)
    hidden = np.asarray(batch["null"])
    assert not np.allclose(np.asarray(marked)[~hidden], logits[~hidden], atol=1e-4)
    np.testing.assert_allclose(np.asarray(marked)[hidden], logits[hidden], atol=1e-6)  # nothing is seen of them


def test_a_caption_of_all_is_that_of_the_box_of_all():
    config, model = model_of(model__decoder__control__mask=False)
    batch = tiny_batch(config)
    image = model.encode_image(batch["image"])
    whole = model.caption_logits(image, batch["target"])
    box = jnp.broadcast_to(jnp.asarray([0.0, 0, 1, 1]), (8, 1, 4))
    told = model.region_logits(image, batch["target"][:, None], box, jnp.ones((8, 1, image.features.shape[1])))
    np.testing.assert_allclose(told[:, 0], whole, atol=1e-6)


@pytest.mark.parametrize("length", [0, 9])
def test_decoding_with_a_cache_is_told_the_same(length):
    config, model = model_of(model__decoder__control__length=length)
    batch = region_batch(config)
    image = model.encode_image(batch["image"])
    control = jnp.asarray([[row] for row in range(8)]) if length else None
    ids = jnp.where(batch["region_text"][:, 2] < VOCAB, batch["region_text"][:, 2], 5)
    whole = model.region_logits(
        image,
        ids[:, None],
        batch["boxes"][:, 2:],
        batch["cover"][:, 2:],
        control=None if control is None else control[:, None],
    )[:, 0]
    cached = CachedDecoder(model, image, control=control, boxes=batch["boxes"][:, 2], cover=batch["cover"][:, 2])
    cache, step = cached.start(16), jax.jit(cached.step)
    for place in range(ids.shape[1]):
        logits, cache = step(jnp.repeat(ids[:, place], 2), jnp.int32(place), cache)
        np.testing.assert_allclose(logits[0, ::2], whole[:, place], atol=1e-5)
        np.testing.assert_allclose(logits[0, 1::2], whole[:, place], atol=1e-5)


def test_queries_find_boxes_within_the_picture():
    config, model = model_of(model__regions__queries=4, model__regions__layers=1, model__regions__width=16,
                             model__regions__heads=2)  # fmt: skip
    batch = region_batch(config)
    found = model.find_regions(model.encode_image(batch["image"]))
    boxes = np.asarray(found.boxes)
    assert boxes.shape == (8, 4, 4) and found.embed.shape == (8, 4, config.model.embed_dim)
    assert (boxes[..., 2:] > boxes[..., :2]).all() and len(np.unique(boxes[0].round(4), axis=0)) == 4
    np.testing.assert_allclose(np.linalg.norm(np.asarray(found.embed), axis=-1), 1, rtol=1e-4)
    np.testing.assert_allclose(model.absent_region(), l2_normalise(model.queries.nothing[...])[0])


@pytest.mark.parametrize(("pool", "registers"), [("mean", 0), ("cls", 2)])
def test_prompts_stand_for_what_is_outside_of_a_mask(pool, registers):
    """`T M + P (1 - M)` before each of the first blocks, by hand; all inside changes not one bit."""
    changes = {"model__image__layers": 3, "model__image__pool": pool, "model__image__registers": registers}
    config, model = model_of(model__image__mask_prompt=2, data__regions__crop=True, **changes)
    batch = tiny_batch(config)
    tower, rng = model.image_tower, np.random.default_rng(0)
    tower.prompts.values[...] = jnp.asarray(rng.normal(size=tower.prompts.values.shape), jnp.float32)
    places = tower.grid**2
    everything, plain = (
        model.encode_image(batch["image"], inside=inside) for inside in (jnp.ones((8, places), bool), None)
    )
    for found, wanted in zip(jax.tree.leaves(everything), jax.tree.leaves(plain), strict=True):
        assert np.array_equal(found, wanted)

    inside = jnp.asarray(rng.random((8, places)) < 0.5)
    features, _, _ = tower(batch["image"], inside=inside)
    seen = []
    blocks, values = tower.stack.unstack(), tower.prompts.values[...]

    class Watched:
        """Runs the blocks one by one, with the rule of the paper before the first two."""

        def __call__(self, x, **kwargs):
            first = int(tower.cls is not None)
            for number, block in enumerate(blocks):
                if number < 2:
                    kept = jnp.where(inside[..., None], x[:, first : first + places], values[number])
                    x = x.at[:, first : first + places].set(kept)
                x = block(x, **kwargs)
            seen.append(x)
            return x

    own, prompts, tower.stack, tower.prompts = tower.stack, tower.prompts, Watched(), None
    wanted, _, _ = tower(batch["image"])
    tower.stack, tower.prompts = own, prompts
    np.testing.assert_allclose(features, wanted, atol=1e-5)
    assert len(seen) == 1


def test_what_is_outside_of_a_mask_is_not_seen_in_the_first_blocks():
    config, model = model_of(model__image__mask_prompt=1, model__image__layers=1, data__regions__crop=True)
    batch = tiny_batch(config)
    inside = jnp.zeros((8, model.image_tower.grid**2), bool).at[:, 0].set(True)
    patch = config.model.image.patch
    other = batch["image"].at[:, patch:].set(7)
    images = [model.encode_image(one, inside=inside).features for one in (batch["image"], other)]
    np.testing.assert_allclose(*images, atol=1e-6)


@pytest.mark.parametrize("positions", ["learned", "sines"])
def test_words_for_places_share_the_positions_of_patches(positions):
    config, model = model_of(
        model__decoder__places=8, data__captions__places=8, model__image__positions=positions, data__image__size=32,
        model__image__patch=8,
    )  # fmt: skip
    decoder, tower = model.captioner(), model.image_tower
    square = np.asarray(tower.square_positions())
    vectors = np.asarray(model.place_vectors())
    assert square.shape[:2] == (4, 4) and vectors.shape == (16, config.model.decoder.width)
    kernel = np.asarray(decoder.place_words.map.kernel[...])
    across = square.mean(axis=0)  # by column
    middle = 0.75 * across[0] + 0.25 * across[1]  # of bin 1 of 8: 0.25 patches behind the first one's middle
    np.testing.assert_allclose(vectors[1], middle @ kernel, atol=1e-5)
    np.testing.assert_allclose(vectors[8], square.mean(axis=1)[0] @ kernel, atol=1e-5)  # at the edge: the first row
    ids = jnp.asarray([[1, 3, 4, 11, 19, 30, VOCAB]])
    plain, shared = decoder.embed(ids), decoder.words(ids, model.place_vectors())
    added = np.asarray(shared - plain)[0]
    assert not added[[0, 4, 5, 6]].any()
    np.testing.assert_allclose(added[[1, 2, 3]], vectors[[0, 1, 8]], atol=1e-5)

    batch = tiny_batch(config)
    image, ids = model.encode_image(batch["image"]), jnp.where(batch["target"] < VOCAB, batch["target"], 5)
    whole = model.caption_logits(image, ids)
    cached = CachedDecoder(model, image)
    cache, step = cached.start(8), jax.jit(cached.step)
    for place in range(ids.shape[1]):
        logits, cache = step(ids[:, place], jnp.int32(place), cache)
        np.testing.assert_allclose(logits[0], whole[:, place], atol=1e-5)


def test_captions_are_reconstructed_from_where_their_words_are_found():
    """The paper's equations by hand; and nothing of the picture reaches the second pass but what is looked up."""
    config, model = model_of(model__decoder__localiser=True)
    batch, decoder = tiny_batch(config), model.captioner()
    image, ids = model.encode_image(batch["image"]), jnp.where(batch["target"] < VOCAB, batch["target"], 5)
    written = jnp.roll(ids, 3, axis=1)
    memory = decoder.memory(image.features, image.embed)
    tokens, words = np.asarray(memory.tokens), np.asarray(decoder.embed.tokens[...])[np.asarray(written)]
    scores = np.einsum("btw,wv,bpv->btp", words, np.asarray(decoder.localiser.map.kernel[...]), tokens)
    share = np.exp(scores / np.sqrt(words.shape[2]))
    found = np.einsum("btp,bpw->btw", share / share.sum(axis=2, keepdims=True), tokens)
    np.testing.assert_allclose(decoder.localiser(jnp.asarray(words), memory.tokens, None), found, atol=1e-5)
    again = model.reconstructed_logits(image, ids, written)
    nothing = memory._replace(tokens=jnp.zeros((8, 1, tokens.shape[2])))
    x = jnp.concatenate([decoder.prefix(None, None, 8), decoder.embed(ids) + jnp.asarray(found)], axis=1)
    by_hand = decoder.logits(decoder.stack(x, memory=nothing)[:, decoder.slots :])
    np.testing.assert_allclose(again, by_hand, atol=1e-4)

    looked = np.asarray(model.attention_maps(image, ids))
    assert looked.shape == (8, ids.shape[1], image.features.shape[1])
    np.testing.assert_allclose(looked.sum(axis=2), 1, rtol=1e-5)
    other = np.asarray(model.attention_maps(image, ids.at[:, 4].set(9)))
    assert np.array_equal(other[:, :4], looked[:, :4]) and not np.array_equal(other[:, 4:], looked[:, 4:])
