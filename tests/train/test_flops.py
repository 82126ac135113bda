"""FLOPs are those of the matrix products, a loop's body counted as often as it runs."""

import jax
import jax.numpy as jnp
import pytest

from vlc.train.flops import count_flops, peak_flops


def test_a_product_and_its_gradient():
    a, b = jnp.ones((4, 5)), jnp.ones((5, 6))
    assert count_flops(jnp.matmul, a, b) == 2 * 4 * 5 * 6
    assert count_flops(jax.grad(lambda a, b: (a @ b).sum(), (0, 1)), a, b) >= 2 * 2 * 4 * 5 * 6


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_the_body_of_a_loop_counts_as_often_as_it_runs(wrap):
    def layers(x, w):
        return jax.lax.scan(wrap(lambda x, w: (x @ w, None)), x, w)[0]

    assert count_flops(wrap(layers), jnp.ones((3, 8)), jnp.ones((7, 8, 8))) == 7 * 2 * 3 * 8 * 8


def test_peaks_are_known_by_the_longest_name():
    assert peak_flops("TPU v5 lite") == 197e12 and peak_flops("TPU v5") == 459e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("cpu") is None
