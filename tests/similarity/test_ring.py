"""Texts that go around a ring of devices: the loss and gradients of one device, in memory that stays flat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests import oracle
from tests.conftest import unit_rows
from vlc.errors import ConfigError
from vlc.objectives import clip_loss, filip_loss, siglip_loss
from vlc.parallel import make_mesh

ROWS = PartitionSpec(("data", "fsdp"))


def mesh_of(*shape):
    sizes = dict(zip(("data", "fsdp", "tensor"), shape, strict=True))
    return make_mesh(sizes, jax.devices()[: int(np.prod(shape))])


def example(count=16, patches=5, tokens=6, width=8):
    """Tokens, captions of uneven length (one of pads only), and embeddings."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, tokens + 1, count)
    lengths[3] = 0
    return {
        "images": unit_rows(rng, count, patches, width),
        "texts": unit_rows(rng, count, tokens, width),
        "mask": np.arange(tokens) < lengths[:, None],
        "image_embed": unit_rows(rng, count, width),
        "text_embed": unit_rows(rng, count, width),
        "wrong": unit_rows(rng, count, 2, tokens, width),
        "wrong_mask": np.arange(tokens) < rng.integers(0, tokens + 1, (count, 2, 1)),
        "wrong_embed": unit_rows(rng, count, 2, width),
    }


LOSSES = {
    "filip": lambda x, s, b, **k: filip_loss(x["images"], x["texts"], x["mask"] > 0, s, **k),
    "filip, by text": lambda x, s, b, **k: filip_loss(
        x["images"], x["texts"], x["mask"] > 0, s, further=(x["wrong"], x["wrong_mask"] > 0), scores="text", **k
    ),
    "clip": lambda x, s, b, **k: clip_loss(x["image_embed"], x["text_embed"], s, **k),
    "align": lambda x, s, b, **k: clip_loss(
        x["image_embed"], x["text_embed"], s, label_smoothing=0.1, reduction="sum", **k
    ),
    "siglip": lambda x, s, b, **k: siglip_loss(x["image_embed"], x["text_embed"], s, b, **k),
    "filip, wrong texts": lambda x, s, b, **k: filip_loss(
        x["images"], x["texts"], x["mask"] > 0, s, further=(x["wrong"], x["wrong_mask"] > 0), further_weight=0.5, **k
    ),
    "clip, wrong texts": lambda x, s, b, **k: clip_loss(
        x["image_embed"], x["text_embed"], s, further=wrong_embeds(x), further_weight=0.5, **k
    ),
    "siglip, wrong texts": lambda x, s, b, **k: siglip_loss(
        x["image_embed"], x["text_embed"], s, b, further=wrong_embeds(x), further_weight=0.5, **k
    ),
}


def wrong_embeds(x):
    return x["wrong_embed"], x["wrong_mask"].max(axis=2)


@pytest.mark.parametrize("exchange", ["ring", "gather"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (2, 2, 1), (1, 4, 2), (8, 1, 1), (2, 4, 1)])
def test_loss_and_gradients_are_those_of_one_device(shape, name, exchange):
    inputs = {k: jnp.asarray(v, jnp.float32) for k, v in example().items()}
    loss = LOSSES[name]
    numbers = jnp.float32(9.0), jnp.float32(-3.0)
    alone = jax.value_and_grad(loss, (0, 1, 2))(inputs, *numbers)
    mesh = mesh_of(*shape)
    with jax.set_mesh(mesh):
        spread = {k: jax.device_put(v, NamedSharding(mesh, ROWS)) for k, v in inputs.items()}
        run = jax.jit(jax.value_and_grad(lambda *args: loss(*args, exchange=exchange), (0, 1, 2)))
        together = run(spread, *numbers)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 2, 1), (8, 1, 1)])
def test_targets_by_transport_are_those_of_the_whole_batch(shape):
    inputs = {k: jnp.asarray(v, jnp.float32) for k, v in example().items() if k in ("image_embed", "text_embed")}
    loss = jax.value_and_grad(lambda x: clip_loss(x["image_embed"], x["text_embed"], 9.0, transport=0.3))
    alone, mesh = loss(inputs), mesh_of(*shape)
    with jax.set_mesh(mesh):
        spread = {k: jax.device_put(v, NamedSharding(mesh, ROWS)) for k, v in inputs.items()}
        together = jax.jit(loss)(spread)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_the_ring_s_loss_is_the_oracle_s():
    inputs = example()
    i2t, t2i = oracle.late_interaction(inputs["images"], inputs["texts"], inputs["mask"])
    wanted = -0.5 * (
        np.diagonal(oracle.log_softmax(9 * i2t, 1)).mean() + np.diagonal(oracle.log_softmax(9 * t2i, 0)).mean()
    )
    mesh = mesh_of(8, 1, 1)
    with jax.set_mesh(mesh):
        spread = {k: jax.device_put(v, NamedSharding(mesh, ROWS)) for k, v in inputs.items()}
        got = jax.jit(lambda x: LOSSES["filip"](x, 9.0, 0.0, exchange="ring"))(spread)
    assert float(got) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", ["filip", "clip"])
def test_memory_of_a_device_does_not_grow_with_their_number(name):
    """At a constant share of the batch. Gathering does grow, which shows that the measurement can tell."""
    share = 32

    def temporary(devices, exchange):
        mesh = mesh_of(devices, 1, 1)
        shapes = {
            k: jax.ShapeDtypeStruct((devices * share, *v.shape[1:]), jnp.float32, sharding=NamedSharding(mesh, ROWS))
            for k, v in example(patches=9, tokens=12, width=64).items()
        }
        with jax.set_mesh(mesh):
            run = jax.jit(jax.grad(lambda x, s: LOSSES[name](x, s, 0.0, exchange=exchange), (0, 1)))
            return run.lower(shapes, jnp.float32(9)).compile().memory_analysis().temp_size_in_bytes

    assert temporary(8, "ring") <= 1.05 * temporary(4, "ring")  # with 2 devices there is no loop
    assert temporary(8, "gather") > 1.5 * temporary(2, "gather")


def test_bfloat16_tokens_keep_their_type_and_sum_in_float32():
    inputs = {k: jnp.asarray(v, jnp.bfloat16) for k, v in example().items()}
    mesh = mesh_of(8, 1, 1)
    alone = jax.grad(lambda x: LOSSES["filip"](x, 9.0, 0.0))(inputs)
    with jax.set_mesh(mesh):
        spread = {k: jax.device_put(v, NamedSharding(mesh, ROWS)) for k, v in inputs.items()}
        around = jax.jit(jax.grad(lambda x: LOSSES["filip"](x, 9.0, 0.0, exchange="ring")))(spread)
    for key in ("images", "texts"):
        assert around[key].dtype == jnp.bfloat16
        a, b = (np.asarray(x[key], np.float32) for x in (alone, around))
        assert np.linalg.norm(a - b) < 0.02 * np.linalg.norm(a)


def test_an_unknown_exchange_is_named():
    with pytest.raises(ConfigError, match="ring"):
        clip_loss(jnp.eye(2), jnp.eye(2), 1.0, exchange="rings")
