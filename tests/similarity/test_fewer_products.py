"""Length buckets change nothing but the work; token selection keeps the tokens that FILIP keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import vlc
from tests.conftest import unit_rows
from vlc.errors import ConfigError
from vlc.objectives import filip_loss
from vlc.parallel import make_mesh
from vlc.similarity.selection import select_tokens


def example(images=9, texts=37, patches=5, tokens=12, width=8):
    rng = np.random.default_rng(0)
    mask = np.arange(tokens) < rng.integers(0, tokens + 1, (texts, 1))
    mask[-1] = np.arange(tokens) % 3 == 1  # with gaps
    arrays = unit_rows(rng, images, patches, width), unit_rows(rng, texts, tokens, width), mask
    return [jnp.asarray(x) for x in arrays]


@pytest.mark.parametrize("widths", [(1,), (3, 6, 9), (12,), (4, 40)])
def test_buckets_are_exact_in_value_and_gradient(widths):
    images, texts, mask = example()
    weights = [jnp.asarray(np.random.default_rng(i).normal(size=(9, 37)), jnp.float32) for i in range(2)]

    def run(**options):
        def loss(images, texts):
            scores = vlc.late_interaction(images, texts, mask, **options)
            return sum((w * s).sum() for w, s in zip(weights, scores, strict=True)), scores

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(images, texts)

    for a, b in zip(jax.tree.leaves(run()), jax.tree.leaves(run(buckets=widths)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-6)


def slow_selection(images, texts, mask, keep):
    products = np.einsum("ipd,jtd->ipjt", images, texts)
    patch = np.where(mask, products, -np.inf).max(axis=(2, 3))
    token = np.where(mask, products.max(axis=(0, 1)), -np.inf)

    def top(ranks):
        return [sorted(np.argsort(-row)[: int(np.ceil(keep * len(row)))]) for row in ranks]

    return top(patch), top(token)


@pytest.mark.parametrize("groups", [1, 4])
def test_selection_keeps_what_the_local_batch_likes_best(groups):
    images, texts, mask = (np.array(x) for x in example(8, 8, 7, 9))
    mask[:, :4] = True
    kept = select_tokens(*map(jnp.asarray, (images, texts, mask)), keep=0.3, groups=groups)
    size = 8 // groups
    for g in range(groups):
        rows = slice(g * size, (g + 1) * size)
        patches, tokens = slow_selection(images[rows], texts[rows], mask[rows], 0.3)
        for i in range(size):
            np.testing.assert_array_equal(kept[0][rows][i], images[rows][i][patches[i]])
            np.testing.assert_array_equal(kept[1][rows][i], texts[rows][i][tokens[i]])
            np.testing.assert_array_equal(kept[2][rows][i], mask[rows][i][tokens[i]])


def test_a_short_text_keeps_all_its_tokens_and_no_pad():
    images, texts, _ = example(4, 4, 5, 12)
    mask = jnp.arange(12) < jnp.asarray([2, 1, 0, 12])[:, None]
    assert select_tokens(images, texts, mask, keep=0.25)[2].sum(axis=1).tolist() == [2, 1, 0, 3]


@pytest.mark.parametrize("options", [{"keep_tokens": 0.25}, {"buckets": (3, 6)}, {"keep_tokens": 0.5, "buckets": (3,)}])
def test_on_a_mesh_both_exchanges_agree(options):
    images, texts, mask = example(16, 16)
    mesh = make_mesh({"data": 4, "fsdp": 2, "tensor": 1})
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    with jax.set_mesh(mesh):
        spread = [jax.device_put(x, rows) for x in (images, texts, mask)]

        def run(exchange):
            loss = lambda i, t, m: filip_loss(i, t, m, 9.0, exchange=exchange, **options)  # noqa: E731
            return jax.jit(jax.value_and_grad(loss, (0, 1)))(*spread)

        for a, b in zip(jax.tree.leaves(run("ring")), jax.tree.leaves(run("gather")), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_a_share_out_of_range_is_named():
    images, texts, mask = example(4, 4)
    with pytest.raises(ConfigError, match="share"):
        filip_loss(images, texts, mask, 1.0, keep_tokens=0.0)
