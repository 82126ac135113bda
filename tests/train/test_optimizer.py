"""Schedules, weight decay on matrices only, and LAMB's ratio for each layer by itself."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image

from tests.conftest import read_config
from tests.tiny import tiny_config, tiny_model
from vlc.train import train
from vlc.train.optimizer import clip_by_global_norm, decayed, make_optimizer, make_schedule, scale_by_layer_trust_ratio


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_schedules_warm_up_to_the_peak_and_end(name):
    schedule = make_schedule(tiny_config(optimizer__schedule=name, optimizer__warmup_steps=10).optimizer, 100)
    assert float(schedule(0)) == 0 and float(schedule(5)) == pytest.approx(0.5e-3)
    assert float(schedule(10)) == pytest.approx(1e-3)
    assert float(schedule(100)) == pytest.approx(1e-3 if name == "constant" else 0, abs=1e-9)


def test_only_kernels_decay():
    _, params = tiny_model(tiny_config())
    mask = decayed(nnx.to_pure_dict(params))
    paths = {
        jax.tree_util.keystr(p, simple=True, separator="/"): on for p, on in jax.tree_util.tree_leaves_with_path(mask)
    }
    on = {path for path, value in paths.items() if value}
    assert on and all(path.endswith("kernel") for path in on)
    assert not any(word in path for path in on for word in ("norm", "bias", "positions", "tokens", "scale"))
    assert any("attention/query" in path for path in on) and any("mlp/up" in path for path in on)


def test_lamb_on_stacked_layers_equals_lamb_on_each():
    rng = np.random.default_rng(0)
    layers = [{"kernel": jnp.asarray(rng.normal(size=(4, 5)) * 3**i, jnp.float32)} for i in range(3)]
    updates = [jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), jnp.float32), layer) for layer in layers]

    def stack(trees):
        return {"blocks": jax.tree.map(lambda *x: jnp.stack(x), *trees)}

    ours = scale_by_layer_trust_ratio()
    got, _ = ours.update(stack(updates), ours.init(stack(layers)), stack(layers))
    for i in range(3):
        theirs = optax.scale_by_trust_ratio()
        wanted, _ = theirs.update(updates[i], theirs.init(layers[i]), layers[i])
        np.testing.assert_allclose(got["blocks"]["kernel"][i], wanted["kernel"], rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_the_chain_equals_optax_on_plain_parameters(name):
    config = tiny_config(optimizer__name=name, optimizer__clip_norm=0.0, optimizer__schedule="constant").optimizer
    config.warmup_steps = 0
    params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)}
    ours = make_optimizer(config, 100)
    make = getattr(optax, name)
    theirs = make(config.lr, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay)
    state, other = ours.init(params), theirs.init(params)
    mine = same = params
    for i in range(5):
        gradient = jax.tree.map(lambda w, i=i: jnp.sin(w + i), params)
        update, state = ours.update(gradient, state, mine)
        mine = optax.apply_updates(mine, update)
        update, other = theirs.update(gradient, other, same)
        same = optax.apply_updates(same, update)
    np.testing.assert_allclose(mine["kernel"], same["kernel"], rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 50.0])
def test_clipping_is_that_of_optax(scale):
    rng = np.random.default_rng(1)
    gradients = {
        name: jnp.asarray(scale * rng.normal(size=shape), jnp.float32) for name, shape in (("a", (7, 3)), ("b", 5))
    }
    ours, _ = clip_by_global_norm(1.0).update(gradients, optax.EmptyState())
    theirs, _ = optax.clip_by_global_norm(1.0).update(gradients, optax.EmptyState())
    for name, gradient in gradients.items():
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6)
        if scale < 1:  # below the limit nothing changes by one bit
            assert np.array_equal(ours[name], gradient)


def test_lamb_scales_no_update_of_biases_norms_and_temperatures():
    _, params = tiny_model(tiny_config())
    params = nnx.to_pure_dict(params)
    updates = jax.tree.map(lambda x: jnp.full(x.shape, 0.5), params)
    lamb = scale_by_layer_trust_ratio()
    scaled, _ = lamb.update(updates, lamb.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(scaled):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        plain = name.endswith(("bias", "scale"))
        assert bool((update == 0.5).all()) == plain, name


def test_aligns_recipe_learns_its_temperature(tmp_path):
    """From 1.0, whose logarithm has no length for LAMB's trust ratio. Eight pictures are soon told apart."""
    folder = tmp_path / "data"
    folder.mkdir()
    words = ("red", "green", "blue", "white", "black", "yellow", "cyan", "magenta")
    for word in words:
        Image.new("RGB", (8, 8), word).save(folder / f"{word}.png")
        (folder / f"{word}.txt").write_text(f"{word} {word}")
    made = read_config("align_b16", "smoke")
    made.data.train, made.data.vocab_size, made.steps, made.log_every = str(folder), 64, 150, 50
    made.data.image.update({"flip": False, "crop_scale": (1.0, 1.0)})
    made.eval.every = made.checkpoint.every = 1000
    made.optimizer.update({"lr": 1e-2, "schedule": "constant"})
    assert made.model.init_logit_scale == 1 and made.optimizer.name == "lamb"
    assert train(made, tmp_path / "run") == 0
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    scales = [row["logit_scale"] for row in rows if "loss" in row]
    assert scales[-1] > scales[-2] > 1.1, scales
