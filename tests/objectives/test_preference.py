"""Pairs of captions by DPO's formula, and the best of several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracle import numerical_gradient
from vlc.objectives.preference import best_of_loss, preference_loss


def numbers(rng):
    log_prob, first = -rng.uniform(1, 9, (4, 3)), -rng.uniform(1, 9, (4, 3))
    reward = rng.normal(size=(4, 3))
    reward[2] = 0.5  # all alike: no pair
    return log_prob, first, reward


def plain_preference(log_prob, first, reward, beta, margin):
    lost = []
    for ours, theirs, worth in zip(log_prob, first, reward, strict=True):
        w, l = int(worth.argmax()), int(worth.argmin())  # noqa: E741
        if worth[w] - worth[l] > 0 and worth[w] - worth[l] >= margin:
            gap = beta * ((ours[w] - theirs[w]) - (ours[l] - theirs[l]))
            lost.append(np.log1p(np.exp(-gap)))
    return float(np.mean(lost)) if lost else 0.0


@pytest.mark.parametrize("margin", [0.0, 1.5, 99.0])
def test_pairs_by_the_formula(margin, rng):
    log_prob, first, reward = numbers(rng)

    def loss(x):
        return preference_loss(x, first, reward, beta=0.4, margin=margin)

    def wanted(x):
        return plain_preference(x, first, reward, 0.4, margin)

    np.testing.assert_allclose(loss(log_prob), wanted(log_prob), rtol=1e-5)
    gradient = np.asarray(jax.grad(loss)(jnp.asarray(log_prob)))
    np.testing.assert_allclose(gradient, numerical_gradient(wanted, log_prob), atol=1e-4)
    assert not gradient[2].any()


def test_the_other_way_round_the_margin_changes_its_sign(rng):
    log_prob, first, reward = numbers(rng)
    one = log_prob[:1], first[:1]
    there, back = (preference_loss(*one, sign * reward[:1], beta=0.4) for sign in (1, -1))
    # log sigmoid(x) - log sigmoid(-x) = x
    gap = float(back) - float(there)
    w, l = int(reward[0].argmax()), int(reward[0].argmin())  # noqa: E741
    assert gap == pytest.approx(0.4 * ((log_prob - first)[0, w] - (log_prob - first)[0, l]), rel=1e-4)


def test_the_best_alone(rng):
    log_prob, _, reward = numbers(rng)
    best = [row[worth.argmax()] for row, worth in zip(log_prob, reward, strict=True)]
    np.testing.assert_allclose(best_of_loss(log_prob, reward), -np.mean([best[0], best[1], best[3]]), rtol=1e-5)
    assert best_of_loss(log_prob, np.ones((4, 3))) == 0 and best_of_loss(log_prob, reward, margin=99.0) == 0
