"""FLOPs are those of the matrix products, a loop's body counted as often as it runs."""

import jax
import jax.numpy as jnp
import pytest

from tests.tiny import VOCAB, tiny_config
from vlc.parallel import chip_of
from vlc.train.flops import count_flops, step_flops, writing_flops
from vlc.train.lowering import batch_shapes, plain_step, state_shapes


def test_a_product_and_its_gradient():
    a, b = jnp.ones((4, 5)), jnp.ones((5, 6))
    assert count_flops(jnp.matmul, a, b) == 2 * 4 * 5 * 6
    assert count_flops(jax.grad(lambda a, b: (a @ b).sum(), (0, 1)), a, b) >= 2 * 2 * 4 * 5 * 6


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_the_body_of_a_loop_counts_as_often_as_it_runs(wrap):
    def layers(x, w):
        return jax.lax.scan(wrap(lambda x, w: (x @ w, None)), x, w)[0]

    assert count_flops(wrap(layers), jnp.ones((3, 8)), jnp.ones((7, 8, 8))) == 7 * 2 * 3 * 8 * 8


def test_chips_are_known_by_the_longest_name():
    assert chip_of("TPU v5 lite").flops == 197e12 and chip_of("TPU v5").flops == 459e12
    assert chip_of("NVIDIA H100 80GB HBM3").flops == 989e12
    assert chip_of("cpu") is None


def test_a_step_counts_what_the_model_asks_for():
    """However it is computed: neither exchange, nor kernels, buckets, recomputation or accumulation change it."""
    plain = step_flops(tiny_config(), VOCAB)
    changes = {"objectives__clip__exchange": "ring", "objectives__filip__exchange": "ring", "accumulate": 2}
    other = tiny_config(model__remat="full", model__scan=True, objectives__filip__buckets=(4, 8), **changes)
    assert step_flops(other, VOCAB) == plain
    assert step_flops(other, VOCAB, recomputed=True) > 1.2 * plain


def test_captions_that_are_written_count():
    """One pass over each of them, of the image once; groups need no greedy caption."""
    settings = {"objectives__policy__weight": 1.0, "reward__terms": "length:1", "model__decoder__length": 12}
    found = {}
    for name, more in (
        ("greedy", {}),
        ("group", {"objectives__policy__baseline": "group"}),
        ("guided", {"objectives__policy__baseline": "group", "reward__guidance_scale": 2.0}),
        ("more", {"objectives__policy__baseline": "group", "reward__samples": 10}),
    ):
        run = tiny_config(**settings | more)
        _, optimizer = plain_step(run, VOCAB)
        params = state_shapes(run, VOCAB, optimizer)["params"]
        found[name] = writing_flops(run, VOCAB, params, batch_shapes(run))
        assert step_flops(run, VOCAB) > found[name]
    one = found["more"] - found["group"]  # of five captions
    assert found["guided"] == pytest.approx(found["group"] + one) and found["greedy"] > found["group"]
    assert found["greedy"] == pytest.approx(found["group"] + one / 5)
    assert writing_flops(tiny_config(), VOCAB, None, {}) == 0
