"""Policy gradients: the exact gradient of the expected reward by enumeration, and the formulas in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracle import log_softmax
from vlc.errors import ConfigError
from vlc.objectives.policy import advantages, policy_loss, token_divergence, token_log_probs
from vlc.train.step import running_mean

END, PAD = 1, 2  # of a vocabulary of two words: "a" and the end mark
LENGTH = 3


def captions():
    """All that can be written: up to three tokens, cut there."""
    found = [[0] * count + [END] for count in range(LENGTH)] + [[0] * LENGTH]
    return np.array([some + [PAD] * (LENGTH - len(some)) for some in found])


def logits_of(weights, ids):
    """A model whose next token depends on the one before and the place: `[captions, T, 2]`."""
    before = jnp.concatenate([jnp.full((len(ids), 1), 0), jnp.minimum(ids[:, :-1], 1)], axis=1)
    return weights[jnp.arange(LENGTH)[None], before]


@pytest.mark.parametrize("baseline", [0.0, 3.7])
def test_the_gradient_is_that_of_the_expected_reward(baseline, rng):
    """Over all captions, each as often as the model writes it; whatever the baseline is."""
    weights, ids = jnp.asarray(rng.normal(size=(LENGTH, 2, 2)), jnp.float32), jnp.asarray(captions())
    worth = jnp.asarray(rng.normal(size=len(ids)), jnp.float32)

    def expected(weights):
        log_prob, mask = token_log_probs(logits_of(weights, ids), ids)
        chance = jnp.exp((log_prob * mask).sum(axis=1))
        return (chance * worth).sum()

    log_prob, _ = token_log_probs(logits_of(weights, ids), ids)
    chance = jnp.exp(log_prob.sum(axis=1))
    np.testing.assert_allclose(chance.sum(), 1, rtol=1e-5)  # they are all that there are

    def lost(weights, one):
        log_prob, mask = token_log_probs(logits_of(weights, ids[one : one + 1]), ids[one : one + 1])
        advantage = advantages(worth[one][None, None], "greedy", jnp.array([baseline]))
        return policy_loss(log_prob[None], None, mask[None], advantage, average="sequence")

    drawn = sum(chance[one] * jax.grad(lost)(weights, one) for one in range(len(ids)))
    np.testing.assert_allclose(drawn, -jax.grad(expected)(weights), atol=1e-5)


def test_what_a_caption_is_held_against(rng):
    rewards = rng.normal(size=(3, 4))
    value = rng.normal(size=3)
    for baseline in ("greedy", "running"):
        np.testing.assert_allclose(advantages(rewards, baseline, value), rewards - value[:, None], rtol=1e-6)
    group = np.asarray(advantages(jnp.asarray(rewards), "group"))
    wanted = (rewards - rewards.mean(axis=1, keepdims=True)) / (rewards.std(axis=1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(group, wanted, rtol=1e-4)
    alike = advantages(jnp.full((2, 4), 0.3), "group")
    np.testing.assert_allclose(alike, 0, atol=1e-3)
    with pytest.raises(ConfigError, match="baseline"):
        advantages(rewards, "best")


def numbers(rng):
    log_prob, old = np.log(rng.uniform(0.05, 0.9, (2, 3, 4))), np.log(rng.uniform(0.05, 0.9, (2, 3, 4)))
    mask = np.array([[[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], [[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]], float)
    return log_prob, old, mask, rng.normal(size=(2, 3))


@pytest.mark.parametrize("average", ["token", "sequence"])
def test_clipped_ratios_by_hand(average, rng):
    log_prob, old, mask, gain = numbers(rng)
    values = []
    for row, place in itertools.product(range(2), range(3)):
        kept = []
        for t in np.flatnonzero(mask[row, place]):
            ratio, a = np.exp(log_prob[row, place, t] - old[row, place, t]), gain[row, place]
            kept.append(min(ratio * a, np.clip(ratio, 0.7, 1.3) * a))
        values.append(sum(kept) / (max(len(kept), 1) if average == "token" else 1))
    found = policy_loss(log_prob, old, mask, gain, clip=0.3, average=average)
    np.testing.assert_allclose(found, -np.mean(values), rtol=1e-5)
    with pytest.raises(ConfigError, match="average"):
        policy_loss(log_prob, old, mask, gain, average="none")


def test_no_advantage_no_gradient_and_pads_have_none(rng):
    log_prob, _, mask, gain = (jnp.asarray(x, jnp.float32) for x in numbers(rng))

    def gradient(gain):
        return np.asarray(jax.grad(lambda x: policy_loss(x, None, mask, gain))(log_prob))

    assert not gradient(jnp.zeros((2, 3))).any()
    moved = gradient(gain)
    assert not moved[np.asarray(mask) == 0].any() and moved[np.asarray(mask) > 0].all()
    wanted = -np.asarray(gain)[..., None] * np.asarray(mask) / np.maximum(np.asarray(mask).sum(2, keepdims=True), 1) / 6
    np.testing.assert_allclose(moved, wanted, rtol=1e-5)  # of REINFORCE


def test_log_probabilities_end_with_the_end_mark(rng):
    logits = rng.normal(size=(1, 4, 3)).astype(np.float32)  # ids 0 to 2; 3 is a pad
    log_prob, mask = token_log_probs(jnp.asarray(logits), jnp.array([[0, 2, 3, 3]]))
    assert mask.tolist() == [[1, 1, 0, 0]] and not np.asarray(log_prob)[0, 2:].any()
    wanted = [log_softmax(logits[0, 0], 0)[0], log_softmax(logits[0, 1], 0)[2]]
    np.testing.assert_allclose(np.asarray(log_prob)[0, :2], wanted, rtol=1e-5)


def test_divergence_over_the_whole_vocabulary(rng):
    ours, theirs = rng.normal(size=(2, 5, 7)), rng.normal(size=(2, 5, 7))
    p, q = log_softmax(ours, -1), log_softmax(theirs, -1)
    np.testing.assert_allclose(token_divergence(ours, theirs), (np.exp(p) * (p - q)).sum(axis=-1), rtol=1e-4)
    assert not np.asarray(token_divergence(ours, ours)).any()


def test_the_mean_of_past_rewards():
    kept, expected = {"mean": jnp.zeros(()), "weight": jnp.zeros(())}, []
    for value in (2.0, 4.0, 1.0):
        known, kept = running_mean(kept, jnp.float32(value))
        expected.append(float(known))
    assert expected[:2] == [2.0, pytest.approx(2.0)]  # the first is its own; then what came before
    assert expected[2] == pytest.approx((0.9 * 2 + 4) / 1.9)
