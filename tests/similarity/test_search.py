"""Retrieval from a stream: the same as ranking everything at once, in memory that does not grow with the gallery."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import vlc
from tests.conftest import unit_rows
from vlc.errors import ConfigError
from vlc.parallel import make_mesh
from vlc.similarity import find_images, find_texts, in_blocks


def example(images, texts, patches=5, tokens=6, width=8):
    rng = np.random.default_rng(0)
    mask = np.arange(tokens) < rng.integers(1, tokens + 1, (texts, 1))
    return unit_rows(rng, images, patches, width), unit_rows(rng, texts, tokens, width), mask


def ranked(scores, k):
    places = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, places, axis=1), places


@pytest.mark.parametrize("block", [1, 7, 10, 64])
@pytest.mark.parametrize("k", [1, 10, 37])
def test_it_finds_what_ranking_everything_finds(block, k):
    images, texts, mask = example(37, 37)
    i2t, t2i = map(np.asarray, vlc.late_interaction(*map(jnp.asarray, (images, texts, mask))))
    for found, scores in (
        (find_texts(images, in_blocks(block, texts, mask), k), i2t),
        (find_images(texts, mask, in_blocks(block, images), k), t2i.T),
    ):
        wanted, places = ranked(scores, k)
        np.testing.assert_allclose(found.scores, wanted, atol=1e-6)
        np.testing.assert_array_equal(found.places, places)


def test_of_equals_the_first_is_found_first_and_nothing_is_found_twice():
    images, texts, mask = example(3, 1)
    found = find_texts(images, in_blocks(4, np.repeat(texts, 9, 0), np.repeat(mask, 9, 0)), 12)
    np.testing.assert_array_equal(found.places[:, :9], np.tile(np.arange(9), (3, 1)))
    assert (found.places[:, 9:] == -1).all() and np.isneginf(found.scores[:, 9:]).all()


def test_a_damaged_item_is_never_found():
    images, texts, mask = example(3, 6)
    texts[2] = np.nan
    assert (find_texts(images, in_blocks(3, texts, mask), 6).places != 2).all()


def test_blocks_may_have_their_own_width():
    images, texts, mask = example(4, 12)
    whole = find_texts(images, [(texts, mask)], 3)
    mixed = find_texts(images, [(texts[:6], mask[:6]), (np.pad(texts[6:], ((0, 0), (0, 3), (0, 0))),
                                                        np.pad(mask[6:], ((0, 0), (0, 3))))], 3)  # fmt: skip
    np.testing.assert_array_equal(whole.places, mixed.places)


def test_memory_does_not_grow_with_the_gallery():
    images, _, _ = example(16, 1)
    rng = np.random.default_rng(1)

    def most_bytes(blocks):
        held = []

        def gallery():
            for _ in range(blocks):
                held.append(sum(x.nbytes for x in jax.live_arrays()))
                yield rng.normal(size=(512, 6, 8)).astype(np.float32), np.ones((512, 6), bool)

        before = sum(x.nbytes for x in jax.live_arrays())
        find_texts(images, gallery(), 10)
        return max(held) - before

    assert most_bytes(64) <= 1.05 * most_bytes(8)


def test_on_a_mesh_it_finds_the_same():
    images, texts, mask = example(16, 40)
    alone = find_texts(images, in_blocks(16, texts, mask), 5), find_images(texts, mask, in_blocks(8, images), 5)
    mesh = make_mesh({"data": 4, "fsdp": 2, "tensor": 1})
    with jax.set_mesh(mesh):
        queries = jax.device_put(images, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
        spread = find_texts(queries, in_blocks(16, texts, mask), 5), find_images(texts, mask, in_blocks(8, images), 5)
    for a, b in zip(alone, spread, strict=True):
        np.testing.assert_array_equal(a.places, b.places)


def test_what_makes_no_sense_is_named():
    images, texts, mask = example(2, 2)
    with pytest.raises(ConfigError, match="at least one"):
        find_texts(images, [(texts, mask)], 0)
    with pytest.raises(ConfigError, match="empty"):
        find_texts(images, [], 1)
    with pytest.raises(ConfigError, match="a mask"):
        find_texts(images, [(texts, mask[:, :3])], 1)
