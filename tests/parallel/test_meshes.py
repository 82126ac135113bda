"""The same model on any mesh, and meshes that do not fit are refused before compilation."""

import jax
import numpy as np
import pytest

from tests.tiny import HARD, VOCAB, tiny_batch, tiny_config
from vlc.errors import ConfigError
from vlc.parallel import Share, check_batch, make_mesh, state_sharding
from vlc.train.optimizer import make_optimizer
from vlc.train.state import init_state, make_graph
from vlc.train.step import loss_and_gradient

SHAPES = [(1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 1, 2)]


def mesh_of(shape):
    count = int(np.prod(shape))
    return make_mesh(dict(zip(("data", "fsdp", "tensor"), shape, strict=True)), jax.devices()[:count])


def run_on(shape, accumulate=1):
    """Fresh parameters, the loss and its gradient on a mesh."""
    config = tiny_config(**HARD)
    mesh = mesh_of(shape)
    optimizer = make_optimizer(config.optimizer, 10)
    graph = make_graph(config, VOCAB)

    def fresh(key):
        return init_state(config, VOCAB, optimizer, key)

    sharding = state_sharding(jax.eval_shape(fresh, jax.random.key(0)), mesh)
    with jax.set_mesh(mesh):
        params = jax.jit(fresh, out_shardings=sharding)(jax.random.key(0))["params"]
        batch = Share(mesh, 16).to_devices({k: np.asarray(v) for k, v in tiny_batch(config, 16).items()})
        step = jax.jit(lambda p, b: loss_and_gradient(graph, p, b, config.objectives, accumulate))
        return jax.device_get((params, *step(params, batch)))


@pytest.fixture(scope="module")
def alone():
    return run_on((1, 1, 1))


@pytest.mark.parametrize(
    "shape", [*(pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES[1:3]), *SHAPES[3:]]
)
def test_parameters_are_born_bit_equal_and_gradients_agree(shape, alone):
    params, total, terms, gradient = run_on(shape)
    for a, b in zip(jax.tree.leaves(alone[0]), jax.tree.leaves(params), strict=True):
        assert np.array_equal(a, b)
    assert total == pytest.approx(alone[1], rel=1e-5)
    assert {k: float(v) for k, v in terms.items()} == pytest.approx(
        {k: float(v) for k, v in alone[2].items()}, rel=1e-5
    )
    _assert_close(gradient, alone[3])


@pytest.mark.parametrize(("shape", "accumulate"), [((1, 1, 1), 2), ((2, 2, 2), 4)])
def test_accumulated_gradients_are_those_of_the_whole_batch(shape, accumulate, alone):
    _, total, terms, gradient = run_on(shape, accumulate)
    assert total == pytest.approx(alone[1], rel=1e-5)
    assert set(terms) == set(alone[2])
    _assert_close(gradient, alone[3])


def _assert_close(gradient, wanted):
    """Every leaf, the temperatures among them, to float32 rounding."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(wanted), jax.tree.leaves(gradient), strict=True)
    for (path, a), b in pairs:
        scale = np.abs(a).max()
        np.testing.assert_allclose(b, a, atol=3e-4 * scale + 1e-7, err_msg=jax.tree_util.keystr(path))


def test_parameters_are_really_split():
    config = tiny_config()
    optimizer = make_optimizer(config.optimizer, 10)
    shapes = jax.eval_shape(lambda key: init_state(config, VOCAB, optimizer, key), jax.random.key(0))
    sharding = state_sharding(shapes, mesh_of((1, 4, 2)))
    local = sum(
        int(np.prod(spec.shard_shape(leaf.shape)))
        for leaf, spec in zip(jax.tree.leaves(shapes), jax.tree.leaves(sharding), strict=True)
    )
    assert local < sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 3


def test_meshes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="does not fit 8 devices"):
        make_mesh({"data": 3, "fsdp": 1, "tensor": 1})
    with pytest.raises(ConfigError, match="only one may be -1"):
        make_mesh({"data": -1, "fsdp": -1, "tensor": 1})
    with pytest.raises(ConfigError, match="divisible by 16"):
        check_batch(mesh_of((4, 2, 1)), 12, 2)
    config = tiny_config(model__text__width=34, model__text__heads=2)
    optimizer = make_optimizer(config.optimizer, 10)
    shapes = jax.eval_shape(lambda key: init_state(config, VOCAB, optimizer, key), jax.random.key(0))
    with pytest.raises(ConfigError, match=r"text_tower.*34 is not divisible by fsdp=4"):
        state_sharding(shapes, mesh_of((2, 4, 1)))
